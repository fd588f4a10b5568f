/*
 * Sending: a message whose rights are copied in goes into a socket, waits for room, or comes back (osfmk/ipc/ipc_kmsg.c,
 * ipc_kmsg_send; mach_msg.c).
 *
 * What must never happen here: a wait with the lock held.
 */

#include "copyin.h"

/* -- out -------------------------------------------------------------------------------------------------------------------- */

static int put(struct ipc_kmsg *kmsg)
{
    struct wire_header header = {.bits = (kmsg->bits & MACH_MSGH_BITS_COMPLEX) | kmsg->reply_kind << 8,
                                 .size = (uint32_t)kmsg->size,
                                 .reply = kmsg->reply_slot,
                                 .id = kmsg->id};
    const size_t head = sizeof(mach_msg_header_t) + kmsg->area;
    struct iovec parts[3] = {{kmsg->image, kmsg->area},
                             {(char *)kmsg->user + head, kmsg->size - head},
                             {kmsg->tail, kmsg->ntail * sizeof *kmsg->tail}};
    const int first = kmsg->area == 0, last = kmsg->ntail ? 3 : 2;
    return ipc_kmsg_deliver(kmsg->task, &kmsg->dest, &header, parts + first, last - first, kmsg->rights, kmsg->nrights,
                            &kmsg->body_memory);
}

/* The message has gone, and the right that it was sent with. */
static void sent(struct ipc_kmsg *kmsg)
{
    if (kmsg->dest.port) {
        if (kmsg->dest.kind == KIND_ONCE)
            kmsg->dest.port->onces--;
        else
            kmsg->dest.port->carried--;
        ipc_port_release(kmsg->dest.port);
    } else {
        ipc_socket_release(kmsg->dest.socket);
    }
    kmsg->dest = NO_RIGHT;
}

/* Out-of-line memory that the sender gave away. */
static void deallocate(const struct ipc_kmsg *kmsg)
{
    const char *message = (const char *)kmsg->user;
    size_t offset = sizeof(mach_msg_base_t);
    for (uint32_t i = 0; i < kmsg->taken; i++) {
        union ipc_descriptor d;
        size_t size = ipc_descriptor_size((unsigned char)message[offset + 11]), length;
        memcpy(&d, message + offset, size);
        offset += size;
        if (d.port.type == MACH_MSG_PORT_DESCRIPTOR || d.port.type == MACH_MSG_GUARDED_PORT_DESCRIPTOR || !d.ool.deallocate)
            continue;
        length = d.port.type == MACH_MSG_OOL_PORTS_DESCRIPTOR ? d.ool_ports.count * sizeof(mach_port_name_t) : d.ool.size;
        vm_deallocate(mach_task_self(), (vm_address_t)d.ool.address, length);
    }
}

/* -- back --------------------------------------------------------------------------------------------------------------------- */

/* A right that was made for the message is unmade: nobody shall be told that it was not used. */
static bool unmake(struct ipc_kmsg *kmsg, struct ipc_right *right)
{
    struct ipc_port *port = right->port;
    if (!port && right->socket && right->socket->ours && right->socket->named) {
        port = ipc_port_find(kmsg->task, right->socket->id);
        if (!port || !ipc_port_drop_end_of(port, right->socket))
            return false;
        ipc_socket_release(right->socket);
    } else if (port && port->task) {
        if (right->kind == KIND_ONCE)
            port->onces--;
        else
            port->carried--;
        ipc_port_release(port);
    } else {
        return false;
    }
    if (right->kind == KIND_SEND) {
        port->mscount--;
        port->made--;
    }
    *right = NO_RIGHT;
    return true;
}

/* The name of a right that comes back: its old one, where that is free. What was to be made goes on being to be made. */
static mach_port_name_t give_back(struct ipc_kmsg *kmsg, uint32_t slot, mach_port_name_t old, unsigned *disposition,
                                  unsigned was)
{
    if ((was == MACH_MSG_TYPE_MAKE_SEND_ONCE || was == MACH_MSG_TYPE_MAKE_SEND) && slot != SLOT_NULL && slot != SLOT_DEAD &&
        unmake(kmsg, &kmsg->rights[(slot & ~SLOT_FILE) - 1])) {
        *disposition = was;
        return old;
    }
    if (slot == SLOT_NULL || slot == SLOT_DEAD)
        return slot == SLOT_NULL ? MACH_PORT_NULL : MACH_PORT_DEAD;
    return ipc_right_copyout(kmsg->task, &kmsg->rights[(slot & ~SLOT_FILE) - 1], old);
}

