/*
 * Notifications: who asked, when they are due, and sending them (osfmk/ipc/ipc_notify.c).
 *
 * A notification is a packet like any other, marked as one. A receiver believes the mark only if the system attests that the
 * packet is from its own process: then it bears the kernel's token. SEND_ONCE is sent by whoever gives the right up; of one
 * whose process was killed, the receiver makes it out of the end-of-file. All of it: locked.
 */

#include "ipc.h"

/* NDR_record of a little-endian machine (mach/ndr.h), and one number behind it. */
struct notification {
    unsigned char ndr[8];
    uint32_t number;
};

static int send_packet(struct ipc_task *task, const struct ipc_right *to, struct wire_header *header, const void *body,
                       size_t size, struct ipc_right *right)
{
    struct iovec part = {(void *)(uintptr_t)body, size};
    int memory = -1;
    return ipc_kmsg_deliver(task, to, header, &part, 1, right, right != NULL, &memory);
}

/* The right is spent: nothing is said of it. */
static void spend(struct ipc_right *right)
{
    if (right->port) {
        right->port->onces--;
        ipc_port_release(right->port);
    } else if (right->socket) {
        ipc_socket_release(right->socket);
    }
    *right = NO_RIGHT;
}

void ipc_notify_send_once(struct ipc_task *task, struct ipc_right *right)
{
    struct wire_header header = {.size = sizeof(mach_msg_header_t), .flags = WIRE_DESTROYED};
    /* The end-of-file alone would tell, but not when it was: a packet keeps its place among the messages to the port. */
    send_packet(task, right, &header, NULL, 0, NULL);
    spend(right);
}

static void notify(struct ipc_task *task, struct ipc_right *to, mach_msg_id_t id, uint32_t number)
{
    struct notification body = {{0, 0, 0, 0, 1, 0, 0, 0}, number};
    struct wire_header header = {.size = sizeof(mach_msg_header_t) + sizeof body, .flags = WIRE_NOTIFICATION, .id = id};
    send_packet(task, to, &header, &body, sizeof body, NULL);
    spend(to);
}

void ipc_notify_dead_name(struct ipc_task *task, struct ipc_right *to, mach_port_name_t name)
{
    notify(task, to, MACH_NOTIFY_DEAD_NAME, name);
}

void ipc_notify_port_deleted(struct ipc_task *task, struct ipc_right *to, mach_port_name_t name)
{
    notify(task, to, MACH_NOTIFY_PORT_DELETED, name);
}

void ipc_notify_send_possible(struct ipc_task *task, struct ipc_right *to, mach_port_name_t name)
{
    notify(task, to, MACH_NOTIFY_SEND_POSSIBLE, name);
}

void ipc_notify_no_senders(struct ipc_task *task, struct ipc_right *to, mach_port_mscount_t mscount)
{
    notify(task, to, MACH_NOTIFY_NO_SENDERS, mscount);
}

bool ipc_notify_port_destroyed(struct ipc_task *task, struct ipc_right *to, struct ipc_port *port)
{
    struct {
        uint32_t count;
        mach_msg_port_descriptor_t port;
    } __attribute__((packed)) body = {1, {.name = 1, .disposition = KIND_RECEIVE, .type = MACH_MSG_PORT_DESCRIPTOR}};
    struct wire_header header = {.bits = MACH_MSGH_BITS_COMPLEX,
                                 .size = sizeof(mach_msg_header_t) + sizeof body,
                                 .flags = WIRE_NOTIFICATION,
                                 .id = MACH_NOTIFY_PORT_DESTROYED};
    struct ipc_right right = {KIND_RECEIVE, port, NULL};
    const char *destination = ipc_right_id(to);
    /* It could only come to the port itself, or nobody can get it. */
    if (!destination || ipc_port_is_circular(port->id, destination) ||
        send_packet(task, to, &header, &body, sizeof body, &right))
        return false;
    spend(to);
    return true;
}

void ipc_notify_check_senders(struct ipc_port *port)
{
    struct ipc_right to = port->nsrequest;
    if (!to.kind || !port->alive || !port->task || (port->ns_counted && port->ns_since == port->made) ||
        ipc_port_has_senders(port))
        return;
    if (port->ns_counted && port->ns_since == port->made)
        return; /* no sender has been made since the request */
    port->nsrequest = NO_RIGHT;
    for (struct ipc_end *end = port->ends; end; end = end->next)
        ipc_unwatch_end(end);
    ipc_notify_no_senders(port->task, &to, port->mscount);
}

/* -- asking ----------------------------------------------------------------------------------------------------------------- */

static bool may_be_told(const struct ipc_right *right) { return right->kind != 0; }

