/*
 * System-call sequences of the Linux port space; see include/machrv/linux.h for what each function promises.
 *
 * What belongs here: calls that must look at control messages, or that come several at a time on the hot path.
 * What must never happen here: waiting (but for machrv_connect), a decision about whom to believe, or a descriptor
 * that outlives a failed call.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "machrv/linux.h"

/* Values of <asm-generic/socket.h>, <linux/socket.h> and <linux/pidfd.h> that older C libraries do not name. */
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76 /* Linux 6.5 */
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif
#ifndef SCM_CREDENTIALS
#define SCM_CREDENTIALS 2
#endif
#define PIDFS_MAGIC 0x50494446
#define PORT_SEND 17 /* MACH_MSG_TYPE_PORT_SEND */
#define WIRE_MAGIC 0x6d727678u /* the form of packets that this version writes: 'mrvx' */

static int without;

void machrv_without(int features) { without = features; }

struct pidfd_info_64 { /* struct pidfd_info as of Linux 6.13, include/uapi/linux/pidfd.h */
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid, spare;
};
#define PIDFD_GET_INFO_64 _IOWR(0xFF, 11, struct pidfd_info_64)

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int fail_closing(int fd)
{
    int error = errno;
    close(fd);
    return -error;
}

int machrv_attest(int fd, int passpidfd)
{
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one))
        return -errno;
    if (passpidfd && !(without & MACHRV_WITHOUT_PASSPIDFD) &&
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

static int send_vector(int fd, struct iovec *vector, int count, const int *fds, int nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MACHRV_MAX_FDS * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)count};
    if (nfds > MACHRV_MAX_FDS)
        return -EINVAL;
    if (nfds > 0) {
        struct cmsghdr *rights;
        memset(control.bytes + CMSG_SPACE((size_t)nfds * sizeof(int)) - sizeof(size_t), 0, sizeof(size_t)); /* padding */
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, (size_t)nfds * sizeof(int));
    }
    for (;;) {
        if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

int machrv_send(int fd, const char *message, size_t size, uint32_t bits, int id, int flags, int space, uint32_t reply,
                const char *tail, size_t tail_size, const int *fds, int nfds)
{
    machrv_wire_header header = {
        .bits = bits, .size = (uint32_t)size, .flags = (uint16_t)flags, .space = (uint16_t)space, .reply = reply,
        .id = id, .magic = WIRE_MAGIC, .sent = now()};
    size_t body = size - 24;
    int memory = -1, error;
    int all[MACHRV_MAX_FDS];
    struct iovec vector[3] = {
        {&header, sizeof header}, {(void *)(uintptr_t)(message + 24), body}, {(void *)(uintptr_t)tail, tail_size}};

    if (size < 24)
        return -EINVAL;
    if (body + tail_size <= MACHRV_MAX_INLINE)
        return send_vector(fd, vector, 3, fds, nfds);

    /* Too large for a socket buffer: body and tail go into a sealed memfd, which travels as the last descriptor. */
    if (nfds >= MACHRV_MAX_FDS)
        return -EMSGSIZE;
    memory = memfd_create("machrv-message", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0)
        return -errno;
    for (int part = 1; part < 3; part++) {
        const char *from = vector[part].iov_base;
        size_t left = vector[part].iov_len;
        while (left > 0) {
            ssize_t wrote = write(memory, from, left);
            if (wrote < 0 && errno == EINTR)
                continue;
            if (wrote <= 0)
                return fail_closing(memory);
            from += wrote;
            left -= (size_t)wrote;
        }
    }
    if (fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
        return fail_closing(memory);
    header.flags |= MACHRV_WIRE_LARGE;
    if (nfds > 0)
        memcpy(all, fds, (size_t)nfds * sizeof(int));
    all[nfds] = memory;
    error = send_vector(fd, vector, 1, all, nfds + 1);
    close(memory);
    return error;
}

int machrv_send_plain(int fd, const char *message, size_t size, int space)
{
    struct {
        machrv_wire_header header;
        char body[2048];
    } packet;
    int32_t id;
    memcpy(&id, message + 20, sizeof id);
    if (size < 24 || size - 24 > sizeof packet.body)
        return machrv_send(fd, message, size, PORT_SEND, id, 0, space, 0, NULL, 0, NULL, 0);
    /* A copy of a few bytes costs less than a second vector. */
    packet.header = (machrv_wire_header){
        .bits = PORT_SEND, .size = (uint32_t)size, .space = (uint16_t)space, .id = id, .magic = WIRE_MAGIC, .sent = now()};
    memcpy(packet.body, message + 24, size - 24);
    for (;;) {
        if (send(fd, &packet, sizeof packet.header + size - 24, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

int machrv_send_raw(int fd, const char *bytes, size_t size, const int *fds, int nfds)
{
    struct iovec vector = {(void *)(uintptr_t)bytes, size};
    return send_vector(fd, &vector, 1, fds, nfds);
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
    if (pidfd >= 0 && !(without & MACHRV_WITHOUT_PIDFS)) {
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

/*
 * A message that is received while no descriptor is free loses its rights, or its sender's identity. So once descriptors
 * are scarce, there is a look before each message; the message waits where there is no room for it.
 */
static int scarce;

static void near_limit(int fd)
{
    struct rlimit limit;
    if (!scarce && fd > 400 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd + 300 > limit.rlim_cur)
        scarce = 1;
}

static int has_room(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return errno != EMFILE && errno != ENFILE;
    scarce = 0;
    near_limit(copy);
    close(copy);
    return 1;
}

static void read_pidfd(int fd, machrv_received *into)
{
    struct pidfd_info_64 info;
    into->pidfd = 1;
    near_limit(fd);
    into->process = machrv_process(into->pid, fd);
    memset(&info, 0, sizeof info);
    info.mask = 3; /* PIDFD_INFO_PID | PIDFD_INFO_CREDS */
    if (!(without & MACHRV_WITHOUT_PIDFD_INFO) && ioctl(fd, PIDFD_GET_INFO_64, &info) == 0 && (info.mask & 2)) {
        into->euid = (int32_t)info.euid;
        into->egid = (int32_t)info.egid;
        into->pidfd = 2;
    }
    close(fd);
}

static int receive_vector(int fd, struct iovec *vector, int parts, machrv_received *into)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int)) +
                   CMSG_SPACE(MACHRV_MAX_FDS * sizeof(int)) + 256];
    } control;
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)parts, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got;

    if (scarce && !has_room(fd))
        return -EMFILE;
    into->stamp = 0;
    into->pid = 0;
    into->process = 0;
    into->pidfd = 0;
    into->euid = into->egid = -1;
    into->nfds = 0;
    do
        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    into->length = got;
    if (message.msg_flags & MSG_CTRUNC)
        scarce = 1;
    into->cut = message.msg_flags & MSG_TRUNC ? 1 : message.msg_flags & MSG_CTRUNC ? 2 : 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_RIGHTS) {
            int count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            for (int i = 0; i < count; i++) {
                int one;
                memcpy(&one, CMSG_DATA(c) + (size_t)i * sizeof(int), sizeof one);
                near_limit(one);
                if (into->nfds < MACHRV_MAX_FDS)
                    into->fds[into->nfds++] = one;
                else
                    close(one);
            }
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof who);
            into->pid = who.pid;
            into->uid = who.uid;
            into->gid = who.gid;
        } else if (c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            into->stamp = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        } else if (c->cmsg_type == SCM_PIDFD) {
            int one;
            memcpy(&one, CMSG_DATA(c), sizeof one);
            if (one >= 0)
                read_pidfd(one, into);
            else if (!into->cut)
                into->cut = scarce = 2; /* there was no descriptor free for it */
        }
    }
    if (got == 0 && (into->pid || into->nfds)) { /* a packet of no bytes looks like end-of-file, but for what it brings */
        into->cut = 1;
        into->length = 1;
    }
    return 0;
}

