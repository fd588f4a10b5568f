/*
 * The Mach calls without Python: one message through mach_msg, as machrv/native/linux makes it.
 *
 *     mach_msg within|between SIZE RIGHTS
 *
 * For every number read from standard input, that many messages of SIZE bytes with RIGHTS send rights: prints nanoseconds
 * each. `within`: by one process to itself. `between`: to a child, which sends the same back, and that is one. The receiver
 * asks for the audit trailer, and gives up the rights that arrive. bench/c/message.c is the same with nothing but the
 * system calls.
 */

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "machrv/linux.h"

#define MAX_RIGHTS 253
#define MAX_SIZE (1 << 21)
#define AUDIT (MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT))

static union {
    mach_msg_base_t base;
    mach_msg_header_t header;
    char bytes[MAX_SIZE + MAX_TRAILER_SIZE];
} out, in;
static mach_msg_size_t size;
static int count;

static void checked(kern_return_t code, const char *what)
{
    if (code) {
        fprintf(stderr, "%s: 0x%x\n", what, code);
        exit(1);
    }
}

static mach_port_t port(void)
{
    mach_port_t name, task = mach_task_self();
    checked(mach_port_allocate(task, MACH_PORT_RIGHT_RECEIVE, &name), "mach_port_allocate");
    checked(mach_port_insert_right(task, name, name, MACH_MSG_TYPE_MAKE_SEND), "mach_port_insert_right");
    return name;
}

static void lay_out(mach_port_t to)
{
    out.header.msgh_bits = MACH_MSG_TYPE_COPY_SEND | (count ? MACH_MSGH_BITS_COMPLEX : 0);
    out.header.msgh_size = size;
    out.header.msgh_remote_port = to;
    if (!count)
        return;
    out.base.body.msgh_descriptor_count = (mach_msg_size_t)count;
    mach_msg_port_descriptor_t *rights = (mach_msg_port_descriptor_t *)(&out.base + 1);
    for (int i = 0; i < count; i++)
        rights[i] = (mach_msg_port_descriptor_t){
            .name = port(), .disposition = MACH_MSG_TYPE_COPY_SEND, .type = MACH_MSG_PORT_DESCRIPTOR};
}

static void give(void)
{
    checked(mach_msg(&out.header, MACH_SEND_MSG, size, 0, 0, 0, 0), "mach_msg, sending");
}

/* False once there is nobody to send any more. */
static int take(mach_port_t from)
{
    checked(mach_msg(&in.header, MACH_RCV_MSG | AUDIT, 0, sizeof in, from, 0, 0), "mach_msg, receiving");
    if (in.header.msgh_id == MACH_NOTIFY_NO_SENDERS)
        return 0;
    if (in.header.msgh_size != size)
        exit(3);
    if (count)
        mach_msg_destroy(&in.header);
    return 1;
}

/* The child of `between`: it finds its server's name in its arguments, and gives a right to itself in the first message. */
static int echo(const char *service)
{
    mach_port_t here = port(), back;
    checked(bootstrap_look_up(bootstrap_port, service, &back), "bootstrap_look_up");
    struct {
        mach_msg_base_t base;
        mach_msg_port_descriptor_t right;
    } hello = {.base = {{MACH_MSG_TYPE_COPY_SEND | MACH_MSGH_BITS_COMPLEX, sizeof hello, back, 0, 0, 0}, {1}},
               .right = {.name = here, .disposition = MACH_MSG_TYPE_MOVE_SEND, .type = MACH_MSG_PORT_DESCRIPTOR}};
    struct {
        mach_msg_base_t base;
        mach_msg_port_descriptor_t right;
        char trailer[MAX_TRAILER_SIZE];
    } answer;
    checked(mach_msg(&hello.base.header, MACH_SEND_MSG, sizeof hello, 0, 0, 0, 0), "saying hello");
    checked(mach_msg(&answer.base.header, MACH_RCV_MSG, 0, sizeof answer, here, 0, 0), "being answered");
    lay_out(answer.right.name);
    while (take(here))
        give();
    return 0;
}

/* The other side of it: the right to the child. A port of its own is where the child sends: the service's is for hello. */
static mach_port_t hello(const char *service, mach_port_t here)
{
    mach_port_t served;
    struct {
        mach_msg_base_t base;
        mach_msg_port_descriptor_t right;
        char trailer[MAX_TRAILER_SIZE];
    } in_hello, answer = {.right = {.name = here, .disposition = MACH_MSG_TYPE_COPY_SEND, .type = MACH_MSG_PORT_DESCRIPTOR}};
    checked(bootstrap_check_in(bootstrap_port, service, &served), "bootstrap_check_in");
    pid_t parent = getpid();
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            exit(0);
        exit(echo(service));
    }
    checked(mach_msg(&in_hello.base.header, MACH_RCV_MSG, 0, sizeof in_hello, served, 0, 0), "hearing hello");
    answer.base.header.msgh_bits = MACH_MSG_TYPE_COPY_SEND | MACH_MSGH_BITS_COMPLEX;
    answer.base.header.msgh_size = sizeof answer - sizeof answer.trailer;
    answer.base.header.msgh_remote_port = in_hello.right.name;
    answer.base.body.msgh_descriptor_count = 1;
    checked(mach_msg(&answer.base.header, MACH_SEND_MSG, answer.base.header.msgh_size, 0, 0, 0, 0), "answering");
    return in_hello.right.name;
}

int main(int argc, char **argv)
{
    int between = argc == 4 && strcmp(argv[1], "between") == 0;
    long messages;
    clockid_t clock = between ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID; /* within, nothing is waited for */
    size = argc == 4 ? (mach_msg_size_t)atol(argv[2]) : 0;
    count = argc == 4 ? atoi(argv[3]) : 0;
    if (size < sizeof(mach_msg_header_t) || size > MAX_SIZE || count < 0 || count > MAX_RIGHTS) {
        fprintf(stderr, "usage: mach_msg within|between SIZE RIGHTS\n");
        return 2;
    }
    if (count)
        size = (mach_msg_size_t)(sizeof(mach_msg_base_t) + (size_t)count * sizeof(mach_msg_port_descriptor_t));
    char service[64];
    snprintf(service, sizeof service, "org.machrv.bench.mach_msg.%d", (int)getpid());
    mach_port_t here, to;
    if (between) {
        /* The first port before the fork would be the parent's alone: the child begins empty, as on Mach. */
        here = port();
        to = hello(service, here);
    } else {
        here = to = port();
    }
    lay_out(to);
    while (scanf("%ld", &messages) == 1) {
        struct timespec began, ended;
        clock_gettime(clock, &began);
        for (long i = 0; i < messages; i++) {
            give();
            take(here);
        }
        clock_gettime(clock, &ended);
        printf("%.1f\n", ((ended.tv_sec - began.tv_sec) * 1e9 + (ended.tv_nsec - began.tv_nsec)) / (double)messages);
        fflush(stdout);
    }
    return 0;
}