static kern_return_t request_name(struct ipc_task *task, mach_port_name_t name, bool possible, bool immediate,
                                  struct ipc_right *right, struct ipc_right *previous)
{
    struct ipc_entry *entry;
    if (name == MACH_PORT_NULL || name == MACH_PORT_DEAD)
        return KERN_INVALID_ARGUMENT;
    entry = ipc_entry_lookup(task, name);
    if (!entry)
        return KERN_INVALID_NAME;
    if (!may_be_told(right) && !entry->request.notify.kind)
        return KERN_SUCCESS;
    if (entry->type & MACH_PORT_TYPE_PORT_RIGHTS && !ipc_right_check(task, entry)) {
        struct ipc_request was = entry->request;
        struct pollfd room = {.fd = entry->socket ? entry->socket->fd : -1, .events = POLLOUT};
        *previous = entry->request.notify;
        ipc_unwatch_entry(task, entry);
        entry->request = (struct ipc_request){0};
        if (possible && immediate && may_be_told(right) &&
            (entry->type & MACH_PORT_TYPE_SEND_ONCE ||
             (entry->socket ? poll_surely(&room, 1) > 0 : ipc_local_has_room(entry->port)))) {
            ipc_notify_send_possible(task, right, name);
            return KERN_SUCCESS;
        }
        entry->request = (struct ipc_request){*right, possible, possible && immediate};
        *right = NO_RIGHT;
        if (!entry->request.notify.kind || ipc_watch_entry(task, entry) >= 0)
            return KERN_SUCCESS;
        *right = entry->request.notify; /* there is no room to watch it: all is as it was */
        entry->request = was;
        *previous = NO_RIGHT;
        return KERN_RESOURCE_SHORTAGE;
    }
    if ((immediate || possible) && may_be_told(right) && entry->type & MACH_PORT_TYPE_DEAD_NAME) {
        ipc_right_add_urefs(entry);
        ipc_notify_dead_name(task, right, name);
        return KERN_SUCCESS;
    }
    return entry->type & MACH_PORT_TYPE_PORT_OR_DEAD ? KERN_INVALID_ARGUMENT : KERN_INVALID_RIGHT;
}

static kern_return_t request_no_senders(struct ipc_port *port, mach_port_mscount_t sync, struct ipc_right *right,
                                        struct ipc_right *previous)
{
    bool senders;
    *previous = port->nsrequest;
    port->nsrequest = NO_RIGHT;
    senders = ipc_port_has_senders(port);
    if (may_be_told(right) && !senders && sync <= port->mscount) {
        ipc_notify_no_senders(port->task, right, port->mscount);
        return KERN_SUCCESS;
    }
    port->nsrequest = *right;
    *right = NO_RIGHT;
    port->ns_counted = !senders;
    port->ns_since = port->made;
    for (struct ipc_end *end = port->ends; end; end = end->next) {
        if (!port->nsrequest.kind)
            ipc_unwatch_end(end);
        else if (ipc_watch_end(end) < 0)
            return KERN_RESOURCE_SHORTAGE;
    }
    return KERN_SUCCESS;
}

static kern_return_t find_receive(struct ipc_task *task, mach_port_name_t name, struct ipc_port **port)
{
    struct ipc_entry *entry = ipc_entry_lookup(task, name);
    if (name == MACH_PORT_NULL || name == MACH_PORT_DEAD)
        return KERN_INVALID_RIGHT;
    if (!entry)
        return KERN_INVALID_NAME;
    *port = entry->port;
    return entry->type & MACH_PORT_TYPE_RECEIVE ? KERN_SUCCESS : KERN_INVALID_RIGHT;
}

static kern_return_t request(struct ipc_task *task, mach_port_name_t name, mach_msg_id_t id, mach_port_mscount_t sync,
                             struct ipc_right *right, struct ipc_right *previous)
{
    struct ipc_port *port;
    kern_return_t kr;
    switch (id) {
    case MACH_NOTIFY_DEAD_NAME:
    case MACH_NOTIFY_SEND_POSSIBLE:
        return request_name(task, name, id == MACH_NOTIFY_SEND_POSSIBLE, sync != 0, right, previous);
    case MACH_NOTIFY_NO_SENDERS:
        kr = find_receive(task, name, &port);
        return kr ? kr : request_no_senders(port, sync, right, previous);
    case MACH_NOTIFY_PORT_DESTROYED:
        if (sync)
            return KERN_INVALID_VALUE;
        kr = find_receive(task, name, &port);
        if (kr || port->pdrequest.kind)
            return kr ? kr : KERN_FAILURE;
        port->pdrequest = *right;
        *right = NO_RIGHT;
        return KERN_SUCCESS;
    default:
        return KERN_INVALID_VALUE;
    }
}

/* The send-once right that a notification goes to. */
static kern_return_t copyin_notify(struct ipc_task *task, mach_port_name_t notify, mach_msg_type_name_t disposition,
                                   struct ipc_right *right)
{
    struct ipc_entry *entry;
    *right = NO_RIGHT;
    if (notify == MACH_PORT_NULL)
        return KERN_SUCCESS;
    if (notify == MACH_PORT_DEAD || ipc_right_kind(disposition) != KIND_ONCE)
        return KERN_INVALID_CAPABILITY;
    entry = ipc_entry_lookup(task, notify);
    if (!entry)
        return KERN_INVALID_NAME;
    return ipc_right_copyin(task, entry, disposition, true, right);
}

kern_return_t mach_port_request_notification(mach_port_t handle, mach_port_name_t name, mach_msg_id_t id,
                                             mach_port_mscount_t sync, mach_port_t notify, mach_msg_type_name_t disposition,
                                             mach_port_t *previous)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_right right, before = NO_RIGHT;
    kern_return_t kr;
    if (!task)
        return KERN_INVALID_TASK;
    *previous = MACH_PORT_NULL;
    kr = copyin_notify(task, notify, disposition, &right);
    if (kr == KERN_SUCCESS)
        kr = request(task, name, id, sync, &right, &before);
    if (right.kind)
        ipc_right_release(task, &right);
    if (kr == KERN_SUCCESS && before.kind) {
        if ((before.port && !before.port->alive) || (before.socket && ipc_socket_hung_up(before.socket))) {
            spend(&before); /* of a dead port there is nothing to return */
            kr = KERN_INVALID_CAPABILITY;
        } else {
            *previous = ipc_right_copyout(task, &before, MACH_PORT_NULL);
        }
    }
    task_leave(task);
    return kr;
}
