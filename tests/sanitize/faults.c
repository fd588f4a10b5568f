/* See faults.h. What must never happen here: a failure that the system could not have. */

#define _GNU_SOURCE
#include "faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { MEMORY = 0 };

const char *const fault_calls[] = {"memory",        "socketpair", "socket",     "accept4",   "memfd_create",
                                   "epoll_create1", "epoll_ctl",  "eventfd",    "timerfd_create", "sendmsg",
                                   "recvmsg",       "recv",       "mmap",       "fcntl",     "ftruncate",
                                   "write",         "setsockopt", "getsockopt", "bind",      "listen",
                                   "connect",       "getsockname", "getpeername", "openat",  "open",
                                   "fstat",         "fstatfs",    "ioctl",      "syscall",   "ppoll",
                                   "poll",          "pthread_create", "symlinkat", "process_vm_readv", "getrandom",
                                   "pipe2",         "epoll_wait", "flock",      "fstatat",   NULL};

static atomic_long allocations;
static atomic_uint left; /* so many calls until one fails */
static atomic_bool paused = true;
static atomic_int failing = -1;

void faults_begin(int call, unsigned nth)
{
    left = nth;
    failing = call;
    paused = false;
}

bool faults_end(void)
{
    bool hit = failing >= 0 && left == 0;
    failing = -1;
    paused = true;
    return hit;
}

void faults_pause(void) { paused = true; }
void faults_resume(void) { paused = failing < 0; }
long faults_allocations(void) { return allocations; }

int faults_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(folder))
        count++;
    closedir(folder);
    return count - 3; /* ".", "..", the folder's own */
}

static bool fails(int call)
{
    return !paused && failing == call && left > 0 && atomic_fetch_sub(&left, 1) == 1;
}

static bool call_fails(const char *name, int number)
{
    static _Thread_local const char *last;
    static _Thread_local int place;
    if (paused)
        return false;
    if (last != name)
        for (place = 0; strcmp(fault_calls[place], name); place++)
            ;
    last = name;
    if (!fails(place))
        return false;
    errno = number;
    return true;
}

/* -- memory ------------------------------------------------------------------------------------------------------------- */

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void __real_free(void *);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void __wrap_free(void *);

void *__wrap_malloc(size_t size)
{
    void *made = fails(MEMORY) ? NULL : __real_malloc(size);
    allocations += made != NULL;
    return made;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *made = fails(MEMORY) ? NULL : __real_calloc(count, size);
    allocations += made != NULL;
    return made;
}

void *__wrap_realloc(void *from, size_t size)
{
    void *made = fails(MEMORY) ? NULL : __real_realloc(from, size);
    allocations += made != NULL && from == NULL;
    return made;
}

void __wrap_free(void *what)
{
    allocations -= what != NULL;
    __real_free(what);
}

/* -- system calls --------------------------------------------------------------------------------------------------------- */

#define WRAP(type, name, number, parameters, arguments)                                                                           \
    type __real_##name parameters;                                                                                                \
    type __wrap_##name parameters;                                                                                                \
    type __wrap_##name parameters { return call_fails(#name, number) ? (type)-1 : __real_##name arguments; }