int machrv_receive(int fd, machrv_received *into)
{
    struct iovec vector = {&into->header, sizeof into->header + MACHRV_MAX_INLINE};
    int error = receive_vector(fd, &vector, 1, into);
    if (!error && into->length > 0 && ((size_t)into->length < sizeof into->header || into->header.magic != WIRE_MAGIC))
        into->cut = 1;
    return error;
}

int machrv_receive_plain(int fd, machrv_received *into, const machrv_identity *own, uint32_t kind, uint32_t name,
                         uint32_t seqno, uint32_t trailer_size, uint64_t context)
{
    int error = machrv_receive(fd, into);
    uint32_t size = into->header.size, space = into->header.space;
    uint32_t header[6] = {kind << 8, size, 0, name, 0, (uint32_t)into->header.id};
    uint32_t trailer[17] = {0, trailer_size, seqno};

    if (error)
        return error;
    if (into->cut || into->length < (int64_t)sizeof into->header || into->nfds || into->header.flags ||
        into->header.reply || into->header.bits != kind || size < sizeof header || size & 3 ||
        (int64_t)size - (int64_t)sizeof header != into->length - (int64_t)sizeof into->header ||
        into->pid != own->pid || into->uid != own->uid || into->gid != own->gid || geteuid() != own->token[1])
        return 0;
    memcpy(into->body - sizeof header, header, sizeof header);
    memcpy(trailer + 3, own->token + 1, 8);
    memcpy(trailer + 5, own->token, sizeof own->token);
    trailer[11] = space;
    memcpy(trailer + 13, &context, sizeof context);
    memcpy(into->body - sizeof header + size, trailer, trailer_size);
    return (int)(size + trailer_size);
}

int machrv_receive_raw(int fd, machrv_received *into)
{
    struct iovec vector = {into->body, sizeof into->body};
    return receive_vector(fd, &vector, 1, into);
}

static void close_rights(struct cmsghdr *c)
{
    int count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < count; i++) {
        int one;
        memcpy(&one, CMSG_DATA(c) + (size_t)i * sizeof(int), sizeof one);
        close(one);
    }
}

