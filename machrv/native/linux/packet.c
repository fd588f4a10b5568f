/*
 * Packets out of and into sockets, with their control messages.
 *
 * What must never happen here: waiting, a decision about whom to believe, or a descriptor without an owner.
 */

#include "packet.h"

#include "closing.h"

#include <linux/sockios.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* What is no longer than this is not worth asking how full the socket is. */
#define SHORT_BODY 512
/* A longer body goes inline as long as no more than this waits in the socket (its buffer is 208 KiB by default): so there is
   always room for some eighty packets more, whose bodies are elsewhere. */
#define INLINE_WAITING 98304
/* What MACH_PORT_QLIMIT_MAX packets need besides: at most 1,280 bytes each with the system's bookkeeping (Linux 6.18: 768, and 1,280
   with a short body). The system grants what net.core.wmem_max says twice: 8 MiB since Linux 6.17, 416 KiB before. */
#define WIDE_BUFFER (INLINE_WAITING + MACH_PORT_QLIMIT_MAX * 1280)

/* How many descriptors the control messages have room for that every C library passes on. */
#define SURE_FDS ((1024 - CMSG_SPACE(0)) / sizeof(int))

int machrv_max_fds(void)
{
    static atomic_int most;
    char control[CMSG_SPACE(MACHRV_MAX_FDS * sizeof(int))] = {0};
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
    if (!HAVE(LARGE_CONTROL))
        return (int)SURE_FDS;
    if (most == 0) /* musl refuses before it asks the kernel, who says EBADF */
        most = sendmsg(-1, &message, MSG_NOSIGNAL) < 0 && errno == ENOMEM ? (int)SURE_FDS : MACHRV_MAX_FDS;
    return most;
}

bool packet_carries(size_t nfds) { return nfds <= SURE_FDS || (nfds <= MACHRV_MAX_FDS && nfds <= (size_t)machrv_max_fds()); }

static int send_vector(int fd, const struct iovec *vector, int count, const int *fds, int nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MACHRV_MAX_FDS * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)vector,
                             .msg_iovlen = (__typeof__(((struct msghdr *)0)->msg_iovlen))count};
    if (!packet_carries((size_t)nfds))
        return -EMSGSIZE;
    if (nfds > 0) {
        const size_t size = (size_t)nfds * sizeof(int);
        memset(control.bytes + CMSG_SPACE(size) - sizeof(size_t), 0, sizeof(size_t)); /* padding */
        message.msg_control = control.bytes;
        message.msg_controllen = (__typeof__(message.msg_controllen))CMSG_SPACE(size); /* musl has other types */
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = (__typeof__(control.align.cmsg_len))CMSG_LEN(size);
        memcpy(CMSG_DATA(&control.align), fds, size);
    }
    for (;;) {
        if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

int packet_send_raw(int fd, const void *bytes, size_t size, const int *fds, int nfds)
{
    struct iovec vector = {(void *)(uintptr_t)bytes, size};
    return send_vector(fd, &vector, 1, fds, nfds);
}

/* Puts a body into a sealed memfd: a descriptor, or a negative errno. */
static int body_memory(const struct iovec *parts, int count)
{
    int memory = memory_file("machrv-message"), error;
    if (memory < 0)
        return memory;
    for (int part = 0; part < count; part++) {
        const char *from = parts[part].iov_base;
        for (size_t left = parts[part].iov_len; left > 0;) {
            ssize_t wrote = write(memory, from, left);
            if (wrote < 0 && errno == EINTR)
                continue;
            if (wrote <= 0)
                goto failed;
            from += wrote;
            left -= (size_t)wrote;
        }
    }
    if (fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        return memory;
failed:
    error = errno ? -errno : -EIO;
    close(memory);
    return error;
}

static bool fits_inline(int fd, size_t size)
{
    int waiting = 0;
    if (size > MAX_INLINE)
        return false;
    return size <= SHORT_BODY || ioctl(fd, SIOCOUTQ, &waiting) || (size_t)waiting + size <= INLINE_WAITING;
}

int packet_send(int fd, struct wire_header *header, const struct iovec *parts, int count, int *fds, int nfds, int *memory)
{
    struct iovec vector[4] = {{header, sizeof *header}};
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += parts[i].iov_len;
        vector[i + 1] = parts[i];
    }
    header->magic = WIRE_MAGIC;
    if (*memory < 0 && fits_inline(fd, size))
        return send_vector(fd, vector, count + 1, fds, nfds);
    if (!packet_carries((size_t)nfds + 1))
        return size > MAX_INLINE ? -EMSGSIZE : send_vector(fd, vector, count + 1, fds, nfds);
    if (*memory < 0 && (*memory = body_memory(parts, count)) < 0)
        return *memory;
    header->flags |= WIRE_LARGE;
    fds[nfds] = *memory;
    return send_vector(fd, vector, 1, fds, nfds + 1);
}

bool packet_widen(int fd)
{
    struct pollfd state = {.fd = fd, .events = POLLRDHUP}; /* ipc_mqueue_tell_qlimit() */
    int before = 0, after = 0, wanted = WIDE_BUFFER / 2;   /* which the system doubles */
    socklen_t size = sizeof before;
    if (poll_surely(&state, 1) <= 0 || !(state.revents & POLLRDHUP) || state.revents & (POLLHUP | POLLERR) ||
        getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &before, &size) || before >= WIDE_BUFFER ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted) || getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &after, &size))
        return false;
    return after > before;
}

