/*
 * Which process is which, and what this kernel has.
 *
 * What must never happen here: a decision about whom to believe.
 */

#include "native.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#define PIDFS_MAGIC 0x50494446

int machrv_missing;

void machrv_without(int features) { machrv_missing = features; }

int64_t machrv_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int machrv_fail_closing(int fd)
{
    int error = errno;
    close(fd);
    return -error;
}

static uint64_t start_time(int pid)
{
    char path[32], text[1024], *at;
    unsigned long long ticks = 0;
    ssize_t got;
    int fd;
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
    for (int field = 3; at && field <= 22; field++)
        at = strchr(at + 1, ' ');
    return at && sscanf(at, " %llu", &ticks) == 1 ? ticks : 0;
}

static int pidfs; /* whether pidfds have inodes of their own: 0: not known yet, 1: yes, -1: no */

uint64_t machrv_process(int pid, int pidfd)
{
    struct statfs system;
    struct stat file;
    struct pollfd exit = {.fd = pidfd, .events = POLLIN};
    uint64_t start;
    if (pidfd >= 0 && !(machrv_missing & MACHRV_WITHOUT_PIDFS)) {
        if (pidfs == 0 && fstatfs(pidfd, &system) == 0)
            pidfs = system.f_type == PIDFS_MAGIC ? 1 : -1;
        if (pidfs > 0)
            return fstat(pidfd, &file) ? 0 : file.st_ino;
    }
    start = start_time(pid);
    if (pidfd >= 0 && poll(&exit, 1, 0) != 0)
        return 0; /* it has exited: what /proc said may be of another process already */
    return start;
}

int machrv_pidfd_open(int pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int machrv_has_passpidfd(void)
{
    int value, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), has;
    socklen_t length = sizeof value;
    if (fd < 0)
        return -errno;
    has = !(machrv_missing & MACHRV_WITHOUT_PASSPIDFD) && getsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &value, &length) == 0;
    close(fd);
    return has;
}
