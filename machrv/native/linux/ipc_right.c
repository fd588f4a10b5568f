/*
 * What a name stands for: looking at it, taking rights out of names and putting them under names, giving them up
 * (osfmk/ipc/ipc_right.c, ipc_object.c).
 *
 * A task's send rights to a port that it receives from itself are a count in its entry, and its send-once rights to it a
 * pointer: they get sockets when they leave. A right to somebody else's port is a socket. All of this: locked.
 */

#include "ipc.h"

#define SEND MACH_PORT_TYPE_SEND
#define RECEIVE MACH_PORT_TYPE_RECEIVE
#define SEND_ONCE MACH_PORT_TYPE_SEND_ONCE
#define PORT_SET MACH_PORT_TYPE_PORT_SET
#define DEAD_NAME MACH_PORT_TYPE_DEAD_NAME

/* -- sockets ------------------------------------------------------------------------------------------------------------- */

struct ipc_socket *ipc_socket_new(int fd, bool file)
{
    struct ipc_socket *socket = calloc(1, sizeof *socket);
    if (socket)
        *socket = (struct ipc_socket){.refs = 1, .fd = fd, .file = file};
    return socket;
}

struct ipc_socket *ipc_socket_hold(struct ipc_socket *socket)
{
    socket->refs++;
    return socket;
}

int ipc_socket_give(struct ipc_socket *socket)
{
    socket->alone = false;
    return socket->fd;
}

void ipc_socket_release(struct ipc_socket *socket)
{
    if (--socket->refs > 0)
        return;
    if (socket->file)
        close_later(socket->fd);
    else if (socket->ours)
        close(socket->fd);
    else if (socket->alone)
        close_socket(socket->fd);
    else
        close_right(socket->fd);
    free(socket);
}

