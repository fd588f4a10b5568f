/*
 * A task's messages to ports of its own: they wait in memory, as on Mach, with their rights as they are (ipc_kmsg and
 * imq_messages of osfmk/ipc). Nothing of them is ever a descriptor, unless the receive right leaves the task: ipc_transit.c.
 *
 * They stand in an end of the port like those of any other right, so they have their place in its order. Who polls that end
 * gets an eventfd, made when first needed. All of it: locked.
 */

#include "ipc.h"

#include <sys/eventfd.h>

/* So many messages wait before their senders do; more, where the port's limit is higher. */
#define ROOM 256

struct ipc_end *ipc_local(struct ipc_port *port)
{
    struct ipc_end *end = port->local;
    if (end)
        return end;
    end = ipc_end_new(-1, KIND_SEND);
    if (!end)
        return NULL;
    end->local = end->told = end->stamped = true;
    end->last = &end->first;
    port->local = end;
    if (ipc_port_add_end(port, end) == 0)
        return end;
    port->local = NULL;
    if (end->fd >= 0)
        close(end->fd);
    free(end);
    return NULL;
}

bool ipc_local_has_room(const struct ipc_port *port)
{
    return !port || !port->local || port->local->count < ROOM || port->local->count < port->qlimit;
}

/* The eventfd counts 0: nothing waits; 1: something does; so much that nothing can be added: and there is no room. */
static void light(struct ipc_end *end)
{
    const uint64_t counts[] = {0, 1, UINT64_MAX - 1};
    unsigned lit = end->count == 0 ? 0 : ipc_local_has_room(end->port) ? 1 : 2;
    uint64_t count;
    if (end->fd < 0 || lit == end->lit)
        return;
    if (lit < end->lit && read(end->fd, &count, sizeof count) == sizeof count)
        end->lit = 0;
    count = counts[lit] - counts[end->lit];
    if (count == 0 || write(end->fd, &count, sizeof count) == sizeof count)
        end->lit = lit;
}

int ipc_local_fd(struct ipc_end *end)
{
    if (end->fd < 0) {
        end->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (end->fd < 0)
            return -errno;
        packet_note_fd(end->fd);
        light(end);
    }
    return end->fd;
}

void ipc_hold_rights(struct ipc_task *task, struct ipc_held *held, struct ipc_right *rights, size_t count)
{
    *held = (struct ipc_held){task->held, &task->held, rights, count, NULL};
    if (held->next)
        held->next->place = &held->next;
    task->held = held;
}

void ipc_unhold_rights(struct ipc_held *held)
{
    *held->place = held->next;
    if (held->next)
        held->next->place = held->place;
}

void ipc_local_free(struct ipc_message *message)
{
    ipc_unhold_rights(&message->held);
    free(message);
}

static struct ipc_message *make(struct ipc_task *task, const struct wire_header *header, const struct iovec *parts, int count,
                                const struct ipc_right *rights, size_t nrights)
{
    struct ipc_message *message;
    size_t length = 0, at = 0;
    uid_t saved_user;
    gid_t saved_group;
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    message = malloc(sizeof *message + nrights * sizeof *rights + length);
    if (!message)
        return NULL;
    *message = (struct ipc_message){.header = *header};
    message->length = length;
    ipc_hold_rights(task, &message->held, (struct ipc_right *)(message + 1), nrights);
    message->held.message = message;
    message->body = (char *)(message->held.rights + nrights);
    if (nrights)
        memcpy(message->held.rights, rights, nrights * sizeof *rights);
    for (int i = 0; i < count; at += parts[i++].iov_len)
        if (parts[i].iov_len)
            memcpy(message->body + at, parts[i].iov_base, parts[i].iov_len);
    if (!(header->flags & (WIRE_NOTIFICATION | WIRE_DESTROYED))) { /* those are the kernel's */
        getresuid(&message->ruid, &message->euid, &saved_user);    /* they cannot fail */
        getresgid(&message->rgid, &message->egid, &saved_group);
    }
    return message;
}

int ipc_local_send(struct ipc_task *task, const struct ipc_right *to, const struct wire_header *header,
                   const struct iovec *parts, int count, struct ipc_right *rights, size_t nrights)
{
    struct ipc_port *port = to->port;
    struct ipc_end *end = ipc_local(port);
    struct ipc_message *message;
    if (!end)
        return -ENOMEM;
    if (to->kind == KIND_SEND && !ipc_local_has_room(port)) /* a send-once right always has room for its message */
        return -EAGAIN;
    message = make(task, header, parts, count, rights, nrights);
    if (!message)
        return -ENOMEM;
    for (size_t i = 0; i < nrights; i++)
        if (rights[i].kind == KIND_RECEIVE)
            ipc_port_departed(rights[i].port->id, port->id);
    if (to->kind == KIND_SEND)
        port->carried++; /* it holds the right that it was sent with */
    *end->last = message;
    end->last = &message->next;
    end->count++;
    if (end->unpolled && port->epoll && ipc_end_poll(port, end, true) == 0)
        end->unpolled = false;
    light(end);
    if ((port->watchers || end->unpolled) && port->task)
        ipc_kick(port->task);
    return 0;
}

struct ipc_message *ipc_local_take(struct ipc_end *end)
{
    struct ipc_message *message = end->first;
    struct ipc_held *held;
    if (!message)
        return NULL;
    end->first = message->next;
    if (!end->first)
        end->last = &end->first;
    end->count--;
    light(end);
    if (end->blocked && end->port->task)
        ipc_kick(end->port->task);
    held = &message->held;
    for (size_t i = 0; i < held->count; i++)
        if (held->rights[i].kind == KIND_RECEIVE)
            ipc_port_arrived(held->rights[i].port->id);
    if ((message->header.bits & 0x1f) == KIND_SEND)
        end->port->carried--;
    return message;
}

int ipc_end_peek(const struct ipc_end *end, struct packet_head *into)
{
    const struct ipc_message *message = end->first;
    if (!end->local)
        return packet_peek(end->fd, end->stamped, into);
    if (!message)
        return -EAGAIN;
    into->length = (int64_t)(sizeof message->header + message->length);
    into->stamp = into->before = message->header.sent;
    into->pid = self_pid();
    into->uid = message->ruid;
    into->gid = message->rgid;
    into->header = message->header;
    return 0;
}

int ipc_end_waiting(const struct ipc_end *end) { return end->local ? (int)end->count : packet_waiting(end->fd); }