WRAP(int, socketpair, EMFILE, (int f, int t, int p, int s[2]), (f, t, p, s))
WRAP(int, socket, EMFILE, (int f, int t, int p), (f, t, p))
WRAP(int, accept4, EMFILE, (int s, struct sockaddr *a, socklen_t *n, int f), (s, a, n, f))
WRAP(int, memfd_create, EMFILE, (const char *n, unsigned f), (n, f))
WRAP(int, epoll_create1, EMFILE, (int f), (f))
WRAP(int, eventfd, EMFILE, (unsigned v, int f), (v, f))
WRAP(int, timerfd_create, EMFILE, (int c, int f), (c, f))
WRAP(ssize_t, sendmsg, ENOBUFS, (int s, const struct msghdr *m, int f), (s, m, f))
WRAP(ssize_t, recvmsg, ENOMEM, (int s, struct msghdr *m, int f), (s, m, f))
WRAP(ssize_t, recv, ENOMEM, (int s, void *b, size_t n, int f), (s, b, n, f))
WRAP(int, ftruncate, ENOSPC, (int fd, off_t n), (fd, n))
WRAP(ssize_t, write, ENOSPC, (int fd, const void *b, size_t n), (fd, b, n))
WRAP(int, setsockopt, ENOMEM, (int s, int l, int o, const void *v, socklen_t n), (s, l, o, v, n))
WRAP(int, getsockopt, ENOMEM, (int s, int l, int o, void *v, socklen_t *n), (s, l, o, v, n))
WRAP(int, bind, ENOMEM, (int s, const struct sockaddr *a, socklen_t n), (s, a, n))
WRAP(int, listen, ENOMEM, (int s, int n), (s, n))
WRAP(int, connect, ENOMEM, (int s, const struct sockaddr *a, socklen_t n), (s, a, n))
WRAP(int, getsockname, ENOBUFS, (int s, struct sockaddr *a, socklen_t *n), (s, a, n))
WRAP(int, getpeername, ENOBUFS, (int s, struct sockaddr *a, socklen_t *n), (s, a, n))
WRAP(int, fstat, ENOMEM, (int fd, struct stat *s), (fd, s))
WRAP(int, fstatat, ENOMEM, (int fd, const char *p, struct stat *s, int f), (fd, p, s, f))
WRAP(int, fstatfs, ENOMEM, (int fd, struct statfs *s), (fd, s))
WRAP(int, poll, EINTR, (struct pollfd *f, nfds_t n, int t), (f, n, t))
WRAP(int, ppoll, EINTR, (struct pollfd *f, nfds_t n, const struct timespec *t, const sigset_t *s), (f, n, t, s))
WRAP(int, epoll_wait, EINTR, (int e, struct epoll_event *v, int n, int t), (e, v, n, t))
WRAP(int, symlinkat, ENOSPC, (const char *t, int fd, const char *p), (t, fd, p))
WRAP(int, flock, ENOLCK, (int fd, int o), (fd, o))
WRAP(int, pipe2, EMFILE, (int p[2], int f), (p, f))
WRAP(ssize_t, getrandom, EINTR, (void *b, size_t n, unsigned f), (b, n, f))
WRAP(ssize_t, process_vm_readv, ENOMEM,
     (pid_t p, const struct iovec *l, unsigned long n, const struct iovec *r, unsigned long m, unsigned long f), (p, l, n, r, m, f))

void *__real_mmap(void *, size_t, int, int, int, off_t);
void *__wrap_mmap(void *, size_t, int, int, int, off_t);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return call_fails("mmap", ENOMEM) ? MAP_FAILED : __real_mmap(at, size, protection, flags, fd, offset);
}

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with)
{
    return call_fails("pthread_create", EAGAIN) ? EAGAIN : __real_pthread_create(thread, how, run, with);
}

/* What is taken out of an epoll was in it: that does not fail. */
int __real_epoll_ctl(int, int, int, struct epoll_event *);
int __wrap_epoll_ctl(int, int, int, struct epoll_event *);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    return what == EPOLL_CTL_ADD && call_fails("epoll_ctl", ENOMEM) ? -1 : __real_epoll_ctl(epoll, what, fd, event);
}

/* Those with a variable number of arguments: as many as any call here has. */
#define ARGUMENT(last) \
    va_list list; \
    long argument; \
    va_start(list, last); \
    argument = va_arg(list, long); \
    va_end(list)

int __real_fcntl(int, int, ...);
int __wrap_fcntl(int, int, ...);
int __wrap_fcntl(int fd, int what, ...)
{
    ARGUMENT(what);
    return call_fails("fcntl", EMFILE) ? -1 : __real_fcntl(fd, what, argument);
}

int __real_ioctl(int, unsigned long, ...);
int __wrap_ioctl(int, unsigned long, ...);
int __wrap_ioctl(int fd, unsigned long what, ...)
{
    ARGUMENT(what);
    return call_fails("ioctl", ENOMEM) ? -1 : __real_ioctl(fd, what, argument);
}

int __real_open(const char *, int, ...);
int __wrap_open(const char *, int, ...);
int __wrap_open(const char *path, int flags, ...)
{
    ARGUMENT(flags);
    return call_fails("open", EMFILE) ? -1 : __real_open(path, flags, (mode_t)argument);
}

int __real_openat(int, const char *, int, ...);
int __wrap_openat(int, const char *, int, ...);
int __wrap_openat(int fd, const char *path, int flags, ...)
{
    ARGUMENT(flags);
    return call_fails("openat", EMFILE) ? -1 : __real_openat(fd, path, flags, (mode_t)argument);
}

long __real_syscall(long, ...);
long __wrap_syscall(long, ...);
long __wrap_syscall(long number, ...)
{
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    return call_fails("syscall", EMFILE) ? -1 : __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