/* The old names are the caller's, who still has them; the new ones are in memory of their own, as a receiver gets them. */
static void give_back_ports(struct ipc_kmsg *kmsg, size_t first, const union ipc_descriptor *was, union ipc_descriptor *d)
{
    uint32_t count = d->ool_ports.count;
    unsigned disposition = d->ool_ports.disposition & 0xffu;
    vm_address_t address = 0;
    mach_port_name_t *names;
    if (count == 0 || vm_allocate(mach_task_self(), &address, count * sizeof *names, VM_FLAGS_ANYWHERE)) {
        for (uint32_t i = 0; i < count; i++)
            give_back(kmsg, kmsg->tail[first + i], MACH_PORT_NULL, &disposition, 0);
        d->ool_ports.address = was->ool_ports.address;
        return;
    }
    names = (mach_port_name_t *)address;
    for (uint32_t i = 0; i < count; i++) {
        mach_port_name_t old = MACH_PORT_NULL;
        memory_read(&old, (vm_address_t)was->ool_ports.address + i * sizeof old, sizeof old);
        names[i] = give_back(kmsg, kmsg->tail[first + i], old, &disposition, was->ool_ports.disposition);
    }
    d->ool_ports.address = names;
    d->ool_ports.disposition = disposition & 0xff;
}

static bool moves_receive(const union ipc_descriptor *d)
{
    return (d->port.type == MACH_MSG_PORT_DESCRIPTOR && d->port.disposition == MACH_MSG_TYPE_MOVE_RECEIVE) ||
           d->port.type == MACH_MSG_GUARDED_PORT_DESCRIPTOR;
}

/* Receive rights come first, since other rights of the message may be rights to them: from here on there are names in place of
   their slots. */
static void give_back_receive(struct ipc_kmsg *kmsg)
{
    size_t offset = sizeof(mach_msg_body_t);
    for (uint32_t i = 0; i < kmsg->count; i++) {
        union ipc_descriptor d, was;
        size_t size = ipc_descriptor_size((unsigned char)kmsg->image[offset + 11]);
        memcpy(&d, kmsg->image + offset, size);
        memcpy(&was, (char *)kmsg->user + sizeof(mach_msg_header_t) + offset, size);
        if (moves_receive(&was)) {
            bool guarded = d.port.type == MACH_MSG_GUARDED_PORT_DESCRIPTOR;
            uint32_t slot = guarded ? d.guarded.name : d.port.name;
            struct ipc_right *right = slot == SLOT_NULL || slot == SLOT_DEAD ? NULL : &kmsg->rights[slot - 1];
            struct ipc_port *port = right ? right->port : NULL;
            mach_port_name_t *name = guarded ? &d.guarded.name : &d.port.name;
            if (port) {
                *name = ipc_right_copyout(kmsg->task, right, guarded ? was.guarded.name : was.port.name);
                ipc_port_restore(port);
            }
            memcpy(kmsg->image + offset, &d, size);
        }
        offset += size;
    }
}

/*
 * The message goes back into the caller's buffer as if it were received (ipc_kmsg_copyout_pseudo): copies and made rights are
 * references that the caller did not have before. Memory stays where it was.
 */
