/*
 * Every primitive of machrv/native/linux, called as the port space calls it and as it does not, so that sanitizers and
 * valgrind have something to watch. Exit status 0: each did what include/machrv/linux.h says. Run it with an empty folder.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machrv/linux.h"

#define MUST(what)                                                                                                     \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s does not hold (errno %d)\n", __FILE__, __LINE__, #what, errno);                 \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static machrv_received received;
static machrv_identity own;
static machrv_arrived rights[MACHRV_MAX_FDS];
static char message[200000];

static void close_received(void)
{
    for (int i = 0; i < received.nfds; i++)
        MUST(machrv_close(received.fds[i]) == 0);
}

/* How often a look at a socket is to say end-of-file as the kernel does where a packet comes between its own two looks. */
static int early;

/* What is to stand in place of the pidfd of a sender; 0: what the kernel says. */
static int in_place_of_pidfd;

ssize_t __real_recvmsg(int fd, struct msghdr *into, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *into, int flags)
{
    if (early <= 0) {
        ssize_t got = __real_recvmsg(fd, into, flags);
        for (struct cmsghdr *c = got < 0 ? NULL : CMSG_FIRSTHDR(into); c; c = CMSG_NXTHDR(into, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == 4 /* SCM_PIDFD */ && in_place_of_pidfd) {
                int pidfd;
                memcpy(&pidfd, CMSG_DATA(c), sizeof pidfd);
                close(pidfd);
                memcpy(CMSG_DATA(c), &in_place_of_pidfd, sizeof in_place_of_pidfd);
            }
        return got;
    }
    early--;
    into->msg_controllen = 0;
    into->msg_flags = 0;
    return 0;
}

/* A packet is not lost that was sent, with a shutdown behind it, while it was looked whether there is one. */
static void end_of_file_too_early(void)
{
    machrv_head head;
    char spent;
    int ends[2];
    MUST(machrv_bundle(ends) == 0);
    MUST(machrv_send(ends[1], message, 28, 17, 7, 0, 3, 0, "", 0, ends, 1) == 0 && shutdown(ends[1], SHUT_RDWR) == 0);
    early = 1;
    MUST(machrv_peek(ends[0], &head) == 0 && head.length > 0 && early == 0);
    MUST(machrv_spent(ends, 1, &spent) == 0 && !spent);
    early = 1;
    MUST(machrv_receive(ends[0], &received) == 0 && received.length > 0 && received.nfds == 1 && early == 0);
    close_received();
    MUST(machrv_spent(ends, 1, &spent) == 0 && spent);
    MUST(machrv_peek(ends[0], &head) == 0 && head.length == 0);
    MUST(machrv_receive(ends[0], &received) == 0 && received.length == 0 && received.nfds == 0);
    machrv_close_all(ends, 2);
}

static void messages(int passpidfd)
{
    char address[300] = {0};
    int length = 1 + snprintf(address + 1, 60, "machrv/sanitize/%d", getpid()); /* two of these may run at once */
    int ends[2], fds[MACHRV_MAX_FDS + 1];
    machrv_head head;
    char gone;
    MUST(machrv_pair(ends, address, 300, passpidfd, 1) == -EINVAL);
    MUST(machrv_pair(ends, address, length, passpidfd, 1) == 0);
    MUST(machrv_receive(ends[0], &received) == -EAGAIN && machrv_peek(ends[0], &head) == -EAGAIN);

    /* plain, and taken as plain */
    MUST(machrv_send_plain(ends[1], message, 24 + 100, 3) == 0 && machrv_waiting(ends[0]) > 0);
    MUST(machrv_peek(ends[0], &head) == 0 && head.header.size == 124 && head.stamp);
    MUST(machrv_receive_plain(ends[0], &received, rights, &own, 17, 0, 0x103, 0, 68, 7, 1 << 20) == 24 + 100 + 68);
    MUST(machrv_send_plain(ends[1], message, 24 + MACHRV_MAX_INLINE, 3) == 0);
    MUST(machrv_receive_plain(ends[0], &received, rights, &own, 17, 0, 0x103, 0, 68, 7, 1 << 20) == 24 + MACHRV_MAX_INLINE + 68);
    own.pid++;
    MUST(machrv_send_plain(ends[1], message, 24, 3) == 0);
    MUST(machrv_receive_plain(ends[0], &received, rights, &own, 17, 1, 0x103, 0, 8, 7, 1 << 20) == 0 && received.pid == getpid());
    own.pid--;

    /* with as many descriptors as there can be, and with one more */
    for (int i = 0; i < MACHRV_MAX_FDS + 1; i++)
        MUST((fds[i] = machrv_dup(0)) >= 0);
    MUST(machrv_send(ends[1], message, 24, 0, 1, 0, 0, 0, "tail", 4, fds, MACHRV_MAX_FDS + 1) < 0);
    MUST(machrv_send(ends[1], message, 124, 0, -1, 0, 0, 1, "tail", 4, fds, MACHRV_MAX_FDS) == 0);
    MUST(machrv_peek(ends[0], &head) == 0);
    MUST(machrv_receive(ends[0], &received) == 0 && received.nfds == MACHRV_MAX_FDS && !received.cut);
    MUST(received.length == MACHRV_WIRE_HEADER + 104 && received.header.id == -1);
    close_received();

    /* in a memfd; cut; too short; nothing but descriptors; the end */
    MUST(machrv_send(ends[1], message, sizeof message, 0, 1, 0, 0, 0, "tail", 4, fds, 2) == 0);
    MUST(machrv_receive(ends[0], &received) == 0 && received.nfds == 3 && received.header.flags & MACHRV_WIRE_LARGE);
    close_received();
    MUST(machrv_send(ends[1], message, sizeof message, 0, 1, 0, 0, 0, "", 0, fds, MACHRV_MAX_FDS) == -EMSGSIZE);
    MUST(machrv_send_raw(ends[1], message, MACHRV_MAX_INLINE + 1000, fds, 1) == 0);
    MUST(machrv_receive(ends[0], &received) == 0 && received.cut == 1);
    close_received();
    MUST(machrv_send_raw(ends[1], "x", 1, fds, 3) == 0 && machrv_receive(ends[0], &received) == 0 && received.cut == 1);
    close_received();
    MUST(machrv_send_raw(ends[1], "", 0, fds, 3) == 0 && machrv_receive(ends[0], &received) == 0 && received.length == 1);
    close_received();
    MUST(machrv_send_raw(ends[1], "bundle", 6, NULL, 0) == 0 && machrv_receive_raw(ends[0], &received) == 0);
    MUST(machrv_hangups(ends, 2, message) == 0 && machrv_hangups(ends, 1, &gone) == 0 && !gone);
    MUST(machrv_shut(ends[0]) == 0 && machrv_send_plain(ends[1], message, 24, 0) == -EPIPE);
    MUST(machrv_close(ends[1]) == 0 && machrv_hangups(ends, 1, &gone) == 0 && gone);
    MUST(machrv_receive(ends[0], &received) == 0 && received.length == 0);
    MUST(machrv_close(ends[0]) == 0 && machrv_close(ends[0]) == -EBADF && machrv_send_plain(ends[0], message, 24, 0) < 0);
    for (int i = 0; i < MACHRV_MAX_FDS + 1; i++)
        MUST(machrv_close(fds[i]) == 0);
}

static void again(void)
{
    static const char address[] = "\0machrv/again";
    machrv_gate gate = {.space = 3};
    machrv_port port = {.trusted = 1, .kind = 17, .name = 0x203, .context = 7};
    machrv_port other = {.name = 0x1203}; /* has the same place there */
    machrv_exchange what = {.own = &own, .into = &received, .rights = rights, .gate = &gate, .fd = -1};
    uint32_t bare[6] = {19, 24, 0x203, 0, 0, 5};
    int64_t option = 0x2 | 3 << 24;
    int ends[2];
    MUST(machrv_pair(ends, address, sizeof address - 1, 0, 0) == 0);
    port.fd = ends[0];
    port.loop = ends[1];
    MUST(machrv_send_again(&gate, (char *)bare, 24) == -EBUSY && machrv_send_bare_again(&gate, 0x203, 5, "", 0) == -EBUSY);
    MUST(machrv_receive_again(&what, 0x203) == -EBUSY);
    machrv_open_gate(&gate, &port, MACHRV_AGAIN_SEND);
    MUST(machrv_receive_again(&what, 0x203) == -EBUSY);
    MUST(machrv_receive_next(&what, &port, option, 1000) == -EAGAIN);
    machrv_open_gate(&gate, &port, MACHRV_AGAIN_RECEIVE);
    MUST(machrv_send_again(&gate, (char *)bare, 20) == -EINVAL && machrv_send_again(&gate, (char *)bare, 23) == -EINVAL);
    MUST(machrv_send_again(&gate, (char *)bare, 4096) == -EINVAL && machrv_send_bare_again(&gate, 0x203, 5, "a", 1) == -EINVAL);
    MUST(machrv_send_bare_again(&gate, 0x203, 5, message, MACHRV_SMALL + 4) == -EINVAL);
    MUST(machrv_send_again(&gate, (char *)bare, 24) == 0);
    MUST(machrv_send_bare_again(&gate, 0x203, 6, message, MACHRV_SMALL) == 0);
    MUST(machrv_receive_again(&what, 0x203) == 24 + 52);
    MUST(machrv_receive_again(&what, 0x203) == -EBUSY); /* the first is still being looked at */
    machrv_let_go(&what);
    MUST(machrv_receive_next(&what, &port, option, 1000) == 0 && received.header.id == 6); /* more than 1000 */
    MUST(machrv_send(ends[1], message, 28, 17 | 18 << 8, 7, 0, 3, 1, "", 0, ends, 1) == 0);
    MUST(machrv_receive_next(&what, &port, option, 1000) == 28 + 52 + 1 && received.nfds == 1);
    close_received();
    MUST(port.seqno == 2);
    bare[3] = 1;
    MUST(machrv_send_again(&gate, (char *)bare, 24) == -EINVAL);
    machrv_open_gate(&gate, &other, MACHRV_AGAIN_SEND);
    MUST(port.again == 0 && machrv_send_bare_again(&gate, 0x203, 5, "", 0) == -EBUSY);
    machrv_close_gate(&gate);
    MUST(other.again == 0 && machrv_send_bare_again(&gate, 0x1203, 5, "", 0) == -EBUSY);
    MUST(machrv_close(ends[0]) == 0 && machrv_close(ends[1]) == 0);
}

static void attestation(int passpidfd)
{
    int ends[2];
    MUST(machrv_bundle(ends) == 0 && machrv_send_raw(ends[1], "early", 5, NULL, 0) == 0);
    MUST(machrv_attest(ends[0], passpidfd) == 0 && machrv_stamp(ends[0]) == 0);
    MUST(machrv_receive_raw(ends[0], &received) == 0 && received.length == 5 && received.stamp);
    MUST(machrv_send_raw(ends[1], "late", 4, NULL, 0) == 0 && machrv_receive_raw(ends[0], &received) == 0);
    MUST(received.pid == getpid() && received.uid == getuid() && received.gid == getgid());
    MUST(machrv_close(ends[0]) == 0 && machrv_close(ends[1]) == 0);
    MUST(machrv_attest(ends[0], passpidfd) == -EBADF && machrv_stamp(ends[0]) == -EBADF);
}

/* A sender that is gone is not a lack of descriptors; nor is it this process, whatever its pid; nor known at an own end. */
static void pidfds_that_are_none(void)
{
    static const int gone[] = {-EINVAL, -ESRCH}, lost[] = {-EMFILE, -ENFILE, -ENOMEM};
    static const char address[] = "\0machrv/gone";
    uint32_t token[8];
    int ends[2];
    if (machrv_has_passpidfd() <= 0)
        return;
    MUST(machrv_pair(ends, address, sizeof address - 1, 1, 0) == 0);
    for (int i = 0; i < 2; i++) {
        in_place_of_pidfd = gone[i];
        MUST(machrv_send_plain(ends[1], message, 24, 3) == 0 && machrv_receive(ends[0], &received) == 0 && !received.cut);
        MUST(received.pid == getpid() && received.uid == getuid() && received.pidfd == -1 && received.process == 0);
        MUST(machrv_send_plain(ends[1], message, 24, 3) == 0);
        MUST(machrv_receive_plain(ends[0], &received, rights, &own, 17, 0, 0x103, 0, 52, 7, 1 << 20) == 24 + 52);
        memcpy(token, received.body + 20, sizeof token);
        MUST(token[0] == 0xFFFFFFFF && token[3] == getuid() && token[5] == (uint32_t)getpid() && token[7] == 0);
        MUST(machrv_send_plain(ends[1], message, 24, 3) == 0);
        MUST(machrv_receive_plain(ends[0], &received, rights, &own, 17, 1, 0x103, 0, 52, 7, 1 << 20) == 0);
    }
    for (int i = 0; i < 3; i++) {
        in_place_of_pidfd = lost[i];
        MUST(machrv_send_plain(ends[1], message, 24, 3) == 0 && machrv_receive(ends[0], &received) == 0);
        MUST(received.cut == 2 && received.pidfd == 0);
    }
    in_place_of_pidfd = 0;
    MUST(machrv_send_plain(ends[1], message, 24, 3) == 0 && machrv_receive(ends[0], &received) == 0 && !received.cut);
    MUST(received.pidfd > 0);
    machrv_close_all(ends, 2);
}

/* The same of a process that has been waited for, as the kernel says it, and as Linux 6.12 does. */
static void gone(void)
{
    static const char address[] = "\0machrv/gone";
    int ends[2], status, pidfd = machrv_pidfd_open(getpid());
    pid_t child;
    if (pidfd == -ENOSYS)
        return; /* valgrind knows neither this call nor pidfd_send_signal yet */
    MUST(machrv_close(pidfd) == 0);
    if (machrv_has_passpidfd() <= 0)
        return;
    for (int as_linux_6_12 = 0; as_linux_6_12 < 2; as_linux_6_12++) {
        machrv_without(as_linux_6_12 ? MACHRV_WITHOUT_PIDFD_OF_GONE : 0);
        MUST(machrv_pair(ends, address, sizeof address - 1, 1, 0) == 0 && (child = fork()) >= 0);
        if (child == 0)
            _exit(machrv_send_plain(ends[1], message, 24, 3) != 0);
        MUST(waitpid(child, &status, 0) == child && status == 0);
        MUST(machrv_receive(ends[0], &received) == 0 && !received.cut && received.pid == child);
        MUST(as_linux_6_12 ? received.pidfd == -1 && received.process == 0 : received.pidfd != 0);
        machrv_close_all(ends, 2);
    }
    machrv_without(0);
}

static void timers(void)
{
    uint64_t times = 0;
    int fd = machrv_timer();
    struct pollfd due = {fd, POLLIN, 0};
    MUST(fd >= 0 && machrv_timer_set(fd, 1) == 0 && poll(&due, 1, 10000) == 1);
    MUST(machrv_timer_set(fd, 1500) == 0 && poll(&due, 1, 0) == 0 && machrv_timer_set(fd, 0) == 0);
    MUST(machrv_timer_set(fd, -1) == -EINVAL && read(fd, &times, sizeof times) < 0);
    MUST(machrv_close(fd) == 0 && machrv_timer_set(fd, 1) == -EBADF);
}

static void names(const char *folder)
{
    char path[300], address[MACHRV_ADDRESS_MAX];
    machrv_peer peer;
    machrv_creator creator;
    int listener, connected, accepted;
    snprintf(path, sizeof path, "%s/%0200d", folder, 0);
    MUST(machrv_listen(path, 1) == -ENAMETOOLONG && machrv_connect(path, 0) == -ENAMETOOLONG);
    snprintf(path, sizeof path, "%s/socket", folder);
    MUST(machrv_connect(path, 0) == -ENOENT && machrv_probe(path) == -ENOENT);
    MUST((listener = machrv_listen(path, 1)) >= 0 && machrv_listen(path, 1) == -EADDRINUSE);
    MUST(machrv_probe(path) == -EPROTOTYPE && machrv_accept(listener) == -EAGAIN);
    MUST((connected = machrv_connect(path, 100)) >= 0 && (accepted = machrv_accept(listener)) >= 0);
    MUST(machrv_describe(connected, &peer) == 0 && peer.length > 0 && !peer.hangup && peer.type == SOCK_SEQPACKET);
    MUST(machrv_describe(accepted, &peer) == 0 && peer.length == 0 && machrv_describe(0, &peer) < 1);
    MUST(machrv_own_address(accepted, address) > 0 && machrv_own_address(connected, address) == 0);
    MUST(machrv_peer_address(connected, address) > 0 && machrv_peer_address(accepted, address) == 0);
    MUST(machrv_peer_address(0, address) < 0);
    MUST(machrv_made_by(connected, &creator) == 0 && creator.pid == getpid());
    MUST(machrv_netns(connected) == machrv_netns(accepted));
    MUST(machrv_close(connected) == 0 && machrv_describe(accepted, &peer) == 0 && peer.hangup);
    MUST(machrv_close(accepted) == 0 && machrv_close(listener) == 0 && machrv_probe(path) == -ECONNREFUSED);
    unlink(path);
}

static machrv_port served;
static machrv_exchange exchange = {.own = &own, .into = &received, .rights = rights};

/* Two rights made, sent as an answer over `to`, which is closed then, and laid out from `from`. */
static void answered(int to, int from)
{
    static const char ids[65] = "0123456789abcdef0123456789abcdef" "fedcba9876543210fedcba9876543210";
    static const uint32_t keys[2] = {1, 0xFFFFFFFF};
    static char data[4096];
    int receiving[2], others[2], nobody[2] = {-1, -1};
    MUST(machrv_answer(&exchange, to, 0, 0, keys, ids, "sanitize", 7, NULL, NULL, 0, receiving) == -EINVAL);
    MUST(machrv_answer(&exchange, to, 0, MACHRV_MAX_FDS + 1, keys, ids, "sanitize", 7, NULL, NULL, 0, receiving) == -EINVAL);
    MUST(machrv_answer(&exchange, to, 0, 2, keys, ids, "sanitize", 7, NULL, data, sizeof data, receiving) == -EINVAL);
    MUST(machrv_answer(&exchange, -1, 0, 2, keys, ids, "sanitize", 7, NULL, data, 3, receiving) == -EBADF);
    others[0] = others[1] = to; /* no epoll */
    MUST(machrv_answer(&exchange, to, 0, 2, keys, ids, "sanitize", 7, others, NULL, 0, receiving) == -EINVAL);
    MUST(exchange.nspent == 0);
    MUST(machrv_answer(&exchange, to, 0, 2, keys, ids, "sanitize", 7, nobody, data, 3, receiving) == 0);
    MUST(exchange.nspent == 3);
    machrv_settle(&exchange);
    MUST(exchange.nspent == 0);
    MUST(machrv_answer(&exchange, from, 0, 2, keys, ids, "sanitize", 7, NULL, NULL, 0, others) == -EADDRINUSE);
    int got = machrv_receive_plain(from, &received, rights, &own, 18, 0, 0, 0, 52, 0, 1 << 20);
    if (got == 0) { /* nobody attested it: only Python could tell */
        MUST(received.nfds == 2);
    } else {
        MUST(got == 24 + 4 + 2 * 16 + 8 + 4 + 52 && received.nfds == 2 && rights[0].named && rights[1].named);
        MUST(memcmp(rights[1].id, ids + 32, 32) == 0 && rights[0].references == 1);
    }
    char spent[2];
    MUST(machrv_spent(receiving, 2, spent) == 0 && !spent[0] && !spent[1]);
    char id[32];
    MUST(machrv_port_id(received.fds[1], id) == 1 && memcmp(id, ids + 32, 32) == 0 && machrv_port_id(from, id) == 0);
    MUST(machrv_send_raw(received.fds[0], "last", 4, NULL, 0) == 0);
    close_received();
    MUST(machrv_spent(receiving, 2, spent) == 0 && !spent[0] && spent[1]);
    MUST(machrv_reap(receiving, 2) == 1 && machrv_waiting(receiving[0]) > 0);
    machrv_close_all(receiving, 1);
}

/* A whole rendezvous, with the server in the same process, and in another one. */
static void rendezvous(const char *folder)
{
    char path[300], link[300], longer[300];
    int listener, accepted, answer, from, other[2], status;
    pid_t child;
    snprintf(link, sizeof link, "%s/name", folder);
    snprintf(path, sizeof path, "%s/.0123456789abcdef0123456789abcdef", folder);
    MUST(machrv_ask(&exchange, link, 5, 0, 0) == -ENOENT && exchange.fd == -1);
    snprintf(longer, sizeof longer, "%s/%0120d", folder, 1); /* than an address can be */
    MUST(symlink("elsewhere", longer) == 0);
    MUST(machrv_ask(&exchange, longer, 5, 0, 0) == -EINVAL && unlink(longer) == 0);
    MUST(symlink(strrchr(path, '/') + 1, longer) == 0);
    MUST(machrv_ask(&exchange, longer, 5, 0, 0) == -ENOENT && unlink(longer) == 0);
    MUST(symlink(strrchr(path, '/') + 1, link) == 0);
    MUST(machrv_ask(&exchange, link, 5, 0, 0) == -ENOENT && exchange.fd == -1);
    MUST((listener = machrv_listen(path, 1)) >= 0 && machrv_bundle(other) == 0);
    MUST(machrv_serve(&exchange, &served, listener, other[0], 9, 52, 0, 1000) == -EAGAIN);

    MUST(machrv_ask(&exchange, link, 5, 0, 0) == -EAGAIN && (from = exchange.fd) >= 0);
    int got = machrv_serve(&exchange, &served, listener, other[0], 9, 52, 0, 1000);
    MUST((got == 24 + 52 || got == 0) && received.nfds == 1 && (got == 0 || (exchange.fd == -1 && exchange.ports == 0 && exchange.id == 5)));
    answer = received.fds[0];
    if (exchange.fd >= 0)
        machrv_close(exchange.fd);
    answered(answer, from);
    MUST(machrv_close(from) == 0);

    /* something waits elsewhere: who connects is taken in, and not heard yet */
    MUST(machrv_send_raw(other[1], "first", 5, NULL, 0) == 0);
    MUST(machrv_ask(&exchange, link, 5, 0, 0) == -EAGAIN && (from = exchange.fd) >= 0);
    MUST(machrv_serve(&exchange, &served, listener, other[0], 9, 52, 0, 1000) == -EAGAIN);
    accepted = exchange.fd;
    MUST(accepted >= 0 && machrv_receive(accepted, &received) == 0 && received.nfds == 1);
    close_received();
    MUST(machrv_close(accepted) == 0 && machrv_close(from) == 0);

    MUST((child = fork()) >= 0);
    if (child == 0) {
        int inherited[3] = {listener, other[0], other[1]};
        machrv_close_all(inherited, 3);
        own.pid = getpid();
        own.token[5] = (uint32_t)own.pid;
        got = machrv_ask(&exchange, link, 5, 0, 20.0);
        if (exchange.fd >= 0)
            machrv_close(exchange.fd);
        _exit(got < 0 || received.nfds != 0);
    }
    while ((got = machrv_serve(&exchange, &served, listener, -1, 9, 52, 0, 1000)) == -EAGAIN && exchange.fd < 0)
        poll(NULL, 0, 1);
    accepted = exchange.fd;
    if (got == -EAGAIN) {
        struct pollfd ready = {accepted, POLLIN, 0};
        MUST(poll(&ready, 1, 10000) == 1 && machrv_receive(accepted, &received) == 0);
    }
    MUST(received.nfds == 1 && received.pid == child);
    MUST(machrv_send_plain(received.fds[0], message, 24, 0) == 0);
    close_received();
    if (accepted >= 0)
        machrv_close(accepted);
    MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    MUST(machrv_close(listener) == 0 && machrv_close(other[0]) == 0 && machrv_close(other[1]) == 0);
    unlink(path);
    unlink(link);
}

static void memory(void)
{
    uint64_t where = 0;
    int fd = machrv_memory((uint64_t)(uintptr_t)message, sizeof message);
    MUST(fd >= 0 && machrv_map(fd, sizeof message, &where) == 0);
    MUST(memcmp((void *)(uintptr_t)where, message, sizeof message) == 0);
    ((char *)(uintptr_t)where)[0] = 1; /* private: nobody else sees it */
    MUST(machrv_unmap(where, sizeof message) == 0 && machrv_map(fd, 1, &where) == -EINVAL);
    MUST(machrv_close(fd) == 0);
    MUST((fd = memfd_create("unsealed", MFD_ALLOW_SEALING)) >= 0 && ftruncate(fd, 10) == 0);
    MUST(machrv_map(fd, 10, &where) == -EPERM && machrv_close(fd) == 0);
    MUST((fd = machrv_memory_object(10)) >= 0 && ftruncate(fd, 9) < 0 && ftruncate(fd, 11) < 0);
    MUST(machrv_close(fd) == 0 && machrv_memory_object((uint64_t)-1) == -EINVAL);
    MUST(machrv_allocate(10000, &where) == 0 && machrv_unmap(where, 10000) == 0);
}

static void processes(void)
{
    int pidfd = machrv_pidfd_open(getpid()), status;
    uint64_t self = machrv_process(getpid(), pidfd);
    pid_t child;
    if (pidfd == -ENOSYS)
        return; /* valgrind does not know the call yet */
    MUST(pidfd >= 0 && self != 0 && self == machrv_process(getpid(), pidfd));
    machrv_without(MACHRV_WITHOUT_PIDFS);
    MUST(machrv_process(getpid(), pidfd) != 0 && machrv_process(getpid(), -1) != 0);
    machrv_without(0);
    MUST(machrv_close(pidfd) == 0);
    MUST((child = fork()) >= 0);
    if (child == 0)
        _exit(0);
    MUST((pidfd = machrv_pidfd_open(child)) >= 0 && waitpid(child, &status, 0) == child);
    machrv_process(child, pidfd);
    MUST(machrv_close(pidfd) == 0 && machrv_pidfd_open(child) < 0 && machrv_has_passpidfd() >= 0);
}

int main(int argc, char **argv)
{
    MUST(argc == 2);
    for (size_t i = 0; i < sizeof message; i++)
        message[i] = (char)i;
    own.pid = getpid();
    own.token[5] = (uint32_t)own.pid;
    own.uid = getuid();
    own.gid = getgid();
    own.token[1] = geteuid();
    own.token[2] = getegid();
    for (int features = 0; features < 16; features++) {
        machrv_without(features);
        messages(features & 1);
        end_of_file_too_early();
        again();
        attestation(features & 1);
        names(argv[1]);
        rendezvous(argv[1]);
    }
    machrv_without(MACHRV_WITHOUT_NOEXEC_SEAL);
    memory();
    machrv_without(0);
    memory();
    processes();
    pidfds_that_are_none();
    gone();
    timers();
    return 0;
}
