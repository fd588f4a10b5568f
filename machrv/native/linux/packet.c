/*
 * Packets out of and into sockets, with their control messages.
 *
 * What must never happen here: waiting, a decision about whom to believe, or a descriptor that outlives a failed call.
 */

#include "native.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

struct pidfd_info_64 { /* struct pidfd_info as of Linux 6.13, include/uapi/linux/pidfd.h */
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid, spare;
};
#define PIDFD_GET_INFO_64 _IOWR(0xFF, 11, struct pidfd_info_64)

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
        .id = id, .magic = WIRE_MAGIC, .sent = machrv_now()};
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
    memory = machrv_memfd("machrv-message");
    if (memory < 0)
        return memory;
    for (int part = 1; part < 3; part++) {
        const char *from = vector[part].iov_base;
        size_t left = vector[part].iov_len;
        while (left > 0) {
            ssize_t wrote = write(memory, from, left);
            if (wrote < 0 && errno == EINTR)
                continue;
            if (wrote <= 0)
                return machrv_fail_closing(memory);
            from += wrote;
            left -= (size_t)wrote;
        }
    }
    if (fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
        return machrv_fail_closing(memory);
    header.flags |= MACHRV_WIRE_LARGE;
    if (nfds > 0)
        memcpy(all, fds, (size_t)nfds * sizeof(int));
    all[nfds] = memory;
    error = send_vector(fd, vector, 1, all, nfds + 1);
    close(memory);
    return error;
}

int machrv_send_bare(int fd, int32_t id, const char *body, size_t size, int space)
{
    struct {
        machrv_wire_header header;
        char body[MACHRV_SMALL];
    } packet;
    /* A copy of a few bytes costs less than a second vector. */
    packet.header = (machrv_wire_header){.bits = PORT_SEND,
                                         .size = (uint32_t)size + 24,
                                         .space = (uint16_t)space,
                                         .id = id,
                                         .magic = WIRE_MAGIC,
                                         .sent = machrv_now()};
    memcpy(packet.body, body, size);
    for (;;) {
        if (send(fd, &packet, sizeof packet.header + size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

int machrv_send_plain(int fd, const char *message, size_t size, int space)
{
    int32_t id;
    memcpy(&id, message + 20, sizeof id);
    if (size < 24 || size - 24 > MACHRV_SMALL)
        return machrv_send(fd, message, size, PORT_SEND, id, 0, space, 0, NULL, 0, NULL, 0);
    return machrv_send_bare(fd, id, message + 24, size - 24, space);
}

int machrv_send_raw(int fd, const char *bytes, size_t size, const int *fds, int nfds)
{
    struct iovec vector = {(void *)(uintptr_t)bytes, size};
    return send_vector(fd, &vector, 1, fds, nfds);
}

/*
 * A message that is received while no descriptor is free loses its rights, or its sender's identity. So once descriptors
 * are scarce, there is a look before each message; the message waits where there is no room for it.
 */
int machrv_scarce;

static void near_limit(int fd)
{
    struct rlimit limit;
    if (!machrv_scarce && fd > 400 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd + 300 > limit.rlim_cur)
        machrv_scarce = 1;
}

static int has_room(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return errno != EMFILE && errno != ENFILE;
    machrv_scarce = 0;
    near_limit(copy);
    close(copy);
    return 1;
}

/* Whether somebody has waited for the process of a pidfd: only then is there nobody left to send a signal to. */
static int waited_for(int pidfd) { return syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) && errno == ESRCH; }

/*
 * What stands in place of a pidfd where the kernel has none for a sender that has exited and been waited for: -EINVAL (Linux 6.12,
 * kernel/fork.c, pidfd_prepare, by way of include/net/scm.h, scm_pidfd_recv), or -ESRCH; 6.17 and later attach one all the same.
 * That is no fault of the message. Any other error (-EMFILE, -ENFILE, -ENOMEM) is a lack of room at this end.
 */
static int says_gone(int pidfd) { return pidfd == -EINVAL || pidfd == -ESRCH; }

static void read_pidfd(int fd, machrv_received *into)
{
    struct pidfd_info_64 info;
    into->pidfd = 1;
    near_limit(fd);
    into->process = machrv_process(into->pid, fd);
    memset(&info, 0, sizeof info);
    info.mask = 3; /* PIDFD_INFO_PID | PIDFD_INFO_CREDS */
    if (!(machrv_missing & MACHRV_WITHOUT_PIDFD_INFO) && ioctl(fd, PIDFD_GET_INFO_64, &info) == 0 && (info.mask & 2)) {
        into->euid = (int32_t)info.euid;
        into->egid = (int32_t)info.egid;
        into->pidfd = 2;
    }
    close(fd);
}

/*
 * recvmsg(), for a socket that says end-of-file. The kernel looks for a packet first, and then whether the other end has shut
 * down (Linux 6.18, net/unix/af_unix.c, unix_dgram_recvmsg, and net/core/datagram.c): of a packet that is sent in between,
 * with a shutdown or a close behind it, it says end-of-file, though it is there. Nothing can come after a shutdown, so a
 * second look is the truth. (A packet of no bytes brings its sender's identity, at least.)
 */
static ssize_t receive_surely(int fd, struct msghdr *message, int flags)
{
    const size_t room = message->msg_controllen;
    ssize_t got = recvmsg(fd, message, flags);
    if (got == 0 && message->msg_controllen == 0) {
        message->msg_controllen = room;
        got = recvmsg(fd, message, flags);
    }
    return got;
}

static int receive_vector(int fd, struct iovec *vector, int parts, machrv_received *into, int wait)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int)) +
                   CMSG_SPACE(MACHRV_MAX_FDS * sizeof(int)) + 256];
    } control;
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)parts, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got;

    if (machrv_scarce && !has_room(fd))
        return -EMFILE;
    into->stamp = 0;
    into->pid = 0;
    into->process = 0;
    into->pidfd = 0;
    into->euid = into->egid = -1;
    into->nfds = 0;
    do
        got = receive_surely(fd, &message, (wait ? 0 : MSG_DONTWAIT) | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR && !wait);
    if (got < 0)
        return -errno;
    into->length = got;
    if (message.msg_flags & MSG_CTRUNC)
        machrv_scarce = 1;
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
            if (one >= 0 && (machrv_missing & MACHRV_WITHOUT_PIDFD_OF_GONE) && waited_for(one)) {
                close(one);
                one = -EINVAL;
            }
            if (one >= 0)
                read_pidfd(one, into);
            else if (says_gone(one))
                into->pidfd = -1;
            else if (!into->cut)
                into->cut = machrv_scarce = 2; /* there was no descriptor free for it */
        }
    }
    if (got == 0 && (into->pid || into->nfds)) { /* a packet of no bytes looks like end-of-file, but for what it brings */
        into->cut = 1;
        into->length = 1;
    }
    return 0;
}

int machrv_receive_packet(int fd, machrv_received *into, int wait)
{
    struct iovec vector = {&into->header, sizeof into->header + MACHRV_MAX_INLINE};
    int error = receive_vector(fd, &vector, 1, into, wait);
    if (!error && into->length > 0 && ((size_t)into->length < sizeof into->header || into->header.magic != WIRE_MAGIC))
        into->cut = 1;
    return error;
}

int machrv_receive(int fd, machrv_received *into) { return machrv_receive_packet(fd, into, 0); }

int machrv_receive_raw(int fd, machrv_received *into)
{
    struct iovec vector = {into->body, sizeof into->body};
    return receive_vector(fd, &vector, 1, into, 0);
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
    into->before = machrv_now();
    do
        got = receive_surely(fd, &message, MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC);
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
