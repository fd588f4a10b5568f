/*
 * What a program does with rights, in two tasks, while one call of the C library fails (faults.h): for every call, the first one,
 * the second one, and so on until none is left to fail.
 *
 *     scenario              everything once, and nothing fails: for valgrind
 *     scenario CALL         that call fails, at each of its places
 *     scenario CALL:N       at its Nth place alone: for a debugger
 *     scenario all [SKIP]   every call; with SKIP only each (SKIP + 1)th of its places
 *
 * What must hold: nothing crashes; a call that is about names and fails has changed no name; when both tasks have gone, so have
 * all descriptors and all memory. MACHRV_BOOTSTRAP_DIR must be an empty directory.
 */

#define _GNU_SOURCE
#include "faults.h"

#include <machrv/linux.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVICE "org.machrv.scenario"
#define ROOM 512

static mach_port_t a, b;
static bool faulty;      /* something is to fail in this run */
static const char *what; /* in words, for who reads of a failure */
static unsigned place;

static void die(const char *reason, const char *call, int line)
{
    fprintf(stderr, "scenario.c:%d: %s: %s (%s fails, place %u)\n", line, call, reason, what, place);
    abort();
}

/* -- the names of both tasks ------------------------------------------------------------------------------------------------- */

struct names {
    int count[2];
    machrv_account_t of[2][ROOM];
};

static void look(struct names *names)
{
    faults_pause();
    for (int i = 0; i < 2; i++) {
        mach_port_type_t type;
        mach_port_t task = i ? b : a;
        mach_port_type(task, 0x7fffff03, &type); /* notifications that are due are sent */
        names->count[i] = machrv_account(task, 0, names->of[i], ROOM);
    }
    faults_resume();
}

static bool same(const struct names *one, const struct names *two)
{
    for (int i = 0; i < 2; i++) {
        if (one->count[i] != two->count[i])
            return false;
        for (int n = 0; n < one->count[i] && n < ROOM; n++)
            if (one->of[i][n].name != two->of[i][n].name || one->of[i][n].type != two->of[i][n].type ||
                one->of[i][n].urefs != two->of[i][n].urefs)
                return false;
    }
    return true;
}

static struct names before, after;

static kern_return_t checked(kern_return_t kr, const char *call, int line)
{
    if (kr == KERN_SUCCESS)
        return kr;
    if (!faulty)
        die("must not fail", call, line);
    look(&after);
    if (!same(&before, &after))
        die("has failed, and changed names", call, line);
    return kr;
}

/* A call about names. */
#define CALL(call) (look(&before), checked((call), #call, __LINE__))
/* One whose failure takes things along, such as a message. */
#define TRY(call) tried((call), #call, __LINE__)

static kern_return_t tried(kern_return_t kr, const char *call, int line)
{
    if (kr != KERN_SUCCESS && !faulty && fprintf(stderr, "%#x\n", (unsigned)kr))
        die("must not fail", call, line);
    return kr;
}

/* -- messages ------------------------------------------------------------------------------------------------------------------ */

struct message {
    mach_msg_header_t header;
    mach_msg_body_t body;
    union {
        mach_msg_port_descriptor_t ports[16];
        mach_msg_ool_descriptor_t ool[12];
        char bytes[300000];
    } u;
};

static struct message out, in;

static mach_msg_return_t send(mach_port_t task, mach_port_name_t to, unsigned bits, mach_port_name_t reply, size_t size)
{
    out.header.msgh_bits = bits;
    out.header.msgh_remote_port = to;
    out.header.msgh_local_port = reply;
    out.header.msgh_voucher_port = MACH_PORT_NULL;
    out.header.msgh_id = 7;
    return machrv_msg(task, &out.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT, (mach_msg_size_t)size, 0, 0, 10, 0);
}

static mach_msg_return_t receive(mach_port_t task, mach_port_name_t from)
{
    memset(&in.header, 0, sizeof in.header);
    return machrv_msg(task, &in.header,
                      MACH_RCV_MSG | MACH_RCV_TIMEOUT | MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT), 0, sizeof in,
                      from, faulty ? 0 : 1000, 0);
}

static mach_port_name_t port(mach_port_t task)
{
    mach_port_name_t name = MACH_PORT_NULL;
    if (CALL(mach_port_allocate(task, MACH_PORT_RIGHT_RECEIVE, &name)) == KERN_SUCCESS)
        CALL(mach_port_insert_right(task, name, name, MACH_MSG_TYPE_MAKE_SEND));
    return name;
}