int machrv_peek(int fd, machrv_head *into)
{
    /* Room for the time stamp alone: the kernel installs no descriptor for what does not fit. */
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
    } control;
    struct iovec vector = {&into->header, sizeof into->header};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got;

    into->stamp = 0;
    into->header.magic = 0;
    into->before = now();
    do
        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    into->length = got > 0 ? got : (message.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            into->stamp = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        } else if (c->cmsg_type == SCM_RIGHTS || c->cmsg_type == SCM_PIDFD) {
            close_rights(c); /* somebody else who holds this socket has switched the time stamps off */
        }
    }
    if ((size_t)into->length < sizeof into->header || into->header.magic != WIRE_MAGIC)
        into->header.size = 0;
    return 0;
}

int machrv_waiting(int fd)
{
    int bytes = 0; /* not by peeking, which would put the time of the look on a message that has no stamp yet */
    return ioctl(fd, FIONREAD, &bytes) ? -errno : bytes;
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

int machrv_own_address(int fd, char *into)
{
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &length))
        return -errno;
    if (name.sun_family != AF_UNIX || length <= offsetof(struct sockaddr_un, sun_path))
        return 0;
    length -= offsetof(struct sockaddr_un, sun_path);
    memcpy(into, name.sun_path, length);
    return (int)length;
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
    if ((without & MACHRV_WITHOUT_NETNS_COOKIE) || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length))
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

static int fill(struct sockaddr_un *name, const char *path)
{
    size_t length = strlen(path);
    memset(name, 0, sizeof *name);
    name->sun_family = AF_UNIX;
    if (length >= sizeof name->sun_path)
        return -ENAMETOOLONG;
    memcpy(name->sun_path, path, length);
    return 0;
}

int machrv_listen(const char *path, int passpidfd)
{
    struct sockaddr_un name;
    int error = fill(&name, path), fd;
    if (error)
        return error;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* Before listen(): accepted sockets inherit, and a message sent before accept() is attested too. */
    error = machrv_attest(fd, passpidfd);
    if (error) {
        close(fd);
        return error;
    }
    if (bind(fd, (struct sockaddr *)&name, sizeof name))
        return fail_closing(fd);
    if (listen(fd, 4096)) {
        error = -errno;
        close(fd);
        unlink(path);
        return error;
    }
    return fd;
}

int machrv_accept(int fd)
{
    int one;
    do
        one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    while (one < 0 && (errno == EINTR || errno == ECONNABORTED));
    return one < 0 ? -errno : one;
}

int machrv_connect(const char *path, int milliseconds)
{
    struct sockaddr_un name;
    int error = fill(&name, path), fd;
    if (error)
        return error;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (milliseconds ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        return -errno;
    if (milliseconds > 0) {
        struct timeval limit = {milliseconds / 1000, (milliseconds % 1000) * 1000};
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit))
            return fail_closing(fd);
    }
    if (connect(fd, (struct sockaddr *)&name, sizeof name))
        return fail_closing(fd);
    return fd;
}

int machrv_probe(const char *path)
{
    struct sockaddr_un name;
    int error = fill(&name, path), fd;
    if (error)
        return error;
    /* A datagram socket cannot connect to a seqpacket listener: the error tells whether one is there. */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    error = connect(fd, (struct sockaddr *)&name, sizeof name) ? -errno : 0;
    close(fd);
    return error;
}

int machrv_memory(uint64_t address, uint64_t size)
{
    int fd = memfd_create("machrv-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const char *from = (const char *)(uintptr_t)address;
    if (fd < 0)
        return -errno;
    while (size > 0) {
        /* write() reports memory that is not there as EFAULT, where a copy of our own would crash. */
        ssize_t wrote = write(fd, from, size > 0x7ffff000 ? 0x7ffff000 : (size_t)size);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return fail_closing(fd);
        from += wrote;
        size -= (uint64_t)wrote;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
        return fail_closing(fd);
    return fd;
}

int machrv_map(int fd, uint64_t size, uint64_t *address)
{
    struct stat file;
    void *where;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return -errno;
    if ((seals & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE))
        return -EPERM; /* whoever holds it could change it, or cut it short and crash its reader */
    if (fstat(fd, &file))
        return -errno;
    if (size == 0 || (uint64_t)file.st_size != size)
        return -EINVAL;
    where = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (where == MAP_FAILED)
        return -errno;
    *address = (uint64_t)(uintptr_t)where;
    return 0;
}

int machrv_allocate(uint64_t size, uint64_t *address)
{
    void *where = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (where == MAP_FAILED)
        return -errno;
    *address = (uint64_t)(uintptr_t)where;
    return 0;
}

int machrv_shut(int fd) { return shutdown(fd, SHUT_RD) ? -errno : 0; }

int machrv_unmap(uint64_t address, uint64_t size)
{
    return munmap((void *)(uintptr_t)address, (size_t)size) ? -errno : 0;
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
    has = !(without & MACHRV_WITHOUT_PASSPIDFD) && getsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &value, &length) == 0;
    close(fd);
    return has;
}
