/*
 * Bootstrap names: claiming one, connecting to who has it, giving it up.
 *
 * What must never happen here: a name in the abstract namespace, which anybody can squat; a connection to another user's
 * process; a name removed that is another port's by now, or the parent's of a forked process.
 */

#include "bootstrap_directory.h"
#include "closing.h"

#include <stdio.h>

#define BACKLOG 4096 /* connections that wait to be accepted; net.core.somaxconn may make it fewer */
#define SWEEP 64     /* entries of the directory that a claim looks at for what is stale */

struct bootstrap_name {
    struct bootstrap_name *next, **link; /* among the names of this process; link is NULL for what is the parent's */
    dev_t device;                        /* the directory */
    ino_t inode;
    pid_t process;
    char file[FILE_NAME + 1]; /* "": whatever leads to the socket */
    char target[SOCKET_NAME + 1];
    char path[]; /* of the directory */
};

static struct bootstrap_name *names; /* of this process, for its exit; under bootstrap_lock */
static pid_t owner;                  /* the process whose they are */

/* -- the names of this process ------------------------------------------------------------------------------------------- */

static struct bootstrap_name *new_name(const struct directory *directory, const char *file, const char *target)
{
    const size_t length = strlen(directory->path);
    struct bootstrap_name *name = malloc(sizeof *name + length + 1);
    if (!name)
        return NULL;
    memset(name, 0, sizeof *name);
    name->device = directory->device;
    name->inode = directory->inode;
    name->process = getpid();
    memcpy(name->file, file, strlen(file) + 1);
    memcpy(name->target, target, SOCKET_NAME + 1);
    memcpy(name->path, directory->path, length + 1);
    return name;
}

static void delist(struct bootstrap_name *name)
{
    if (!name->link)
        return;
    *name->link = name->next;
    if (name->next)
        name->next->link = name->link;
    name->next = NULL;
    name->link = NULL;
}

/* Removes a name's files, if the directory is the one where they were made. */
static void remove_files(const struct bootstrap_name *name)
{
    struct directory directory = {.device = name->device, .inode = name->inode};
    struct stat found;
    if (name->process != getpid())
        return;
    directory.fd = open(name->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory.fd < 0)
        return;
    if (fstat(directory.fd, &found) == 0 && found.st_dev == name->device && found.st_ino == name->inode)
        entry_remove(&directory, name->file, name->target);
    directory_close(&directory);
}

/* At exit. Other threads may still be at work. */
static void remove_all(void)
{
    if (owner != getpid())
        return; /* a forked process for which no hook was run: the names are its parent's, and the lock may be anybody's */
    pthread_mutex_lock(&bootstrap_lock);
    for (struct bootstrap_name *name = names; name; name = name->next)
        remove_files(name);
    pthread_mutex_unlock(&bootstrap_lock);
}

static void enlist(struct bootstrap_name *name)
{
    static bool registered;
    pthread_mutex_lock(&bootstrap_lock);
    owner = getpid();
    if (!registered)
        registered = atexit(remove_all) == 0; /* else a name is stale after the exit, and swept by somebody */
    name->next = names;
    name->link = &names;
    if (names)
        names->link = &name->next;
    names = name;
    pthread_mutex_unlock(&bootstrap_lock);
}

void bootstrap_name_forget(struct bootstrap_name *name)
{
    if (!name)
        return;
    pthread_mutex_lock(&bootstrap_lock);
    delist(name);
    pthread_mutex_unlock(&bootstrap_lock);
    free(name);
}

void bootstrap_name_remove(struct bootstrap_name *name)
{
    if (name)
        remove_files(name);
    bootstrap_name_forget(name);
}

void bootstrap_before_fork(void) { pthread_mutex_lock(&bootstrap_lock); }
void bootstrap_after_fork_in_parent(void) { pthread_mutex_unlock(&bootstrap_lock); }