static void pseudo_receive(struct ipc_kmsg *kmsg)
{
    char *message = (char *)kmsg->user;
    size_t offset = sizeof(mach_msg_body_t), names = 0;
    unsigned made = kmsg->bits & MACH_MSGH_BITS_REMOTE_MASK, remote_kind = kmsg->dest.kind, reply_kind = kmsg->reply_kind;
    if (ipc_kmsg_is_plain(kmsg)) { /* nothing was taken */
        ipc_right_release(kmsg->task, &kmsg->dest);
        return;
    }
    give_back_receive(kmsg);
    for (uint32_t i = 0; i < kmsg->count; i++) {
        union ipc_descriptor d, was;
        size_t size = ipc_descriptor_size((unsigned char)kmsg->image[offset + 11]);
        char *place = message + sizeof(mach_msg_header_t) + offset;
        memcpy(&d, kmsg->image + offset, size);
        memcpy(&was, place, size);
        offset += size;
        if (moves_receive(&was)) {
            ; /* it has its name */
        } else if (d.port.type == MACH_MSG_PORT_DESCRIPTOR) {
            unsigned disposition = d.port.disposition & 0xffu;
            d.port.name = give_back(kmsg, d.port.name, was.port.name, &disposition, was.port.disposition);
            d.port.disposition = disposition & 0xff;
        } else if (d.port.type == MACH_MSG_OOL_PORTS_DESCRIPTOR) {
            give_back_ports(kmsg, names, &was, &d);
            names += d.ool_ports.count;
        } else {
            if (d.ool.address)
                ipc_right_release(kmsg->task, &kmsg->rights[(size_t)(uintptr_t)d.ool.address - 1]);
            d = was;
        }
        memcpy(place, &d, size);
    }
    kmsg->user->msgh_local_port =
        give_back(kmsg, kmsg->reply_slot, kmsg->local, &reply_kind, (kmsg->bits & MACH_MSGH_BITS_LOCAL_MASK) >> 8);
    if (!(made == MACH_MSG_TYPE_MAKE_SEND || made == MACH_MSG_TYPE_MAKE_SEND_ONCE) || !unmake(kmsg, &kmsg->dest))
        kmsg->user->msgh_remote_port = ipc_right_copyout(kmsg->task, &kmsg->dest, kmsg->remote);
    else
        remote_kind = made;
    kmsg->user->msgh_bits = (kmsg->bits & MACH_MSGH_BITS_COMPLEX) | reply_kind << 8 | remote_kind;
}

/* The rights are destroyed, one after the other: destination, reply, body (ipc_kmsg_clean). `whole`: the message had been
   made; then what waits on ports in it is destroyed last (ipc_kmsg_destroy). */
static void destroy(struct ipc_kmsg *kmsg, bool whole)
{
    struct ipc_task *task = kmsg->task;
    if (whole) {
        ipc_kmsg_doom(task, &kmsg->dest, 1);
        ipc_kmsg_doom(task, kmsg->rights, (unsigned)kmsg->nrights);
        ipc_kmsg_reap(task);
        return;
    }
    ipc_right_release(task, &kmsg->dest);
    for (size_t i = 0; i < kmsg->nrights; i++)
        ipc_right_release(task, &kmsg->rights[i]);
}

/* -- the whole ------------------------------------------------------------------------------------------------------------------ */

static mach_msg_return_t failed(int error) { return error == -EMSGSIZE ? MACH_SEND_TOO_LARGE : MACH_SEND_NO_BUFFER; }

/* Whoever asked for SEND_POSSIBLE is told as soon as there is room again. */
static void arm(struct ipc_kmsg *kmsg)
{
    struct ipc_entry *entry = ipc_entry_lookup(kmsg->task, kmsg->remote);
    if (!entry || !entry->request.possible)
        return;
    entry->request.armed = true;
    ipc_watch_entry(kmsg->task, entry);
}

/* As ipc_wait(). What the rights lead to may move away meanwhile, and they follow. */
static int wait_for_room(struct ipc_kmsg *kmsg, int64_t deadline)
{
    struct ipc_end *local = kmsg->dest.port ? kmsg->dest.port->local : NULL;
    struct ipc_socket *socket = local ? NULL : ipc_socket_hold(kmsg->dest.socket);
    struct ipc_held dest, rights;
    int ready;
    ipc_hold_rights(kmsg->task, &dest, &kmsg->dest, 1);
    ipc_hold_rights(kmsg->task, &rights, kmsg->rights, kmsg->nrights);
    if (local) {
        local->blocked++;
        local->pins++;
    }
    ready = ipc_wait(kmsg->task, local ? -1 : socket->fd, POLLOUT, deadline); /* of room here the watcher tells */
    if (local) {
        local->blocked--;
        ipc_end_unpin(local);
    } else {
        ipc_socket_release(socket);
    }
    ipc_unhold_rights(&rights);
    ipc_unhold_rights(&dest);
    return ready;
}