static void notify(mach_port_t task, mach_port_name_t name, mach_msg_id_t id, mach_port_name_t to)
{
    mach_port_t previous = MACH_PORT_NULL;
    CALL(mach_port_request_notification(task, name, id, 0, to, MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous));
    if (previous)
        CALL(mach_port_deallocate(task, previous));
}

static void drain(mach_port_t task, mach_port_name_t from)
{
    /* Unbounded only for who sends without end: a message that there is no room for stays, and fails again. */
    for (int i = 0; i < 50; i++) {
        memset(&in.header, 0, sizeof in.header);
        if (machrv_msg(task, &in.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof in, from, 0, 0) == MACH_MSG_SUCCESS)
            machrv_msg_destroy(task, &in.header);
    }
}

/* A message with one of everything. */
static size_t everything(mach_port_name_t send_right, mach_port_name_t receive_right, mach_port_name_t file,
                         mach_port_name_t *array, const char *memory, size_t memory_size)
{
    size_t at = 0;
    mach_msg_port_descriptor_t one = {.disposition = MACH_MSG_TYPE_COPY_SEND, .type = MACH_MSG_PORT_DESCRIPTOR};
    mach_msg_ool_descriptor_t ool = {.copy = MACH_MSG_VIRTUAL_COPY, .type = MACH_MSG_OOL_DESCRIPTOR};
    mach_msg_ool_ports_descriptor_t many = {.copy = MACH_MSG_VIRTUAL_COPY, .type = MACH_MSG_OOL_PORTS_DESCRIPTOR,
                                            .disposition = MACH_MSG_TYPE_MAKE_SEND, .count = 3};
    mach_msg_guarded_port_descriptor_t guarded = {.type = MACH_MSG_GUARDED_PORT_DESCRIPTOR,
                                                  .disposition = MACH_MSG_TYPE_MOVE_RECEIVE,
                                                  .flags = MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND};
#define PUT(descriptor) (memcpy(out.u.bytes + at, &descriptor, sizeof descriptor), at += sizeof descriptor)
    one.name = send_right;
    PUT(one);
    one.name = receive_right;
    one.disposition = MACH_MSG_TYPE_MOVE_RECEIVE;
    guarded.name = receive_right;
    if (memory_size > 0)
        PUT(guarded);
    else
        PUT(one);
    one.disposition = MACH_MSG_TYPE_COPY_SEND;
    one.name = file;
    PUT(one);
    one.name = MACH_PORT_NULL;
    PUT(one);
    ool.address = (void *)(uintptr_t)memory;
    ool.size = (mach_msg_size_t)memory_size;
    PUT(ool);
    many.address = array;
    PUT(many);
#undef PUT
    out.body.msgh_descriptor_count = 6;
    return sizeof out.header + sizeof out.body + at;
}

/* -- the scenario ---------------------------------------------------------------------------------------------------------------- */

static void names_of_both(mach_port_name_t service, mach_port_name_t *right)
{
    mach_port_name_t set = MACH_PORT_NULL, again = MACH_PORT_NULL, dead[40];
    mach_port_status_t status;
    mach_msg_type_number_t count = MACH_PORT_RECEIVE_STATUS_COUNT, members = 0, types = 0, names = 0;
    mach_port_name_t *list = NULL, *all = NULL;
    mach_port_type_t *kinds = NULL;
    TRY(bootstrap_look_up(b, SERVICE, right));
    if (TRY(bootstrap_look_up(b, SERVICE, &again)) == KERN_SUCCESS)
        CALL(mach_port_deallocate(b, again));
    for (int i = 0; i < 40; i++)
        if (CALL(mach_port_allocate(b, i % 2 ? MACH_PORT_RIGHT_DEAD_NAME : MACH_PORT_RIGHT_RECEIVE, &dead[i])))
            dead[i] = MACH_PORT_NULL;
    for (int i = 0; i < 40; i++)
        if (dead[i])
            CALL(mach_port_destroy(b, dead[i]));
    if (CALL(mach_port_allocate(a, MACH_PORT_RIGHT_PORT_SET, &set)) == KERN_SUCCESS && service) {
        CALL(mach_port_insert_member(a, service, set));
        if (CALL(mach_port_get_set_status(a, set, &list, &members)) == KERN_SUCCESS)
            vm_deallocate(a, (vm_address_t)list, members * sizeof *list);
        CALL(mach_port_get_attributes(a, service, MACH_PORT_RECEIVE_STATUS, (integer_t *)&status, &count));
        if (CALL(mach_port_names(a, &all, &names, &kinds, &types)) == KERN_SUCCESS) {
            vm_deallocate(a, (vm_address_t)all, names * sizeof *all);
            vm_deallocate(a, (vm_address_t)kinds, types * sizeof *kinds);
        }
    }
    if (set) {
        int fd = -1;
        if (CALL(machrv_port_readable(a, set, &fd)) == KERN_SUCCESS)
            close(fd);
        send(b, *right, MACH_MSG_TYPE_COPY_SEND, 0, sizeof(mach_msg_header_t));
        drain(a, set);
        CALL(mach_port_mod_refs(a, set, MACH_PORT_RIGHT_PORT_SET, -1));
    }
}

