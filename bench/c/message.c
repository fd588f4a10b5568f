/*
 * The limit: one packet within a process, sent with sendmsg and received with recvmsg, in nanoseconds.
 *
 *     message [attested] PAIRS
 *
 * PAIRS of calls over one SEQPACKET socket pair, a packet of 24 bytes each (a Mach header). `attested`: with the socket
 * options that the receiving end of a right has, and room for what they bring.
 */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void pair(int from, int to)
{
    char bytes[24] = {0}, room[4096];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec out = {bytes, sizeof bytes}, in = {room, sizeof room};
    struct msghdr sent = {.msg_iov = &out, .msg_iovlen = 1};
    struct msghdr received = {
        .msg_iov = &in, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    if (sendmsg(from, &sent, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof bytes)
        die("sendmsg");
    if (recvmsg(to, &received, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != (ssize_t)sizeof bytes)
        die("recvmsg");
    if (received.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        die("recvmsg: truncated");
}

int main(int argc, char **argv)
{
    int attested = argc == 3 && strcmp(argv[1], "attested") == 0, one = 1, ends[2];
    long pairs = argc > 1 ? strtol(argv[argc - 1], NULL, 10) : 0;
    double began;
    if (pairs <= 0 || argc != 2 + attested) {
        fprintf(stderr, "usage: message [attested] PAIRS\n");
        return 2;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        die("socketpair");
    if (attested && (setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one) ||
                     setsockopt(ends[0], SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one)))
        die("setsockopt");
    for (long i = 0; i < pairs / 10; i++)
        pair(ends[1], ends[0]);
    began = now();
    for (long i = 0; i < pairs; i++)
        pair(ends[1], ends[0]);
    printf("%.1f\n", (now() - began) / (double)pairs);
    return 0;
}
