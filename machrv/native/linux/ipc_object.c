/*
 * Rights that go out of names and come under names (osfmk/ipc/ipc_right.c, ipc_right_copyin and _copyout; ipc_object.c).
 *
 * Who is believed about which port a right leads to: a socket claims a port by the address of its other end. Two claims are
 * one port only if one process made both sockets, and a right has come home only if its other end is provably one of the
 * port's own. All of this: locked.
 */

#include "ipc.h"

#define SEND MACH_PORT_TYPE_SEND
#define RECEIVE MACH_PORT_TYPE_RECEIVE
#define SEND_ONCE MACH_PORT_TYPE_SEND_ONCE
#define DEAD_NAME MACH_PORT_TYPE_DEAD_NAME

unsigned ipc_right_kind(mach_msg_type_name_t disposition)
{
    switch (disposition) {
    case MACH_MSG_TYPE_MOVE_RECEIVE:
        return KIND_RECEIVE;
    case MACH_MSG_TYPE_MOVE_SEND:
    case MACH_MSG_TYPE_COPY_SEND:
    case MACH_MSG_TYPE_MAKE_SEND:
        return KIND_SEND;
    case MACH_MSG_TYPE_MOVE_SEND_ONCE:
    case MACH_MSG_TYPE_MAKE_SEND_ONCE:
        return KIND_ONCE;
    default:
        return 0;
    }
}

/* -- out of names ----------------------------------------------------------------------------------------------------------- */

/* The name of a right that has left has nothing any more: it is gone, and who asked about it is told. */
static void vacate(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_request request = entry->request;
    mach_port_name_t name = entry->name;
    entry->request = (struct ipc_request){0};
    entry->port = NULL;
    entry->socket = NULL;
    ipc_entry_dealloc(task, entry);
    if (request.notify.kind)
        ipc_notify_port_deleted(task, &request.notify, name);
}

static kern_return_t copyin_receive(struct ipc_task *task, struct ipc_entry *entry, struct ipc_right *right)
{
    struct ipc_port *port = entry->port;
    if (!(entry->type & RECEIVE))
        return KERN_INVALID_RIGHT;
    if (port->immovable)
        return KERN_INVALID_CAPABILITY;
    ipc_port_accept(port); /* who has looked it up has made a right before it moved */
    ipc_port_detach(port);
    *right = (struct ipc_right){KIND_RECEIVE, port, NULL};
    if (entry->type & SEND) {
        ipc_port_hold(port);
        entry->type &= ~RECEIVE;
    } else {
        ipc_unwatch_entry(task, entry);
        vacate(task, entry);
    }
    return KERN_SUCCESS;
}

static void copyin_send(struct ipc_task *task, struct ipc_entry *entry, bool move, struct ipc_right *right)
{
    *right = (struct ipc_right){KIND_SEND, entry->port, entry->socket};
    if (entry->port) {
        ipc_port_hold(entry->port);
        entry->port->carried++;
    } else {
        ipc_socket_hold(entry->socket);
    }
    if (!move)
        return;
    if (entry->urefs > 1) {
        if (entry->urefs < MACH_PORT_UREFS_MAX)
            entry->urefs--;
    } else if (entry->type & RECEIVE) {
        entry->urefs = 0;
        entry->type &= ~SEND;
    } else {
        ipc_unwatch_entry(task, entry);
        ipc_entry_forget(task, entry);
        if (entry->port)
            ipc_port_release(entry->port);
        else
            ipc_socket_release(entry->socket);
        vacate(task, entry);
    }
}

static void copyin_dead(struct ipc_task *task, struct ipc_entry *entry, bool move)
{
    if (move && entry->urefs > 1) {
        if (entry->urefs < MACH_PORT_UREFS_MAX)
            entry->urefs--;
    } else if (move) {
        vacate(task, entry);
    }
}

kern_return_t ipc_right_copyin(struct ipc_task *task, struct ipc_entry *entry, mach_msg_type_name_t disposition, bool dead_ok,
                               struct ipc_right *right)
{
    unsigned kind = ipc_right_kind(disposition);
    *right = NO_RIGHT;
    if (kind == KIND_RECEIVE)
        return copyin_receive(task, entry, right);
    if (disposition == MACH_MSG_TYPE_MAKE_SEND || disposition == MACH_MSG_TYPE_MAKE_SEND_ONCE) {
        if (!(entry->type & RECEIVE))
            return KERN_INVALID_RIGHT;
        *right = (struct ipc_right){kind, ipc_port_hold(entry->port), NULL};
        if (kind == KIND_SEND) {
            ipc_port_count_made(entry->port);
            entry->port->carried++;
        } else {
            entry->port->onces++;
        }
        return KERN_SUCCESS;
    }
    if (!kind)
        return KERN_INVALID_RIGHT;
    if (dead_ok && entry->type & (SEND | SEND_ONCE))
        ipc_right_check(task, entry);
    if (entry->type & DEAD_NAME) {
        if (!dead_ok)
            return KERN_INVALID_RIGHT;
        right->kind = kind;
        copyin_dead(task, entry, disposition != MACH_MSG_TYPE_COPY_SEND);
        return KERN_SUCCESS;
    }
    if (kind == KIND_ONCE) {
        if (!(entry->type & SEND_ONCE))
            return KERN_INVALID_RIGHT;
        ipc_unwatch_entry(task, entry);
        *right = (struct ipc_right){KIND_ONCE, entry->port, entry->socket};
        vacate(task, entry);
        return KERN_SUCCESS;
    }
    if (!(entry->type & SEND))
        return KERN_INVALID_RIGHT;
    copyin_send(task, entry, disposition == MACH_MSG_TYPE_MOVE_SEND, right);
    return KERN_SUCCESS;
}