/* Waits for room, and puts; what the message was waiting for may be gone meanwhile. */
static int put_patiently(struct ipc_kmsg *kmsg, mach_msg_option_t option, mach_msg_timeout_t timeout, bool *waited)
{
    int64_t deadline = option & MACH_SEND_TIMEOUT ? now_monotonic() + (int64_t)timeout * 1000000 : 0;
    int error = put(kmsg);
    if (error == -EAGAIN && option & MACH_SEND_NOTIFY)
        arm(kmsg);
    while (error == -EAGAIN && !(option & MACH_SEND_TIMEOUT && timeout == 0)) {
        int ready = wait_for_room(kmsg, deadline);
        *waited = true;
        if (ready == -EINTR && option & MACH_SEND_INTERRUPT)
            return -EINTR;
        if (ready < 0 && ready != -EINTR)
            return ready;
        error = put(kmsg);
        if (ready == 0)
            break;
    }
    return error;
}

static mach_msg_return_t settle(struct ipc_kmsg *kmsg, int error, bool waited)
{
    struct ipc_entry *entry;
    switch (error) {
    case 0:
        sent(kmsg);
        return MACH_MSG_SUCCESS;
    case -EAGAIN:
    case -EINTR:
        pseudo_receive(kmsg);
        return error == -EINTR ? MACH_SEND_INTERRUPTED : MACH_SEND_TIMED_OUT;
    case -EPIPE:
    case -ECONNRESET:
    case -ENOTCONN:
    case -ECONNREFUSED:
        if (ipc_kmsg_is_plain(kmsg)) {
            entry = ipc_entry_lookup(kmsg->task, kmsg->remote);
            if (entry && entry->socket && entry->socket == kmsg->dest.socket)
                ipc_right_bury(kmsg->task, entry);
            ipc_right_release(kmsg->task, &kmsg->dest);
            return MACH_SEND_INVALID_DEST;
        }
        if (waited) { /* its queue was destroyed while the message waited for room in it */
            pseudo_receive(kmsg);
            return MACH_SEND_INVALID_DEST;
        }
        destroy(kmsg, true);
        return MACH_MSG_SUCCESS; /* the port has died: as if just after the message had been sent */
    default:
        pseudo_receive(kmsg);
        return failed(error);
    }
}

static mach_msg_return_t put_or_give_back(struct ipc_kmsg *kmsg, mach_msg_option_t option, mach_msg_timeout_t timeout)
{
    bool waited = false;
    int error = put_patiently(kmsg, option, timeout, &waited);
    return settle(kmsg, error, waited);
}

mach_msg_return_t ipc_kmsg_send(struct ipc_task *task, mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t size,
                                mach_msg_timeout_t timeout)
{
    struct ipc_kmsg kmsg;
    mach_msg_return_t mr;
    int error;
    if (size < sizeof *msg || size & 3)
        return MACH_SEND_MSG_TOO_SMALL;
    if (size > MAX_MESSAGE_SIZE)
        return MACH_SEND_TOO_LARGE;
    ipc_kmsg_init(&kmsg, task, msg, size);
    if (kmsg.bits & MACH_MSGH_BITS_COMPLEX && size < sizeof(mach_msg_base_t))
        return MACH_SEND_MSG_TOO_SMALL;
    error = ipc_kmsg_prepare(&kmsg);
    if (error) {
        ipc_kmsg_free(&kmsg);
        return failed(error);
    }
    pthread_mutex_lock(&task->lock);
    mr = ipc_kmsg_copyin_header(&kmsg);
    if (mr == MACH_MSG_SUCCESS) {
        mr = ipc_kmsg_copyin_body(&kmsg);
        if (mr != MACH_MSG_SUCCESS || kmsg.circular)
            destroy(&kmsg, mr == MACH_MSG_SUCCESS);
        else if ((mr = put_or_give_back(&kmsg, option, timeout)) != MACH_MSG_SUCCESS)
            kmsg.taken = 0; /* it came back, and its memory has never left */
    }
    pthread_mutex_unlock(&task->lock);
    closing_pause();
    if (kmsg.taken)
        deallocate(&kmsg);
    ipc_kmsg_free(&kmsg);
    return mr;
}