/* -- descriptors run short ---------------------------------------------------------------------------------------------- */

/*
 * A message that is received while no descriptor is free loses its rights, or its sender's identity. So once descriptors
 * are scarce, there is a look before each message; the message waits where there is no room for it.
 */
static atomic_bool scarce;

void packet_note_fd(int fd)
{
    struct rlimit limit;
    if (fd > 400 && !scarce && getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd + 300 > limit.rlim_cur)
        scarce = true;
}

bool packet_has_room(void)
{
    int copy;
    if (!scarce)
        return true;
    copy = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (copy < 0 && errno == EBADF)
        copy = memory_file("machrv");
    if (copy < 0)
        return errno != EMFILE && errno != ENFILE;
    scarce = false;
    packet_note_fd(copy);
    close(copy);
    return true;
}

/* -- receiving ------------------------------------------------------------------------------------------------------------ */

int packet_attest(int fd)
{
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one))
        return -errno;
    if (HAVE(PASSPIDFD) && setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &one, sizeof one) && errno != ENOPROTOOPT &&
        errno != EINVAL)
        return -errno;
    return 0;
}

int packet_renew(int fd)
{
    int zero = 0, none = -1, error = packet_attest(fd);
    if (error || (error = packet_stamp(fd)))
        return error;
    /* These a kernel may not know. */
    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof none);
    setsockopt(fd, SOL_SOCKET, SO_PASSSEC, &zero, sizeof zero);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &zero, sizeof zero);
    return 0;
}

int packet_stamp(int fd)
{
    int one = 1;
    return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) ? -errno : 0;
}

void attested_process_forget(struct attested_process *known)
{
    if (known->pid && known->pidfd >= 0)
        close(known->pidfd);
    *known = (struct attested_process){.pidfd = -1};
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
    for (int look = 0;; look++) {
        ssize_t got = recvmsg(fd, message, flags | MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got != 0 || message->msg_controllen || look || message->msg_flags & MSG_CTRUNC)
            return got;
        message->msg_controllen = (__typeof__(message->msg_controllen))room;
    }
}

/* CMSG_NXTHDR, whose macro compares what it should not in musl. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
static struct cmsghdr *next_part(struct msghdr *message, struct cmsghdr *c) { return CMSG_NXTHDR(message, c); }
#pragma GCC diagnostic pop

/* What the system attached in place of a pidfd: the descriptor, or why there is none. */
static void take_pidfd(int fd, struct packet *into, struct attested_process *known, bool often)
{
    if (fd == -EINVAL || fd == -ESRCH) {
        /* Linux 6.12: the sender has been waited for (net/core/scm.c, scm_pidfd_recv; fs/pidfs.c since 6.17 has one). */
        into->sender.reaped = true;
        return;
    }
    if (fd < 0) { /* there was no descriptor free for it */
        into->state = into->state ? into->state : PACKET_LOST;
        scarce = true;
        return;
    }
    packet_note_fd(fd);
    into->sender.pinned = true;
    into->sender.process = machrv_process(into->sender.pid, fd);
    into->sender.ids = pidfd_ids(fd, &into->sender.euid, &into->sender.egid);
    if (often && known && into->sender.ids && known->pidfd < 0 && !scarce) {
        *known = (struct attested_process){into->sender.pid, fd, into->sender.process, into->sender.euid, into->sender.egid};
        return;
    }
    close(fd);
}

static void take_rights(const struct cmsghdr *c, struct packet *into)
{
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int one;
        memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof one);
        packet_note_fd(one);
        if (into->nfds < MACHRV_MAX_FDS)
            into->fds[into->nfds++] = one;
        else
            close_later(one);
    }
}

