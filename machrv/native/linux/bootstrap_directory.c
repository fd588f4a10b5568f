/*
 * Where the directory of bootstrap names is, and whether it is safe: $MACHRV_BOOTSTRAP_DIR, else $XDG_RUNTIME_DIR/machrv, else
 * /tmp/machrv-UID.
 *
 * What must never happen here: a directory that another user owns, can enter, or could exchange for another one; a second look
 * by path at what was opened. There is no place that nobody could take beforehand and everybody finds: where /tmp/machrv-UID is
 * another user's, the text says what to set.
 */

#include "bootstrap_directory.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>

#define LOCK ".lock"
#define LOCK_PATIENCE 10000000000 /* ns: the longest that a directory's lock is waited for */
#define LOCK_STEP 5000000         /* ns */
#define NOBODY 65534              /* who is not in this user namespace: /proc/sys/kernel/overflowuid, as Linux sets it */
#define ADVICE "set MACHRV_BOOTSTRAP_DIR to a directory of your own with mode 0700"

pthread_mutex_t bootstrap_lock = PTHREAD_MUTEX_INITIALIZER;

/* The directory whose parents have been looked at last, and as whom: another one in its place has another inode. */
static struct {
    dev_t device;
    ino_t inode;
    uid_t user;
    bool known;
} safe;

/* -- where it is --------------------------------------------------------------------------------------------------------- */