void bootstrap_after_fork_in_child(void)
{
    while (names)
        delist(names);
    pthread_mutex_unlock(&bootstrap_lock);
}

/* -- claiming ------------------------------------------------------------------------------------------------------------ */

/* Whoever connects is attested: accepted sockets inherit this, and what is sent before accept() is attested too (Linux 6.18,
   net/unix/af_unix.c, unix_sock_inherit_flags). SO_TIMESTAMPNS is not inherited, and so is for who accepts. */
static int attest(int fd)
{
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on))
        return -errno;
    /* Before Linux 6.5: ENOPROTOOPT, or EINVAL. */
    if (HAVE(PASSPIDFD) && setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on) && errno != ENOPROTOOPT && errno != EINVAL)
        return -errno;
    return 0;
}

/* A listener behind a file of the directory: a socket, or a negative errno; then there is no such file. */
static int listen_at(const struct directory *directory, const char *target, struct sockaddr_un *address)
{
    int fd, error = entry_address(directory, target, address);
    if (error)
        return error;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    error = attest(fd);
    if (!error && bind(fd, (const struct sockaddr *)address, sizeof *address))
        error = -errno;
    if (!error) {
        if (!entry_is_socket(directory, target))
            error = -EPERM; /* the path has led somewhere else */
        else if (listen(fd, BACKLOG))
            error = -errno;
        if (error)
            entry_remove(directory, target, target);
    }
    if (!error)
        return fd;
    close(fd);
    return error;
}

/* With the directory's lock. */
static kern_return_t claim(const struct directory *directory, const struct bootstrap_name *name, int *listener,
                           struct sockaddr_un *address)
{
    int fd;
    if (!entry_make_free(directory, name->file))
        return BOOTSTRAP_NAME_IN_USE;
    entry_sweep(directory, SWEEP); /* what it does not remove is in nobody's way */
    fd = listen_at(directory, name->target, address);
    if (fd < 0)
        return directory_error(fd);
    if (symlinkat(name->target, directory->fd, name->file) == 0) {
        *listener = fd;
        return KERN_SUCCESS;
    }
    int error = errno;
    entry_remove(directory, name->file, name->target);
    close_later(fd); /* somebody may have connected already */
    return error == EEXIST ? BOOTSTRAP_NAME_IN_USE : directory_error(error);
}

kern_return_t bootstrap_name_claim(const char *service, const char id[PORT_ID], int *listener, char address[ADDRESS_MAX],
                                   int *length, struct bootstrap_name **name)
{
    char file[FILE_NAME + 1], target[SOCKET_NAME + 1] = ".";
    struct bootstrap_name *made;
    struct directory directory;
    struct sockaddr_un bound;
    kern_return_t result;
    int lock;
    if (!*service)
        return BOOTSTRAP_UNKNOWN_SERVICE;
    entry_of(service, file);
    memcpy(target + 1, id, PORT_ID);
    target[SOCKET_NAME] = 0;
    result = directory_open(&directory, NULL, 0);
    if (result != KERN_SUCCESS)
        return result;
    made = new_name(&directory, file, target);
    result = made ? directory_lock(&directory, &lock) : KERN_RESOURCE_SHORTAGE;
    if (result == KERN_SUCCESS) {
        result = claim(&directory, made, listener, &bound);
        close(lock);
    }
    directory_close(&directory);
    if (result != KERN_SUCCESS) {
        free(made);
        return result;
    }
    enlist(made);
    *length = (int)strnlen(bound.sun_path, sizeof bound.sun_path);
    memcpy(address, bound.sun_path, (size_t)*length);
    *name = made;
    return KERN_SUCCESS;
}

