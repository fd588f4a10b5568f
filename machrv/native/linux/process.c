/*
 * Which process is which, what time it is, and what this kernel has.
 *
 * What must never happen here: a decision about whom to believe; an answer that may be about another process that has got the
 * number meanwhile, where the kernel can tell; a wait.
 */

#include "system.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define PIDFS_MAGIC 0x50494446
#define START_TIME 22 /* the field of /proc/PID/stat; the first is 1 */

struct pidfd_info_64 { /* struct pidfd_info as of Linux 6.13, include/uapi/linux/pidfd.h */
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid, spare;
};
#define PIDFD_GET_INFO_64 _IOWR(0xFF, 11, struct pidfd_info_64)
#define INFO_PID 1u
#define INFO_CREDS 2u

int machrv_missing;

void machrv_without(int features)
{
    machrv_missing = features;
    task_forget_self(); /* what tells this process from others may be another word of the system's */
}

static int64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t now_real(void) { return now(CLOCK_REALTIME); }
int64_t now_monotonic(void) { return now(CLOCK_MONOTONIC); }

int random_bytes(void *into, size_t size)
{
    char *at = into;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

int machrv_pidfd_open(int pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

/* In clock ticks since boot; 0 if there is no such process. */
static uint64_t start_time(int pid)
{
    char path[32], text[1024], *at;
    unsigned long long ticks = 0;
    ssize_t got;
    int fd;
    if (pid <= 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    at = strrchr(text, ')'); /* the name of the program may hold anything; the third field stands behind it */
    for (int field = 3; at && field <= START_TIME; field++)
        at = strchr(at + 1, ' ');
    return at && sscanf(at, " %llu", &ticks) == 1 ? ticks : 0;
}

/* Whether pidfds have inodes of their own, which are never given out again (Linux 6.9, fs/pidfs.c). */
static bool in_pidfs(int pidfd)
{
    static _Atomic int known; /* 0: not yet, 1: yes, -1: no */
    struct statfs system;
    int answer = known;
    if (answer == 0 && fstatfs(pidfd, &system) == 0)
        known = answer = system.f_type == PIDFS_MAGIC ? 1 : -1;
    return answer > 0;
}

int poll_surely(struct pollfd *polled, size_t count)
{
    int ready = 0, one;
    do
        one = poll(polled, (nfds_t)count, 0);
    while (one < 0 && errno == EINTR);
    if (one >= 0)
        return one;
    if (count ==
        1) /* needs no memory (Linux 6.12, fs/select.c, do_sys_poll: it is on the stack): once more, for who injects it */
        return (one = poll(polled, 1, 0)) < 0 ? polled->revents = 0, -errno : one;
    for (size_t i = 0; i < count; i++) /* no memory, or more than RLIMIT_NOFILE at once */
        ready += poll_surely(polled + i, 1) > 0;
    return ready;
}

int machrv_has_exited(int pidfd)
{
    struct pollfd exit = {.fd = pidfd, .events = POLLIN};
    return poll_surely(&exit, 1);
}

uint64_t machrv_process(int pid, int pidfd)
{
    struct stat file;
    uint64_t start;
    if (pidfd >= 0 && HAVE(PIDFS) && in_pidfs(pidfd))
        return fstat(pidfd, &file) ? 0 : file.st_ino;
    start = start_time(pid);
    /* Once it has exited, what /proc said may be of another process already. */
    return pidfd >= 0 && machrv_has_exited(pidfd) ? 0 : start; /* where it cannot be told, too */
}

bool pidfd_ids(int pidfd, uint32_t *euid, uint32_t *egid)
{
    struct pidfd_info_64 info;
    memset(&info, 0, sizeof info);
    info.mask = INFO_PID | INFO_CREDS;
    if (!HAVE(PIDFD_INFO) || syscall(SYS_ioctl, pidfd, PIDFD_GET_INFO_64, &info) || !(info.mask & INFO_CREDS))
        return false;
    *euid = info.euid;
    *egid = info.egid;
    return true;
}

/* A pidfd of who made the other end, or a negative errno: -ENOPROTOOPT before Linux 6.5, and others for who is gone. */
static int peer_pidfd(int fd)
{
    int pidfd = -1;
    socklen_t length = sizeof pidfd;
    if (!HAVE(PEERPIDFD))
        return -ENOPROTOOPT;
    return getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) ? -errno : pidfd;
}

uint64_t socket_maker(int fd)
{
    struct ucred maker = {.pid = 0};
    socklen_t length = sizeof maker;
    uint64_t process;
    int pidfd = peer_pidfd(fd);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &maker, &length))
        maker.pid = 0;
    /* Who has the number now may have got it from the maker. Only where the kernel cannot tell is that taken. */
    if (pidfd == -ENOPROTOOPT && maker.pid > 0)
        pidfd = machrv_pidfd_open(maker.pid);
    if (pidfd < 0)
        return 0;
    process = machrv_process(maker.pid, pidfd);
    close(pidfd);
    return process;
}