static void rights_in_messages(mach_port_name_t service, mach_port_name_t right)
{
    static char memory[20000];
    mach_port_name_t first = port(b), second = port(b), third = port(b), kept = MACH_PORT_NULL, array[3], memo = MACH_PORT_NULL;
    mach_port_t file = MACH_PORT_NULL;
    memory_object_size_t memory_size = 8192;
    mach_msg_type_name_t kind;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), pipe_fd;
    machrv_fileport_makeport(b, null, &file);
    if (file && (pipe_fd = machrv_fileport_makefd(b, file)) >= 0)
        close(pipe_fd);
    close(null);
    if (TRY(mach_make_memory_entry_64(b, &memory_size, 0, 3 | 0x20000, &memo, 0)) == KERN_SUCCESS)
        CALL(mach_port_deallocate(b, memo));
    array[0] = first, array[1] = MACH_PORT_NULL, array[2] = first;
    if (second) {
        CALL(mach_port_extract_right(b, second, MACH_MSG_TYPE_MAKE_SEND_ONCE, &kept, &kind));
        notify(b, second, MACH_NOTIFY_PORT_DESTROYED, first);
        notify(b, second, MACH_NOTIFY_NO_SENDERS, first);
        notify(b, second, MACH_NOTIFY_DEAD_NAME, first);
        for (int i = 0; i < 3; i++) /* these move along with it */
            send(b, second, MACH_MSG_TYPE_COPY_SEND | (MACH_MSG_TYPE_MAKE_SEND_ONCE << 8), first, i == 2 ? 100000 : 400);
    }
    notify(b, right, MACH_NOTIFY_DEAD_NAME, first);
    notify(b, right, MACH_NOTIFY_SEND_POSSIBLE, first);
    if (first && second && third && file) {
        size_t size = everything(first, third, file, array, memory, sizeof memory);
        TRY(send(b, right, MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_COPY_SEND | (MACH_MSG_TYPE_MAKE_SEND_ONCE << 8), first, size));
        size = everything(first, second, file, array, memory, 0);
        TRY(send(b, right, MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_COPY_SEND | (MACH_MSG_TYPE_MAKE_SEND_ONCE << 8), first, size));
    }
    for (int i = 0; i < 2; i++)
        if (receive(a, service) == MACH_MSG_SUCCESS) {
            mach_port_name_t reply = in.header.msgh_remote_port, name = in.u.ports[1].name;
            in.header.msgh_remote_port = MACH_PORT_NULL;
            if (reply)
                send(a, reply, MACH_MSG_TYPE_MOVE_SEND_ONCE, 0, 40);
            if (i == 0) {
                machrv_msg_destroy(a, &in.header);
                continue;
            }
            if (name) {
                static struct message whole;
                memcpy(&whole, &in, sizeof whole);
                CALL(mach_port_insert_right(a, name, name, MACH_MSG_TYPE_MAKE_SEND));
                TRY(send(a, name, MACH_MSG_TYPE_COPY_SEND, 0, 24));
                drain(a, name);
                CALL(mach_port_mod_refs(a, name, MACH_PORT_RIGHT_SEND, -1));
                machrv_msg_destroy(a, &whole.header);
            }
        } else if (!faulty)
            die("nothing came", "receive", __LINE__);
    if (kept)
        TRY(send(b, kept, MACH_MSG_TYPE_MOVE_SEND_ONCE, 0, 24));
    if (first)
        drain(b, first);
}