static int64_t read_stamp(const struct cmsghdr *c)
{
    struct timespec t;
    memcpy(&t, CMSG_DATA(c), sizeof t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int receive_vector(int fd, struct iovec *vector, struct packet *into, struct attested_process *known, bool often)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int)) +
                   CMSG_SPACE(MACHRV_MAX_FDS * sizeof(int)) + 256];
    } control;
    struct msghdr message = {
        .msg_iov = vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    bool pidfd = false;
    ssize_t got;

    if (!packet_has_room())
        return -EMFILE;
    into->stamp = 0;
    into->sender = (struct sender){0};
    into->nfds = 0;
    got = receive_surely(fd, &message, MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -errno;
    into->length = got;
    into->state = message.msg_flags & MSG_TRUNC ? PACKET_ODD : message.msg_flags & MSG_CTRUNC ? PACKET_LOST : PACKET_WHOLE;
    if (message.msg_flags & MSG_CTRUNC)
        scarce = true;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = next_part(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_RIGHTS) {
            take_rights(c, into);
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof who);
            into->sender.pid = who.pid;
            into->sender.uid = who.uid;
            into->sender.gid = who.gid;
        } else if (c->cmsg_type == SCM_TIMESTAMPNS) {
            into->stamp = read_stamp(c);
        } else if (c->cmsg_type == SCM_PIDFD) {
            int one;
            memcpy(&one, CMSG_DATA(c), sizeof one);
            if (!HAVE(PIDFD_OF_GONE) && one >= 0 && syscall(SYS_pidfd_send_signal, one, 0, NULL, 0) && errno == ESRCH) {
                close(one); /* as Linux 6.12 does, for tests */
                one = -EINVAL;
            }
            take_pidfd(one, into, known, often);
            pidfd = true;
        }
    }
    if (!pidfd && known && known->pidfd >= 0 && into->sender.pid == known->pid) {
        into->sender.pinned = true;
        into->sender.process = known->process;
        into->sender.ids = true; /* as still_known() has just seen them */
        into->sender.euid = known->euid;
        into->sender.egid = known->egid;
    }
    if (got == 0 && (into->sender.pid || into->nfds)) { /* no bytes look like end-of-file, but for what they bring */
        into->state = PACKET_ODD;
        into->length = 1;
    }
    return 0;
}

/*
 * Whether the process that is known on a socket has sent what is at its head, or a negative errno. What waits there was sent
 * later than what it was known by; and while it runs, which is looked at after the head, nobody else has its pid.
 */
static int still_known(int fd, bool stamped, struct attested_process *known, const struct packet_head *head)
{
    struct packet_head peeked;
    int error = head ? 0 : packet_peek(fd, stamped, &peeked);
    head = head ? head : &peeked;
    return error ? error : head->pid == known->pid && pidfd_ids(known->pidfd, &known->euid, &known->egid);
}

int packet_receive(int fd, struct packet *into, bool stamped, struct attested_process *known, bool often,
                   const struct packet_head *head)
{
    struct iovec vector = {&into->header, sizeof into->header + MAX_INLINE};
    int off = 0, on = 1, error;
    bool was = known && known->pidfd >= 0;
    if (was) {
        int still = still_known(fd, stamped, known, head);
        if (still == -EAGAIN)
            return still; /* nothing waits, and who sends is known as before */
        if (still <= 0) {
            setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on);
            attested_process_forget(known);
            was = false;
        }
    }
    error = receive_vector(fd, &vector, into, known, often);
    if (!error && into->length > 0 && ((size_t)into->length < sizeof into->header || into->header.magic != WIRE_MAGIC))
        into->state = PACKET_ODD;
    /* A pidfd for each message is dear (it is as much as the rest): from here on it is known who sends. */
    if (known && known->pidfd >= 0 && !was && setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &off, sizeof off))
        attested_process_forget(known);
    return error;
}

int packet_receive_raw(int fd, struct packet *into)
{
    struct iovec vector = {into->body, sizeof into->body};
    return receive_vector(fd, &vector, into, NULL, false);
}

void packet_discard(struct packet *packet)
{
    close_all_later(packet->fds, packet->nfds);
    packet->nfds = 0;
}

int packet_peek(int fd, bool stamped, struct packet_head *into)
{
    /* Room for the stamp and the credentials alone: the kernel installs no descriptor for what does not fit. */
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    size_t room = (stamped ? CMSG_SPACE(sizeof(struct timespec)) : 0) + CMSG_SPACE(sizeof(struct ucred));
    struct iovec vector = {&into->header, sizeof into->header};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = (__typeof__(((struct msghdr *)0)->msg_controllen))room};
    ssize_t got;

    into->stamp = 0;
    into->pid = 0;
    into->uid = into->gid = UINT32_MAX;
    into->header.magic = 0;
    into->before = now_real();
    got = receive_surely(fd, &message, MSG_PEEK | MSG_TRUNC | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -errno;
    into->length = got > 0 ? got : (message.msg_flags & MSG_CTRUNC) != 0 || message.msg_controllen;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = next_part(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_TIMESTAMPNS) {
            into->stamp = read_stamp(c);
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof who);
            into->pid = who.pid;
            into->uid = who.uid;
            into->gid = who.gid;
        } else if (c->cmsg_type == SCM_RIGHTS || c->cmsg_type == SCM_PIDFD) {
            /* Somebody else who holds this socket has switched credentials or stamps off. */
            for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                int one;
                memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof one);
                close_later(one);
            }
        }
    }
    if ((size_t)got < sizeof into->header || into->header.magic != WIRE_MAGIC)
        memset(&into->header, 0, sizeof into->header);
    return 0;
}

int packet_waiting(int fd)
{
    int bytes = 0; /* not by peeking, which would put the time of the look on a message that has no stamp yet */
    return ioctl(fd, FIONREAD, &bytes) ? -errno : bytes;
}