struct bootstrap_name *bootstrap_name_adopt(const char *address, int length)
{
    struct bootstrap_name *name = NULL;
    struct directory directory;
    char target[SOCKET_NAME + 1];
    size_t before;
    if (length <= SOCKET_NAME + 1 || length > ADDRESS_MAX || memchr(address, 0, (size_t)length))
        return NULL;
    before = (size_t)length - SOCKET_NAME - 1; /* the directory, a slash, the socket */
    memcpy(target, address + before + 1, SOCKET_NAME);
    target[SOCKET_NAME] = 0;
    if (address[before] != '/' || !entry_names_socket(target) || directory_open(&directory, NULL, 0) != KERN_SUCCESS)
        return NULL;
    /* What a peer says of a file elsewhere is no reason to remove it. */
    if (strlen(directory.path) == before && memcmp(directory.path, address, before) == 0)
        name = new_name(&directory, "", target);
    directory_close(&directory);
    if (name)
        enlist(name);
    return name;
}

/* -- connecting ---------------------------------------------------------------------------------------------------------- */

static int set_patience(int fd, mach_msg_timeout_t milliseconds)
{
    const struct timeval limit = {(time_t)(milliseconds / 1000), (suseconds_t)(milliseconds % 1000 * 1000)};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, milliseconds ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit))
        return -errno;
    return 0;
}

/* Connects; where the server's backlog is full, waits so long for a place in it. 0, or a negative errno. */
static int connect_patiently(int fd, const struct sockaddr_un *address, mach_msg_timeout_t timeout)
{
    const struct sockaddr *to = (const struct sockaddr *)address;
    int error = connect(fd, to, sizeof *address) ? -errno : 0;
    if (error != -EAGAIN || timeout == 0)
        return error;
    error = set_patience(fd, timeout);
    if (!error && connect(fd, to, sizeof *address))
        error = -errno;
    return error ? error : set_patience(fd, 0);
}

/*
 * Whether who answers is of this process's user: as the kernel had it when it began to listen. Root's own directory can be
 * entered by root alone, who may have become somebody else before it listened.
 */
static bool is_ours(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    const uid_t user = geteuid();
    return user == 0 || (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == user);
}

static kern_return_t connect_error(int error)
{
    switch (-error) {
    case ENOENT:
    case ECONNREFUSED:
    case EPROTOTYPE: /* a socket, but not one of a port's */
        return BOOTSTRAP_UNKNOWN_SERVICE;
    case EAGAIN:
        return KERN_OPERATION_TIMED_OUT;
    case EINTR:
        return KERN_ABORTED;
    default:
        return directory_error(error);
    }
}

/* Connects to a name in the directory. */
static kern_return_t connect_in(const struct directory *directory, const char *target, mach_msg_timeout_t timeout, int *fd)
{
    struct sockaddr_un address;
    int one, error = entry_address(directory, target, &address);
    if (error)
        return directory_error(error);
    one = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (one < 0)
        return KERN_RESOURCE_SHORTAGE;
    error = connect_patiently(one, &address, timeout);
    if (error) {
        close(one);
        return connect_error(error);
    }
    if (!directory_is_there(directory) || !is_ours(one)) { /* the path has led somewhere else */
        close_later(one);
        return BOOTSTRAP_NOT_PRIVILEGED;
    }
    *fd = one;
    return KERN_SUCCESS;
}

kern_return_t bootstrap_name_connect(const char *service, mach_msg_timeout_t timeout, int *fd, char id[PORT_ID])
{
    char file[FILE_NAME + 1], target[SOCKET_NAME + 1];
    struct directory directory;
    kern_return_t result;
    if (!*service)
        return BOOTSTRAP_UNKNOWN_SERVICE;
    entry_of(service, file);
    result = directory_open(&directory, NULL, 0);
    if (result != KERN_SUCCESS)
        return result;
    /* No link is followed out of the directory: not the name's, and the socket is one itself. */
    if (entry_link(&directory, file, target) || !entry_is_socket(&directory, target))
        result = BOOTSTRAP_UNKNOWN_SERVICE;
    else
        result = connect_in(&directory, target, timeout, fd);
    directory_close(&directory);
    if (result == KERN_SUCCESS)
        memcpy(id, target + 1, PORT_ID);
    return result;
}