static void large_and_circular(mach_port_name_t service, mach_port_name_t right)
{
    mach_port_name_t one = port(b), two = port(b);
    for (int i = 0; i < 4; i++)
        TRY(send(b, right, MACH_MSG_TYPE_COPY_SEND, 0, i % 2 ? 250000 : 50000));
    drain(a, service);
    if (one && two) {
        mach_msg_port_descriptor_t moved = {.name = one, .disposition = MACH_MSG_TYPE_MOVE_RECEIVE,
                                            .type = MACH_MSG_PORT_DESCRIPTOR};
        out.u.ports[0] = moved;
        out.body.msgh_descriptor_count = 1;
        send(b, one, MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_COPY_SEND, 0, 40); /* into itself */
        moved.name = two;
        out.u.ports[0] = moved;
        send(b, right, MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_COPY_SEND, 0, 40);
    }
    /* Its own send right, in a message to it that nobody receives. */
    out.u.ports[0] = (mach_msg_port_descriptor_t){.name = right, .disposition = MACH_MSG_TYPE_COPY_SEND,
                                                  .type = MACH_MSG_PORT_DESCRIPTOR};
    out.body.msgh_descriptor_count = 1;
    send(b, right, MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_MOVE_SEND, 0, 40);
}

static void run(void)
{
    mach_port_name_t service = MACH_PORT_NULL, right = MACH_PORT_NULL;
    if (TRY(bootstrap_check_in(a, SERVICE, &service)) != KERN_SUCCESS)
        return;
    names_of_both(service, &right);
    rights_in_messages(service, right);
    large_and_circular(service, right);
    CALL(mach_port_mod_refs(a, service, MACH_PORT_RIGHT_RECEIVE, -1));
}

/* One run, and whether what was to fail has failed. */
static bool once(int call, unsigned nth)
{
    bool hit = false;
    faulty = call >= 0;
    what = faulty ? fault_calls[call] : "nothing";
    place = nth;
    if (machrv_task_create(&a) != KERN_SUCCESS || machrv_task_create(&b) != KERN_SUCCESS)
        die("must not fail", "machrv_task_create", __LINE__);
    if (faulty)
        faults_begin(call, nth);
    run();
    machrv_task_terminate(b);
    machrv_task_terminate(a);
    hit = faults_end();
    machrv_task_deallocate(a);
    machrv_task_deallocate(b);
    if (machrv_settle(5000))
        die("descriptors are still being closed", "machrv_settle", __LINE__);
    return hit;
}

static int call_number(const char *name)
{
    for (int call = 0; fault_calls[call]; call++)
        if (strcmp(fault_calls[call], name) == 0)
            return call;
    fprintf(stderr, "scenario: nothing here is called %s\n", name);
    exit(2);
}

/* What a run has left behind; what has grown for good is not told again. */
static bool leaves_nothing(int *descriptors, long *allocations)
{
    int more_descriptors = faults_descriptors() - *descriptors;
    long more_allocations = faults_allocations() - *allocations;
    if (more_descriptors == 0 && more_allocations == 0)
        return true;
    fprintf(stderr, "%s:%u leaves %d descriptors and %ld allocations\n", what, place, more_descriptors, more_allocations);
    *descriptors += more_descriptors;
    *allocations += more_allocations;
    return false;
}

static bool every_place(int call, unsigned step, int descriptors, long allocations)
{
    unsigned nth = 1, runs = 0;
    bool good = true;
    for (; once(call, nth); nth += step, runs++)
        if (!leaves_nothing(&descriptors, &allocations))
            good = false;
    printf("%-16s %5u places, %u of them failed\n", fault_calls[call], nth - 1, runs);
    return good;
}

int main(int argc, char **argv)
{
    bool all = argc > 1 && strcmp(argv[1], "all") == 0, good;
    unsigned step = all && argc > 2 ? (unsigned)atoi(argv[2]) + 1 : 1;
    int descriptors;
    long allocations;
    setvbuf(stdout, NULL, _IOLBF, 0);
    once(-1, 0);
    once(-1, 0);
    descriptors = faults_descriptors();
    allocations = faults_allocations();
    once(-1, 0);
    good = leaves_nothing(&descriptors, &allocations);
    for (int call = 0; all && fault_calls[call]; call++)
        good = every_place(call, step, descriptors, allocations) && good;
    for (int i = 1; !all && i < argc; i++) {
        char *nth = strchr(argv[i], ':');
        if (nth) {
            *nth = 0;
            once(call_number(argv[i]), (unsigned)atoi(nth + 1));
            good = leaves_nothing(&descriptors, &allocations) && good;
        } else
            good = every_place(call_number(argv[i]), 1, descriptors, allocations) && good;
    }
    return !good;
}