static bool is_directory(const char *path)
{
    struct stat found;
    return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

/* The path by this process's environment: 0, or a negative errno. */
static int choose(char path[PATH_MAX])
{
    const char *chosen = getenv("MACHRV_BOOTSTRAP_DIR"), *runtime = getenv("XDG_RUNTIME_DIR");
    size_t base = 0;
    int length;
    if (chosen && *chosen) {
        if (*chosen != '/') { /* a name outlives a change of the working directory */
            if (!getcwd(path, PATH_MAX))
                return -errno;
            base = strlen(path);
        }
        length = snprintf(path + base, PATH_MAX - base, "%s%s", *chosen == '/' ? "" : "/", chosen);
    } else if (runtime && *runtime == '/' && is_directory(runtime)) {
        length = snprintf(path, PATH_MAX, "%s%smachrv", runtime, runtime[strlen(runtime) - 1] == '/' ? "" : "/");
    } else {
        length = snprintf(path, PATH_MAX, "/tmp/machrv-%u", (unsigned)getuid());
    }
    if (length < 0 || (size_t)length >= PATH_MAX - base)
        return -ENAMETOOLONG;
    /* With a slash behind it, a link would be followed. */
    for (size_t end = base + (size_t)length; end > 1 && path[end - 1] == '/'; end--)
        path[end - 1] = 0;
    return 0;
}

/* -- whether it is safe -------------------------------------------------------------------------------------------------- */

kern_return_t directory_error(int error)
{
    switch (error < 0 ? -error : error) {
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
    case ENOTDIR:
        return BOOTSTRAP_NOT_PRIVILEGED;
    default:
        return KERN_RESOURCE_SHORTAGE;
    }
}

/* Whether not all users have a number here. */
static bool in_user_namespace(void)
{
    char text[64];
    uint32_t inside, outside, size;
    ssize_t got;
    int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return false;
    text[got] = 0;
    return sscanf(text, "%" SCNu32 "%" SCNu32 "%" SCNu32, &inside, &outside, &size) != 3 || size != UINT32_MAX;
}

/* Whether nobody but this user and root can exchange what lies in a directory. A sticky one (/tmp) lets only owners do so. */
static bool is_safe_parent(const struct stat *found, uid_t user)
{
    if (found->st_mode & 022 && !(found->st_mode & S_ISVTX))
        return false;
    /* In a sandbox the system's own directories are nobody's that is known there. */
    return found->st_uid == 0 || found->st_uid == user || (found->st_uid == NOBODY && in_user_namespace());
}

/* Looks at the parents of an open directory, by descriptors, up to the root: 0, or a negative errno; -EPERM: not safe. */
static int look_at_parents(int directory, uid_t user)
{
    struct stat below = {0}, found = {0};
    int at = directory, error = fstat(directory, &below) ? -errno : 0;
    while (!error) {
        int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        error = up < 0 || fstat(up, &found) ? -errno : 0;
        if (at != directory)
            close(at);
        at = up;
        if (!error && found.st_ino == below.st_ino && found.st_dev == below.st_dev)
            break; /* what is above the root is the root */
        if (!error && !is_safe_parent(&found, user))
            error = -EPERM;
        below = found;
    }
    if (at >= 0 && at != directory)
        close(at);
    return error;
}

/* The same, once for each directory. */
static int check_parents(const struct directory *directory, uid_t user)
{
    bool known;
    int error;
    pthread_mutex_lock(&bootstrap_lock);
    known = safe.known && safe.device == directory->device && safe.inode == directory->inode && safe.user == user;
    pthread_mutex_unlock(&bootstrap_lock);
    if (known)
        return 0;
    error = look_at_parents(directory->fd, user);
    if (!error) {
        pthread_mutex_lock(&bootstrap_lock);
        safe.device = directory->device;
        safe.inode = directory->inode;
        safe.user = user;
        safe.known = true;
        pthread_mutex_unlock(&bootstrap_lock);
    }
    return error;
}

static int open_path(const char *path)
{
    int fd;
    do
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* Opens the path, and makes the directory if it is missing: a descriptor, or a negative errno; *verb is what failed. */
static int open_or_make(const char *path, const char **verb)
{
    int fd = open_path(path);
    *verb = "open";
    if (fd != -ENOENT)
        return fd;
    if (mkdir(path, 0700) && errno != EEXIST) { /* another process may have been first */
        *verb = "make";
        return -errno;
    }
    return open_path(path);
}

kern_return_t directory_open(struct directory *directory, char *problem, size_t room)
{
    const uid_t user = geteuid();
    const char *verb = "find the way to", *path = directory->path;
    struct stat found = {.st_mode = 0};
    int error;
    directory->path[0] = 0;
    directory->fd = -1;
    error = choose(directory->path);
    if (!error) {
        directory->fd = open_or_make(path, &verb);
        error = directory->fd < 0 ? directory->fd : fstat(directory->fd, &found) ? -errno : 0;
    }
    if (error == -ENOTDIR || error == -ELOOP ||
        (!error && (!S_ISDIR(found.st_mode) || found.st_uid != user || found.st_mode & 077)) ||
        (error == -EACCES && lstat(path, &found) == 0 && found.st_uid != user)) {
        snprintf(problem, room, "%s must be a directory of user %u with mode 0700; " ADVICE, path, (unsigned)user);
        error = -EPERM;
    } else if (error) {
        snprintf(problem, room, "cannot %s %s: %s; " ADVICE, verb, path, strerror(-error));
        if (error != -EMFILE && error != -ENFILE && error != -ENOMEM)
            error = -EPERM;
    } else {
        directory->device = found.st_dev;
        directory->inode = found.st_ino;
        error = check_parents(directory, user);
        if (error == -EPERM)
            snprintf(problem, room, "%s lies in a directory that others can write to, and could exchange it; " ADVICE, path);
        else if (error)
            snprintf(problem, room, "cannot look at the directories above %s: %s", path, strerror(-error));
    }
    if (!error)
        return KERN_SUCCESS;
    directory_close(directory);
    return directory_error(error);
}

void directory_close(struct directory *directory)
{
    if (directory->fd >= 0)
        close(directory->fd);
    directory->fd = -1;
}

bool directory_is_there(const struct directory *directory)
{
    struct stat found;
    return lstat(directory->path, &found) == 0 && found.st_ino == directory->inode && found.st_dev == directory->device;
}

/* -- its lock ------------------------------------------------------------------------------------------------------------ */

/* Whether a lock that was got is the one that others would ask for: what clears /tmp may have removed it. */
static bool is_current(const struct directory *directory, int lock)
{
    struct stat mine, found;
    return fstat(lock, &mine) == 0 && fstatat(directory->fd, LOCK, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
           mine.st_ino == found.st_ino && mine.st_dev == found.st_dev;
}

kern_return_t directory_lock(const struct directory *directory, int *lock)
{
    const int64_t deadline = now_monotonic() + LOCK_PATIENCE;
    const struct timespec step = {.tv_nsec = LOCK_STEP};
    for (;;) {
        int error, fd = openat(directory->fd, LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd < 0 && errno != EINTR)
            return directory_error(errno);
        if (fd < 0)
            continue;
        while ((error = flock(fd, LOCK_EX | LOCK_NB) ? errno : 0) == EWOULDBLOCK || error == EINTR) {
            if (now_monotonic() >= deadline)
                break;
            nanosleep(&step, NULL);
        }
        if (!error && is_current(directory, fd)) {
            *lock = fd;
            return KERN_SUCCESS;
        }
        close(fd);
        if (error == EWOULDBLOCK || error == EINTR || now_monotonic() >= deadline)
            return BOOTSTRAP_NO_MEMORY;
        if (error)
            return directory_error(error);
    }
}

/* -- for a person -------------------------------------------------------------------------------------------------------- */

int machrv_bootstrap_directory(char *path, int path_size, char *problem, int problem_size)
{
    struct directory directory;
    char text[PATH_MAX + 256] = "";
    directory_open(&directory, text, sizeof text);
    directory_close(&directory);
    if (path_size <= 0 || problem_size <= 0 || strlen(directory.path) >= (size_t)path_size ||
        strlen(text) >= (size_t)problem_size)
        return -ENAMETOOLONG;
    strcpy(path, directory.path);
    strcpy(problem, text);
    return 0;
}

int machrv_bootstrap_sweep(void)
{
    struct directory directory;
    int lock = -1, removed;
    kern_return_t result = directory_open(&directory, NULL, 0);
    if (result != KERN_SUCCESS)
        return result == BOOTSTRAP_NOT_PRIVILEGED ? -EACCES : -ENOMEM;
    result = directory_lock(&directory, &lock);
    removed = result == BOOTSTRAP_NO_MEMORY ? -ETIMEDOUT : result != KERN_SUCCESS ? -EACCES : entry_sweep(&directory, INT_MAX);
    if (lock >= 0)
        close(lock);
    directory_close(&directory);
    return removed;
}
