/*
 * The sockets that rights are made of: making one, and what it tells of its other end.
 *
 * What must never happen here: waiting, reading a message, or a descriptor that outlives a failed call.
 */

#include "native.h"

#include <sys/syscall.h>

#ifndef SYS_close_range
#define SYS_close_range 436 /* Linux 5.9; before, it fails */
#endif

#include <stdio.h>

int machrv_attest(int fd, int passpidfd)
{
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one))
        return -errno;
    if (passpidfd && !(machrv_missing & MACHRV_WITHOUT_PASSPIDFD) &&
        setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &one, sizeof one) && errno != ENOPROTOOPT && errno != EINVAL)
        return -errno;
    return 0;
}

int machrv_stamp(int fd)
{
    int one = 1;
    return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) ? -errno : 0;
}

int machrv_pair(int *ends, const char *address, int length, int passpidfd, int stamps)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int error;
    if (length > (int)sizeof name.sun_path)
        return -EINVAL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    error = machrv_attest(ends[0], passpidfd);
    if (!error && stamps)
        error = machrv_stamp(ends[0]);
    memcpy(name.sun_path, address, (size_t)length);
    if (!error && bind(ends[0], (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length)))
        error = -errno;
    if (error) {
        close(ends[0]);
        close(ends[1]);
    }
    return error;
}

int machrv_bundle(int *ends)
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) ? -errno : 0;
}

int machrv_describe(int fd, machrv_peer *into)
{
    struct sockaddr_un name;
    struct pollfd state = {.fd = fd};
    socklen_t length = sizeof into->type;
    into->family = into->length = into->hangup = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &into->type, &length))
        return -errno;
    length = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &length)) {
        if (errno != ENOTCONN)
            return -errno;
        into->hangup = 1;
        return 0;
    }
    into->family = name.sun_family;
    if (length > offsetof(struct sockaddr_un, sun_path)) {
        into->length = (int32_t)(length - offsetof(struct sockaddr_un, sun_path));
        memcpy(into->address, name.sun_path, (size_t)into->length);
    }
    if (poll(&state, 1, 0) > 0)
        into->hangup = (state.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
    return 0;
}

/* The length of an address, 0 if it is none. */
static int read_address(const struct sockaddr_un *name, socklen_t length, char *into)
{
    if (name->sun_family != AF_UNIX || length <= offsetof(struct sockaddr_un, sun_path))
        return 0;
    length -= offsetof(struct sockaddr_un, sun_path);
    memcpy(into, name->sun_path, length);
    return (int)length;
}

int machrv_own_address(int fd, char *into)
{
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    int error = getsockname(fd, (struct sockaddr *)&name, &length);
    return error ? -errno : read_address(&name, length, into);
}

int machrv_peer_address(int fd, char *into)
{
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    int error = getpeername(fd, (struct sockaddr *)&name, &length);
    return error ? -errno : read_address(&name, length, into);
}

int machrv_made_by(int fd, machrv_creator *into)
{
    struct ucred who;
    socklen_t length = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length))
        return -errno;
    into->pid = who.pid;
    into->uid = who.uid;
    into->gid = who.gid;
    return 0;
}

uint64_t machrv_netns(int fd)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    if ((machrv_missing & MACHRV_WITHOUT_NETNS_COOKIE) || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length))
        return 0;
    return cookie;
}

int machrv_hangups(const int *fds, int n, char *into)
{
    struct pollfd some[64];
    for (int start = 0; start < n; start += 64) {
        int count = n - start < 64 ? n - start : 64;
        for (int i = 0; i < count; i++)
            some[i] = (struct pollfd){.fd = fds[start + i]};
        while (poll(some, (nfds_t)count, 0) < 0)
            if (errno != EINTR && errno != EAGAIN)
                return -errno;
        for (int i = 0; i < count; i++)
            into[start + i] = (some[i].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
    }
    return 0;
}

int machrv_dup(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -errno : copy;
}

int machrv_close(int fd) { return close(fd) ? -errno : 0; }

int machrv_shut(int fd) { return shutdown(fd, SHUT_RD) ? -errno : 0; }

void machrv_close_all(const int *fds, int n)
{
    for (int i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && fds[next] == fds[next - 1] + 1;)
            next++;
        /* What one message has brought is mostly a range, which one call closes. */
        if (next - i < 3 || syscall(SYS_close_range, fds[i], fds[next - 1], 0))
            for (int at = i; at < next; at++)
                close(fds[at]);
    }
}

int machrv_reap(int *fds, int n)
{
    char gone[64];
    int left = 0;
    for (int start = 0; start < n; start += 64) {
        int count = n - start < 64 ? n - start : 64, error = machrv_spent(fds + start, count, gone);
        for (int i = 0; i < count; i++)
            if (!error && gone[i])
                close(fds[start + i]);
            else
                fds[left++] = fds[start + i];
    }
    return left;
}

int machrv_spent(const int *fds, int n, char *into)
{
    int error = machrv_hangups(fds, n, into);
    for (int i = 0; i < n && !error; i++)
        if (into[i])
            into[i] = machrv_waiting(fds[i]) == 0;
    return error;
}