bool ipc_socket_hung_up(const struct ipc_socket *socket)
{
    struct pollfd state = {.fd = socket->fd};
    if (poll_surely(&state, 1) < 0)
        return false; /* there is no memory to look with: it is what it was */
    return (state.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* -- looking --------------------------------------------------------------------------------------------------------------- */

mach_port_type_t ipc_right_type(const struct ipc_entry *entry)
{
    mach_port_type_t type = entry->type;
    if (entry->request.notify.kind) {
        type |= MACH_PORT_TYPE_DNREQUEST;
        if (entry->request.possible)
            type |= MACH_PORT_TYPE_SPREQUEST | (entry->request.armed ? 0 : MACH_PORT_TYPE_SPREQUEST_DELAYED);
    }
    return type;
}

void ipc_right_add_urefs(struct ipc_entry *entry)
{
    if (entry->urefs < MACH_PORT_UREFS_MAX) /* at the limit the count stays where it is, for ever */
        entry->urefs++;
}

static void drop_uref(struct ipc_entry *entry)
{
    if (entry->urefs < MACH_PORT_UREFS_MAX) /* a count at the limit has been lost track of */
        entry->urefs--;
}

/* Takes what an entry has of its own away from it; what is done with the request is the caller's business. */
static struct ipc_request strip(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_request request = entry->request;
    ipc_unwatch_entry(task, entry);
    ipc_entry_forget(task, entry);
    entry->request = (struct ipc_request){0};
    return request;
}

void ipc_right_bury(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_request request = strip(task, entry);
    if (entry->socket)
        ipc_socket_release(entry->socket);
    if (entry->port) {
        if (entry->type & SEND_ONCE)
            entry->port->onces--;
        ipc_port_release(entry->port);
    }
    entry->socket = NULL;
    entry->port = NULL;
    entry->type = DEAD_NAME;
    if (request.notify.kind) {
        ipc_right_add_urefs(entry);
        ipc_notify_dead_name(task, &request.notify, entry->name);
    }
}

bool ipc_right_check(struct ipc_task *task, struct ipc_entry *entry)
{
    if (entry->type & RECEIVE ||
        (entry->port ? entry->port->alive : !entry->socket || entry->socket->file || !ipc_socket_hung_up(entry->socket)))
        return false;
    ipc_right_bury(task, entry);
    return true;
}

void ipc_right_check_all(struct ipc_task *task)
{
    for (uint32_t first = 0; first < task->table_size;) {
        struct pollfd some[64];
        struct ipc_entry *entries[64];
        int count = 0;
        for (; first < task->table_size && count < 64; first++) {
            struct ipc_entry *entry = task->table[first];
            if (!entry || !entry->type || !entry->socket || entry->socket->file)
                continue;
            entries[count] = entry;
            some[count++] = (struct pollfd){.fd = entry->socket->fd};
        }
        if (poll_surely(some, (size_t)count) > 0)
            for (int i = 0; i < count; i++)
                if (some[i].revents & (POLLHUP | POLLERR | POLLNVAL))
                    ipc_right_bury(task, entries[i]);
    }
}

/* -- giving up ---------------------------------------------------------------------------------------------------------------- */

/* A name goes, with the send or send-once right that it has; who asked about it is told last. */
static void free_entry(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_request request = strip(task, entry);
    struct ipc_right right = NO_RIGHT;
    mach_port_name_t name = entry->name;
    if (entry->type & SEND_ONCE) {
        right = (struct ipc_right){KIND_ONCE, entry->port, entry->socket};
    } else {
        if (entry->socket)
            ipc_socket_release(entry->socket);
        if (entry->port)
            ipc_port_release(entry->port);
    }
    entry->socket = NULL;
    entry->port = NULL;
    ipc_entry_dealloc(task, entry);
    if (right.kind)
        ipc_right_release(task, &right);
    if (request.notify.kind)
        ipc_notify_port_deleted(task, &request.notify, name);
}

/* The last send reference of an entry is gone. */
static void end_send(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_port *port = entry->port;
    if (port)
        ipc_port_hold(port);
    if (entry->type & RECEIVE) {
        entry->urefs = 0;
        entry->type &= ~SEND;
    } else {
        free_entry(task, entry);
    }
    if (port) {
        ipc_notify_check_senders(port);
        ipc_port_release(port);
    }
}

static void destroy_set(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_pset *pset = entry->pset;
    entry->pset = NULL;
    ipc_entry_dealloc(task, entry);
    ipc_pset_destroy(task, pset);
}

kern_return_t ipc_right_dealloc(struct ipc_task *task, struct ipc_entry *entry)
{
    if (entry->type == PORT_SET) {
        destroy_set(task, entry);
        return KERN_SUCCESS;
    }
    if (entry->request.notify.kind)
        ipc_right_check(task, entry); /* else a dead name and a live right give up a reference in the same way */
    if (!(entry->type & (DEAD_NAME | SEND | SEND_ONCE)))
        return KERN_INVALID_RIGHT;
    if (entry->urefs > 1)
        drop_uref(entry);
    else if (entry->type & SEND)
        end_send(task, entry);
    else
        free_entry(task, entry);
    return KERN_SUCCESS;
}

/* NO_SENDERS is due because the name that goes had the last send right: it is told after the port is gone. */
static bool takes_last_sender(struct ipc_entry *entry)
{
    struct ipc_port *port = entry->port;
    bool last;
    if (!(entry->type & SEND) || !port->nsrequest.kind || (port->ns_counted && port->ns_since == port->made))
        return false;
    entry->type &= ~SEND;
    last = !ipc_port_has_senders(port);
    entry->type |= SEND;
    return last;
}

kern_return_t ipc_right_destroy(struct ipc_task *task, struct ipc_entry *entry, bool check_guard)
{
    struct ipc_port *port = entry->type & RECEIVE ? entry->port : NULL;
    struct ipc_right nsrequest = NO_RIGHT;
    struct ipc_request request;
    mach_port_name_t name = entry->name;
    mach_port_mscount_t mscount;
    if (entry->type == PORT_SET) {
        destroy_set(task, entry);
        return KERN_SUCCESS;
    }
    if (entry->request.notify.kind)
        ipc_right_check(task, entry);
    if (!port) {
        if (entry->type & SEND)
            end_send(task, entry);
        else
            free_entry(task, entry);
        return KERN_SUCCESS;
    }
    if (check_guard && port->guarded)
        return KERN_INVALID_RIGHT;
    if (takes_last_sender(entry)) {
        nsrequest = port->nsrequest;
        port->nsrequest = NO_RIGHT;
    }
    mscount = port->mscount;
    request = strip(task, entry);
    entry->port = NULL;
    ipc_entry_dealloc(task, entry);
    ipc_port_destroy(task, port);
    if (nsrequest.kind)
        ipc_notify_no_senders(task, &nsrequest, mscount);
    if (request.notify.kind)
        ipc_notify_port_deleted(task, &request.notify, name);
    return KERN_SUCCESS;
}

void ipc_right_end_receive(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_port *port = entry->port;
    struct ipc_request request;
    if (!(entry->type & SEND)) {
        ipc_right_destroy(task, entry, false);
    } else if (port->pdrequest.kind) {
        /* The port lives on in the notification, and the name keeps its send right to it. */
        entry->type &= ~RECEIVE;
        ipc_port_destroy(task, ipc_port_hold(port));
    } else {
        /* The send right becomes a dead name before anything else comes of it. */
        request = strip(task, entry);
        entry->port = NULL;
        entry->type = DEAD_NAME;
        if (request.notify.kind)
            ipc_right_add_urefs(entry);
        ipc_port_destroy(task, port);
        if (request.notify.kind)
            ipc_notify_dead_name(task, &request.notify, entry->name);
    }
}

static kern_return_t delta_urefs(struct ipc_task *task, struct ipc_entry *entry, mach_port_delta_t delta)
{
    int64_t urefs = (int64_t)entry->urefs + delta;
    if (delta < -MACH_PORT_UREFS_MAX || delta > MACH_PORT_UREFS_MAX)
        return KERN_INVALID_VALUE;
    if (entry->urefs == MACH_PORT_UREFS_MAX) { /* pegged: only all at once can be given up */
        if (delta != -MACH_PORT_UREFS_MAX)
            return KERN_SUCCESS;
    } else if (urefs < 0) {
        return KERN_INVALID_VALUE;
    }
    if (urefs > 0)
        entry->urefs = urefs < MACH_PORT_UREFS_MAX ? (mach_port_urefs_t)urefs : MACH_PORT_UREFS_MAX;
    else if (entry->type & SEND)
        end_send(task, entry);
    else
        free_entry(task, entry);
    return KERN_SUCCESS;
}

kern_return_t ipc_right_delta(struct ipc_task *task, struct ipc_entry *entry, mach_port_right_t right, mach_port_delta_t delta)
{
    ipc_right_check(task, entry);
    if (right > MACH_PORT_RIGHT_DEAD_NAME || !(entry->type & MACH_PORT_TYPE(right)))
        return KERN_INVALID_RIGHT;
    if (right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_DEAD_NAME)
        return delta_urefs(task, entry, delta);
    if (delta != 0 && delta != -1)
        return KERN_INVALID_VALUE;
    if (delta == 0)
        return KERN_SUCCESS;
    if (right == MACH_PORT_RIGHT_PORT_SET) {
        destroy_set(task, entry);
    } else if (right == MACH_PORT_RIGHT_SEND_ONCE) {
        free_entry(task, entry);
    } else if (!entry->port || entry->port->guarded) {
        return KERN_INVALID_RIGHT;
    } else {
        ipc_right_end_receive(task, entry);
    }
    return KERN_SUCCESS;
}

void ipc_right_release(struct ipc_task *task, struct ipc_right *right)
{
    struct ipc_right was = *right;
    *right = NO_RIGHT;
    if (was.kind == KIND_RECEIVE && was.port) {
        ipc_port_destroy(task, was.port);
    } else if (was.kind == KIND_ONCE && (was.port || was.socket)) {
        ipc_notify_send_once(task, &was);
    } else if (was.port) {
        was.port->carried--;
        ipc_notify_check_senders(was.port);
        ipc_port_release(was.port);
    } else if (was.socket) {
        ipc_socket_release(was.socket);
    }
}
