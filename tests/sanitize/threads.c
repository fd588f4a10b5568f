/*
 * Threads that use, move and destroy the same rights in two tasks, for so many seconds, beside forks; then both tasks end while
 * they go on.
 * What a call answers is nobody's business here: the sanitizer's, and that everybody comes to an end with nothing left open.
 */

#define _GNU_SOURCE
#include <machrv/linux.h>

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SERVICE "org.machrv.threads"
#define SHARED 8
#define FORKS 3 /* in each round */

static mach_port_t a, b;
static atomic_bool over;
static atomic_uint shared_of_a[SHARED], shared_of_b[SHARED]; /* names that anybody may use, and anybody may destroy */
static atomic_ulong calls;

struct message {
    mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t ports[4];
    char rest[4096];
};

static unsigned next(unsigned *seed) { return *seed = *seed * 1664525u + 1013904223u, *seed >> 8; }

static void send(mach_port_t task, mach_port_name_t to, unsigned how, mach_port_name_t carried, unsigned as)
{
    struct message message = {.header = {.msgh_bits = how, .msgh_remote_port = to, .msgh_id = 1}};
    mach_msg_size_t size = sizeof message.header;
    if (carried) {
        message.header.msgh_bits |= MACH_MSGH_BITS_COMPLEX;
        message.body.msgh_descriptor_count = 1;
        message.ports[0] = (mach_msg_port_descriptor_t){.name = carried, .disposition = as & 31, .type = MACH_MSG_PORT_DESCRIPTOR};
        size = sizeof message.header + sizeof message.body + sizeof message.ports[0];
    }
    if (machrv_msg(task, &message.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT, size, 0, 0, 1, 0) != MACH_MSG_SUCCESS)
        machrv_msg_destroy(task, &message.header);
    calls++;
}

static void receive(mach_port_t task, mach_port_name_t from, mach_msg_timeout_t timeout)
{
    struct message message;
    memset(&message, 0, sizeof message);
    if (machrv_msg(task, &message.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT | MACH_RCV_TRAILER_ELEMENTS(3), 0, sizeof message, from,
                   timeout, 0) == MACH_MSG_SUCCESS)
        machrv_msg_destroy(task, &message.header);
    calls++;
}

static void *worker(void *with)
{
    unsigned seed = (unsigned)(uintptr_t)with * 2654435761u;
    while (!over) {
        bool first = next(&seed) & 1;
        mach_port_t task = first ? a : b, previous, found;
        atomic_uint *names = first ? shared_of_a : shared_of_b;
        atomic_uint *place = &names[next(&seed) % SHARED], *other = &names[next(&seed) % SHARED];
        mach_port_name_t name = *place, made;
        mach_port_type_t type;
        machrv_account_t account[4];
        int fd;
        calls++;
        switch (next(&seed) % 14) {
        case 0:
            if (mach_port_allocate(task, MACH_PORT_RIGHT_RECEIVE, &made) == KERN_SUCCESS) {
                mach_port_insert_right(task, made, made, MACH_MSG_TYPE_MAKE_SEND);
                mach_port_destroy(task, atomic_exchange(place, made));
            }
            break;
        case 1:
            if (mach_port_allocate(task, MACH_PORT_RIGHT_PORT_SET, &made) == KERN_SUCCESS)
                mach_port_destroy(task, atomic_exchange(place, made));
            break;
        case 2:
            mach_port_insert_member(task, name, *other);
            break;
        case 3:
            mach_port_extract_member(task, name, *other);
            break;
        case 4:
        case 5:
            send(task, name, MACH_MSG_TYPE_COPY_SEND, 0, 0);
            break;
        case 6:
            send(task, name, MACH_MSG_TYPE_COPY_SEND, *other, MACH_MSG_TYPE_COPY_SEND);
            break;
        case 7:
        case 8:
            receive(task, name, next(&seed) % 4);
            break;
        case 9: /* the right goes to the other task, under a name that only its receiver knows */
            if (bootstrap_look_up(task, SERVICE, &found) == KERN_SUCCESS) {
                send(task, found, MACH_MSG_TYPE_COPY_SEND, name,
                     next(&seed) & 1 ? MACH_MSG_TYPE_MOVE_RECEIVE : MACH_MSG_TYPE_MAKE_SEND);
                mach_port_deallocate(task, found);
            }
            break;
        case 10:
            previous = MACH_PORT_NULL;
            mach_port_request_notification(task, name, next(&seed) & 1 ? MACH_NOTIFY_DEAD_NAME : MACH_NOTIFY_NO_SENDERS, 0, *other,
                                           MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous);
            if (previous)
                mach_port_deallocate(task, previous);
            break;
        case 11:
            mach_port_type(task, name, &type);
            machrv_account(task, 0, account, 4);
            break;
        case 12:
            if (machrv_port_readable(task, name, &fd) == KERN_SUCCESS)
                close(fd);
            break;
        case 13:
            mach_port_mod_refs(task, name, MACH_PORT_RIGHT_RECEIVE, -1);
        }
    }
    return NULL;
}

static void *server(void *with)
{
    mach_port_name_t service = (mach_port_name_t)(uintptr_t)with;
    while (!over)
        receive(a, service, 5);
    return NULL;
}

static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* In the child of a fork, whose parent's threads were inside: the tasks are empty, and as good as new. */
static bool is_as_new(void)
{
    mach_port_name_t port = MACH_PORT_NULL;
    unsigned long before = calls;
    if (mach_port_allocate(a, MACH_PORT_RIGHT_RECEIVE, &port))
        return false;
    send(a, port, MACH_MSG_TYPE_MAKE_SEND, MACH_PORT_NULL, 0);
    receive(a, port, 1000);
    return mach_port_mod_refs(a, port, MACH_PORT_RIGHT_RECEIVE, -1) == KERN_SUCCESS && calls == before + 2;
}

static int fork_once(void)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        alarm(30);
        _exit(is_as_new() ? 0 : 1);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

static int round_of(unsigned number, int milliseconds)
{
    pthread_t threads[5];
    mach_port_t service = MACH_PORT_NULL;
    struct timespec pause = {0, milliseconds * 1000000L / FORKS};
    if (machrv_task_create(&a) || machrv_task_create(&b) || bootstrap_check_in(a, SERVICE, &service))
        return 1;
    over = false;
    pthread_create(&threads[0], NULL, server, (void *)(uintptr_t)service);
    for (unsigned i = 1; i < 5; i++)
        pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)(number * 4 + i));
    for (int i = 0; i < FORKS; i++) {
        nanosleep(&pause, NULL); /* not to wait for anything: so long it goes on */
        if (fork_once()) {
            fprintf(stderr, "threads.c: the child of a fork has failed\n");
            exit(1);
        }
    }
    machrv_task_terminate(b);
    machrv_task_terminate(a);
    over = true;
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    machrv_task_deallocate(a);
    machrv_task_deallocate(b);
    for (int i = 0; i < SHARED; i++)
        shared_of_a[i] = shared_of_b[i] = MACH_PORT_NULL;
    return machrv_settle(5000) != 0;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) * 4 : 12;
    int before;
    if (round_of(0, 100))
        return 1;
    before = descriptors();
    for (unsigned i = 1; i <= rounds; i++)
        if (round_of(i, 250)) {
            fprintf(stderr, "threads.c: round %u: no tasks, or descriptors are still being closed\n", i);
            return 1;
        }
    printf("%lu calls in %u rounds, %d descriptors more than before\n", calls, rounds, descriptors() - before);
    return descriptors() != before;
}
