/*
 * The limit: one message, sent with sendmsg and received with recvmsg.
 *
 *     message within|between plain|attested SIZE RIGHTS
 *
 * For every number read from standard input, that many messages of SIZE bytes with RIGHTS descriptors over a SEQPACKET
 * pair: prints nanoseconds each. `within`: by one process to itself. `between`: to a child, which sends the same back, and
 * that is one. `attested`: the receiver is told who sends (SO_PASSCRED; between processes SO_PASSPIDFD too, and it looks at
 * the pidfd's inode). Descriptors that arrive are closed.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif
#define MAX_RIGHTS 253
#define MAX_SIZE (1 << 17)

static char out[MAX_SIZE], in[MAX_SIZE];
static size_t size;
static int rights[MAX_RIGHTS], count;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void give(int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MAX_RIGHTS * sizeof(int))];
    } control;
    struct iovec vector = {out, size};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(&control.align), rights, (size_t)count * sizeof(int));
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)size)
        die("sendmsg");
}

/* False at end-of-file. */
static int take(int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MAX_RIGHTS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec vector = {in, sizeof in};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got == 0)
        return 0;
    if (got != (ssize_t)size || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        die("recvmsg");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        int fds[MAX_RIGHTS];
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        struct stat file;
        if (c->cmsg_type != SCM_RIGHTS && c->cmsg_type != SCM_PIDFD)
            continue;
        memcpy(fds, CMSG_DATA(c), bytes);
        if (c->cmsg_type == SCM_PIDFD && fstat(fds[0], &file))
            die("fstat");
        for (size_t i = 0; i < bytes / sizeof(int); i++)
            close(fds[i]);
    }
    return 1;
}

static void attest(int fd, int pidfd)
{
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one))
        die("SO_PASSCRED");
    if (pidfd && setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &one, sizeof one))
        die("SO_PASSPIDFD");
}

int main(int argc, char **argv)
{
    int between = argc == 5 && strcmp(argv[1], "between") == 0, ends[2];
    long messages;
    clockid_t clock = between ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID; /* within, nothing is waited for */
    size = argc == 5 ? (size_t)atol(argv[3]) : 0;
    count = argc == 5 ? atoi(argv[4]) : 0;
    if (size < 1 || size > MAX_SIZE || count < 0 || count > MAX_RIGHTS) {
        fprintf(stderr, "usage: message within|between plain|attested SIZE RIGHTS\n");
        return 2;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        die("socketpair");
    if (strcmp(argv[2], "attested") == 0) {
        attest(ends[0], between);
        if (between)
            attest(ends[1], 1);
    }
    for (int i = 0; i < count; i++) {
        int other[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, other))
            die("socketpair");
        rights[i] = other[0];
    }
    if (between && fork() == 0) {
        close(ends[0]);
        while (take(ends[1]))
            give(ends[1]);
        return 0;
    }
    if (between)
        close(ends[1]);
    while (scanf("%ld", &messages) == 1) {
        struct timespec began, ended;
        clock_gettime(clock, &began);
        for (long i = 0; i < messages; i++) {
            give(between ? ends[0] : ends[1]);
            take(ends[0]);
        }
        clock_gettime(clock, &ended);
        printf("%.1f\n", ((ended.tv_sec - began.tv_sec) * 1e9 + (ended.tv_nsec - began.tv_nsec)) / (double)messages);
        fflush(stdout);
    }
    return 0;
}