/* -- which features there are ------------------------------------------------------------------------------------------ */

static bool has_option(int fd, int option, void *value, socklen_t length)
{
    return getsockopt(fd, SOL_SOCKET, option, value, &length) == 0;
}

/*
 * The pidfd of a sender that has been waited for (Linux 6.17, net/core/scm.c), or of a maker (6.16, net/core/sock.c). The
 * sender is a process for the purpose, made by the bare system call: nothing that a fork does is done for it, its end sends no
 * signal, and it makes two system calls.
 */
/* CMSG_NXTHDR compares what it should not in musl. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
static int attached_pidfd(struct msghdr *message)
{
    int pidfd = -1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_PIDFD)
            memcpy(&pidfd, CMSG_DATA(part), sizeof pidfd);
    return pidfd;
}
#pragma GCC diagnostic pop

static bool has_dead_pidfds(void)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    int ends[2], on = 1, sender, status, pidfd = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        return false;
    if (setsockopt(ends[0], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on) == 0) {
        sender = (int)syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
        if (sender == 0) {
            syscall(SYS_sendto, ends[1], "", 1, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
            syscall(SYS_exit_group, 0);
        }
        while (sender > 0 && waitpid(sender, &status, __WALL) < 0 && errno == EINTR)
            continue;
        if (sender > 0 && recvmsg(ends[0], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) >= 0)
            pidfd = attached_pidfd(&message);
    }
    if (pidfd >= 0)
        close(pidfd);
    close(ends[0]);
    close(ends[1]);
    return pidfd >= 0;
}

static int features_of_sockets(void)
{
    int ends[2], value = 0, pidfd = -1, found = 0;
    uint64_t cookie;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return 0;
    if (has_option(ends[0], SO_PASSPIDFD, &value, sizeof value))
        found |= MACHRV_WITHOUT_PASSPIDFD;
    if (has_option(ends[0], SO_NETNS_COOKIE, &cookie, sizeof cookie))
        found |= MACHRV_WITHOUT_NETNS_COOKIE;
    if (has_option(ends[0], SO_PEERPIDFD, &pidfd, sizeof pidfd)) {
        found |= MACHRV_WITHOUT_PEERPIDFD;
        close(pidfd);
    }
    close(ends[0]);
    close(ends[1]);
    return found;
}

static int features_of_pidfds(void)
{
    struct pidfd_info_64 info;
    int pidfd = machrv_pidfd_open(getpid()), found = 0;
    if (pidfd < 0)
        return 0;
    memset(&info, 0, sizeof info);
    info.mask = INFO_PID | INFO_CREDS;
    if (in_pidfs(pidfd))
        found |= MACHRV_WITHOUT_PIDFS;
    if (syscall(SYS_ioctl, pidfd, PIDFD_GET_INFO_64, &info) == 0 && info.mask & INFO_CREDS)
        found |= MACHRV_WITHOUT_PIDFD_INFO;
    close(pidfd);
    return found;
}

int machrv_features(void)
{
    int found = features_of_sockets() | features_of_pidfds();
    int memory = memfd_create("machrv-try", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (memory >= 0) {
        found |= MACHRV_WITHOUT_NOEXEC_SEAL;
        close(memory);
    }
    if (has_dead_pidfds())
        found |= MACHRV_WITHOUT_PIDFD_OF_GONE;
    found &= ~machrv_missing;
    if (!(found & MACHRV_WITHOUT_PASSPIDFD)) /* then there is no pidfd to ask, of the living or of the gone */
        found &= ~(MACHRV_WITHOUT_PIDFD_INFO | MACHRV_WITHOUT_PIDFD_OF_GONE);
    return found;
}
