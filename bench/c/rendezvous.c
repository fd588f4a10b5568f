/*
 * The limit: a rendezvous as a sequence of system calls, with the server in C too.
 *
 *     rendezvous serve PATH PORTS    say "ready", then answer whoever connects, until standard input ends
 *     rendezvous claim PATH PORTS    for every number read from standard input, that many claims: prints nanoseconds each
 *
 * One claim: connect to the listener and look who made it (SO_PEERCRED); a pair for the reply, whose receiving end is told
 * who sends (SO_PASSCRED, SO_PASSPIDFD); one end goes along with the request of 24 bytes. The server learns from the
 * kernel who asks, makes PORTS pairs, each attested in the same way, and sends one end of each in one reply. Both ends
 * tell the processes by the inodes of their pidfds, and close everything but the server's ends of the pairs, which it
 * closes when the next claim comes: so long they are what the client's rights lead to.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif
#ifndef SCM_CREDENTIALS
#define SCM_CREDENTIALS 2
#endif
#define MAX_PORTS 253

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int checked(int result, const char *what)
{
    if (result < 0)
        die(what);
    return result;
}

static void attest(int fd)
{
    int one = 1;
    checked(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one), "SO_PASSCRED");
    checked(setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &one, sizeof one), "SO_PASSPIDFD");
}

static void send_fds(int fd, char *bytes, size_t size, const int *fds, int count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MAX_PORTS * sizeof(int))];
    } control;
    struct iovec vector = {bytes, size};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes};
    struct cmsghdr *rights = &control.align;
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, (size_t)count * sizeof(int));
    checked((int)sendmsg(fd, &message, MSG_NOSIGNAL), "sendmsg");
}

/* One packet: its descriptors, how many; the sender is identified by its pidfd. -1: end of file. */
static int receive_fds(int fd, int *fds, uint64_t *sender)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MAX_PORTS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
    } control;
    char bytes[8192];
    struct iovec vector = {bytes, sizeof bytes};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct stat file;
    int count = 0, pid = 0;
    ssize_t got = checked((int)recvmsg(fd, &message, MSG_CMSG_CLOEXEC), "recvmsg");
    if (got == 0)
        return -1;
    *sender = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_type == SCM_RIGHTS) {
            count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(c), (size_t)count * sizeof(int));
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof who);
            pid = who.pid;
        } else if (c->cmsg_type == SCM_PIDFD) {
            int pidfd;
            memcpy(&pidfd, CMSG_DATA(c), sizeof pidfd);
            checked(fstat(pidfd, &file), "fstat");
            *sender = file.st_ino;
            close(pidfd);
        }
    }
    if (!pid || !*sender || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        die("a packet from nobody");
    return count;
}

static void address(struct sockaddr_un *name, const char *path)
{
    memset(name, 0, sizeof *name);
    name->sun_family = AF_UNIX;
    strncpy(name->sun_path, path, sizeof name->sun_path - 1);
}

static void serve(const char *path, int ports)
{
    struct sockaddr_un name;
    struct pollfd waited[2] = {{.fd = 0, .events = POLLIN}, {.events = POLLIN}};
    int kept[MAX_PORTS], given[MAX_PORTS], have = 0;
    char reply[24 + 4 + 16 * MAX_PORTS + 8] = {0};
    int listener = checked(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "socket");
    address(&name, path);
    attest(listener);
    checked(bind(listener, (struct sockaddr *)&name, sizeof name), "bind");
    checked(listen(listener, SOMAXCONN), "listen");
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int fds[MAX_PORTS], client;
        uint64_t sender;
        waited[1].fd = listener;
        checked(poll(waited, 2, -1), "poll");
        if (waited[0].revents)
            break;
        client = checked(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept4");
        if (receive_fds(client, fds, &sender) != 1)
            die("no request");
        for (int i = 0; i < have; i++)
            close(kept[i]);
        for (have = 0; have < ports; have++) {
            int ends[2];
            checked(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
            attest(ends[0]);
            kept[have] = ends[0];
            given[have] = ends[1];
        }
        send_fds(fds[0], reply, 24 + 4 + 16 * (size_t)ports + 8, given, ports);
        for (int i = 0; i < ports; i++)
            close(given[i]);
        close(fds[0]);
        close(client);
    }
    unlink(path);
}

static void claim(const char *path, int ports)
{
    struct sockaddr_un name;
    struct ucred peer;
    socklen_t length = sizeof peer;
    char request[24] = {0};
    int ends[2], fds[MAX_PORTS], fd = checked(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "socket");
    uint64_t sender;
    address(&name, path);
    checked(connect(fd, (struct sockaddr *)&name, sizeof name), "connect");
    checked(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length), "SO_PEERCRED");
    checked(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
    attest(ends[0]);
    send_fds(fd, request, sizeof request, &ends[1], 1);
    close(ends[1]);
    if (receive_fds(ends[0], fds, &sender) != ports)
        die("no reply");
    for (int i = 0; i < ports; i++)
        close(fds[i]);
    close(ends[0]);
    close(fd);
}

int main(int argc, char **argv)
{
    int ports = argc == 4 ? atoi(argv[3]) : 0;
    long count;
    if (ports <= 0 || ports > MAX_PORTS) {
        fprintf(stderr, "usage: rendezvous serve|claim PATH PORTS\n");
        return 2;
    }
    if (strcmp(argv[1], "serve") == 0) {
        serve(argv[2], ports);
        return 0;
    }
    while (scanf("%ld", &count) == 1) {
        struct timespec began, ended;
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (long i = 0; i < count; i++)
            claim(argv[2], ports);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%.1f\n", ((ended.tv_sec - began.tv_sec) * 1e9 + (ended.tv_nsec - began.tv_nsec)) / (double)count);
        fflush(stdout);
    }
    return 0;
}