/* -- under names --------------------------------------------------------------------------------------------------------------- */

/* The name of a port of this task; of one that is on its way, the name of its send right. */
static struct ipc_entry *entry_of(struct ipc_task *task, const struct ipc_port *port)
{
    struct ipc_entry *entry = ipc_entry_lookup(task, port->name);
    return entry && entry->port == port && entry->type & (RECEIVE | SEND) ? entry : NULL;
}

/* Which process made the other end of a socket; 0: nobody knows. */
static uint64_t maker(struct ipc_socket *socket)
{
    if (!socket->maker_known) {
        socket->maker = socket_maker(socket->fd);
        socket->maker_known = true;
    }
    return socket->maker;
}

struct ipc_entry *ipc_right_reverse(struct ipc_task *task, const struct ipc_right *right)
{
    struct ipc_port *port = right->port;
    struct ipc_entry *entry;
    if (port && (entry = entry_of(task, port)))
        return entry;
    if (port) {
        for (entry = task->by_id[id_hash(port->id)]; entry; entry = entry->same_hash)
            if (memcmp(entry->socket->id, port->id, PORT_ID) == 0 && ipc_port_has_end(port, entry->socket) &&
                !ipc_socket_hung_up(entry->socket))
                return entry;
        return NULL;
    }
    if (!right->socket || right->socket->file || !right->socket->named)
        return NULL;
    port = ipc_port_find(task, right->socket->id);
    if (port && ipc_port_has_end(port, right->socket) && (entry = entry_of(task, port)))
        return entry;
    for (entry = task->by_id[id_hash(right->socket->id)]; entry; entry = entry->same_hash)
        if (memcmp(entry->socket->id, right->socket->id, PORT_ID) == 0) {
            uint64_t made_by = maker(right->socket);
            if (made_by && made_by == maker(entry->socket))
                return entry;
        }
    return NULL;
}

/* A receive right comes under the name of its send rights, or under a fresh one. */
static void enter_receive(struct ipc_task *task, struct ipc_entry *entry, struct ipc_port *port)
{
    ipc_unwatch_entry(task, entry); /* its death is seen here from now on */
    ipc_entry_forget(task, entry);
    if (entry->socket) { /* what was sent through it waits in the port's end; there it is a count now */
        ipc_port_take_home(port, entry->socket);
        entry->socket = NULL;
    } else if (entry->port) {
        ipc_port_release(port);
    }
    entry->port = port;
    entry->type |= RECEIVE;
    ipc_port_enter(port, task, entry->name);
}

/* One more send reference where there is a right to the port already; the arrived one is used up. */
static void merge_send(struct ipc_entry *entry, struct ipc_right *right)
{
    entry->type |= SEND;
    ipc_right_add_urefs(entry);
    if (right->port) {
        right->port->carried--;
        ipc_port_release(right->port);
    } else {
        if (entry->type & RECEIVE)
            ipc_port_take_home(entry->port, right->socket);
        else
            ipc_socket_release(right->socket);
    }
}

mach_port_name_t ipc_right_copyout(struct ipc_task *task, struct ipc_right *right, mach_port_name_t name)
{
    struct ipc_entry *entry = NULL;
    bool held;
    if (!right->kind || ipc_right_is_dead(right) || (right->port && !right->port->alive && right->kind != KIND_RECEIVE)) {
        unsigned kind = right->kind;
        ipc_right_release(task, right);
        return kind ? MACH_PORT_DEAD : MACH_PORT_NULL;
    }
    if (right->kind != KIND_ONCE)
        entry = ipc_right_reverse(task, right);
    held = entry != NULL;
    if (!held && name != MACH_PORT_NULL && ipc_entry_alloc_name(task, name, &entry) == KERN_SUCCESS && entry->type)
        entry = NULL; /* it is in use by now */
    if (!held && !entry && !(entry = ipc_entry_alloc(task))) {
        ipc_right_release(task, right);
        return MACH_PORT_NULL;
    }
    if (right->kind == KIND_RECEIVE) {
        enter_receive(task, entry, right->port);
    } else if (held) {
        merge_send(entry, right);
    } else {
        entry->type = right->kind == KIND_SEND ? SEND : SEND_ONCE;
        entry->urefs = 1;
        entry->port = right->port;
        entry->socket = right->socket;
        if (right->kind == KIND_SEND && right->port) {
            right->port->carried--;
            right->port->name = entry->name;
        }
        ipc_entry_remember(task, entry);
    }
    *right = NO_RIGHT;
    return entry->name;
}
