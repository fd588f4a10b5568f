/*
 * A message that has come, and its names: the rights put under them, the trailer behind (osfmk/ipc/ipc_kmsg.c,
 * ipc_kmsg_copyout; mach_msg.c, mach_msg_receive_results).
 *
 * Size comes before content: what the receiver did not ask for is destroyed unread. All of it: locked.
 */

#include "incoming.h"

/* Who has sent so many messages to one end will send more: see attested_process. It takes a descriptor. */
#define OFTEN 64

/* -- out ---------------------------------------------------------------------------------------------------------------------------- */

static mach_port_name_t name_of(struct ipc_task *task, struct incoming *in, uint32_t slot)
{
    if (slot == SLOT_NULL || slot == SLOT_DEAD)
        return slot == SLOT_NULL ? MACH_PORT_NULL : MACH_PORT_DEAD;
    return ipc_right_copyout(task, &in->rights[(slot & ~SLOT_FILE) - 1], MACH_PORT_NULL);
}

static void copyout_memory(struct ipc_task *task, struct incoming *in, union ipc_descriptor *d)
{
    uintptr_t slot = (uintptr_t)d->ool.address;
    mach_msg_size_t size = d->ool.size;
    unsigned type = d->ool.type & 0xffu;
    vm_address_t address = 0;
    struct ipc_right *right = slot ? &in->rights[slot - 1] : NULL;
    if (right && right->socket &&
        (memory_sealed_size(right->socket->fd) != size || memory_map(right->socket->fd, size, &address)))
        address = 0;
    if (right)
        ipc_right_release(task, right);
    *d = (union ipc_descriptor){.ool = {.deallocate = 1, .copy = MACH_MSG_VIRTUAL_COPY}};
    d->ool.address = (void *)address;
    d->ool.size = address ? size : 0;
    d->ool.type = type & 0xff;
}

static void copyout_ports(struct ipc_task *task, struct incoming *in, size_t *tail, union ipc_descriptor *d)
{
    uint32_t count = d->ool_ports.count;
    unsigned disposition = d->ool_ports.disposition & 0xffu;
    vm_address_t address = 0;
    *tail -= count * sizeof(uint32_t);
    if (count && vm_allocate(mach_task_self(), &address, count * sizeof(mach_port_name_t), VM_FLAGS_ANYWHERE))
        address = 0; /* the rights are destroyed with the message */
    for (uint32_t i = 0; i < count && address; i++) {
        uint32_t slot;
        memcpy(&slot, in->body + *tail + i * sizeof slot, sizeof slot);
        ((mach_port_name_t *)address)[i] = name_of(task, in, slot);
    }
    *d = (union ipc_descriptor){.ool_ports = {.deallocate = 1, .copy = MACH_MSG_VIRTUAL_COPY}};
    d->ool_ports.address = (void *)address;
    d->ool_ports.count = address ? count : 0;
    d->ool_ports.disposition = disposition & 0xff;
    d->ool_ports.type = MACH_MSG_OOL_PORTS_DESCRIPTOR;
}

/* The receiver is to know that the port is guarded with the address of its buffer (ipc_right_copyout). */
static void copyout_guarded(struct ipc_task *task, struct incoming *in, mach_msg_header_t *msg, mach_msg_option_t option,
                            union ipc_descriptor *d)
{
    uint32_t slot = d->guarded.name;
    struct ipc_port *port = slot == SLOT_NULL || slot == SLOT_DEAD ? NULL : in->rights[(slot & ~SLOT_FILE) - 1].port;
    d->guarded.name = name_of(task, in, slot);
    d->guarded.context = 0;
    if (!(option & MACH_RCV_GUARDED_DESC)) { /* XNU destroys the right then; here its flags are carried, and not enforced */
        d->guarded.flags = d->guarded.flags & MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE;
        return;
    }
    d->guarded.flags = d->guarded.flags & MACH_MSG_GUARD_FLAGS_MASK;
    if (port && d->guarded.flags & MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE && d->guarded.name != MACH_PORT_NULL) {
        port->guarded = port->immovable = true;
        port->strict = false;
        port->context = (uintptr_t)msg;
        d->guarded.context = port->context;
        d->guarded.flags = MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE;
    }
}

static void copyout_descriptor(struct ipc_task *task, struct incoming *in, uint32_t number, size_t *tail,
                               mach_msg_header_t *msg, mach_msg_option_t option)
{
    const char *from = in->body + in->offsets[number];
    size_t size = ipc_descriptor_size((unsigned char)from[11]);
    union ipc_descriptor d;
    memcpy(&d, from, size);
    switch ((unsigned)d.port.type) {
    case MACH_MSG_PORT_DESCRIPTOR:
        d.port.name = name_of(task, in, d.port.name);
        d.port.pad1 = 0;
        break;
    case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
        copyout_guarded(task, in, msg, option, &d);
        break;
    case MACH_MSG_OOL_PORTS_DESCRIPTOR:
        copyout_ports(task, in, tail, &d);
        break;
    default:
        copyout_memory(task, in, &d);
    }
    memcpy((char *)(msg + 1) + in->offsets[number], &d, size);
}

static void write_trailer(char *to, mach_msg_option_t option, uint32_t seqno, uint64_t context, const struct incoming *in)
{
    mach_msg_size_t size = ipc_kmsg_trailer_size(option);
    mach_msg_mac_trailer_t trailer = {.msgh_trailer_size = size,
                                      .msgh_seqno = seqno,
                                      .msgh_sender = in->security,
                                      .msgh_audit = in->token,
                                      .msgh_context = context};
    memcpy(to, &trailer, size);
}

/* The rights get their names: the reply right first, the body from behind, as XNU does. */
static void copyout(struct ipc_task *task, struct incoming *in, mach_msg_header_t *msg, mach_msg_option_t option)
{
    const struct wire_header *header = &in->header;
    size_t tail = in->length;
    mach_port_name_t reply;
    memcpy(msg + 1, in->body, header->size - sizeof *msg);
    reply = name_of(task, in, header->reply);
    for (uint32_t i = in->count; i-- > 0;)
        copyout_descriptor(task, in, i, &tail, msg, option);
    msg->msgh_bits = (header->bits & MACH_MSGH_BITS_COMPLEX) | (header->bits >> 8 & 0x1f) | in->kind << 8;
    msg->msgh_size = header->size;
    msg->msgh_remote_port = reply;
    msg->msgh_voucher_port = MACH_PORT_NULL;
    msg->msgh_id = header->id;
}

/* -- one message ---------------------------------------------------------------------------------------------------------------------- */

/* What MACH_RCV_TOO_LARGE leaves of a message that is destroyed (mach_msg_receive_error). */
static void write_minimal(mach_msg_header_t *msg, mach_msg_size_t size, mach_port_name_t name)
{
    mach_msg_trailer_t trailer = {MACH_MSG_TRAILER_FORMAT_0, sizeof trailer};
    if (size < sizeof *msg)
        return;
    *msg = (mach_msg_header_t){.msgh_size = sizeof *msg, .msgh_local_port = name};
    if (size >= sizeof *msg + sizeof trailer)
        memcpy(msg + 1, &trailer, sizeof trailer);
}

/* With MACH_RCV_LARGE a message that is too large stays where it is. */
static bool stays(struct ipc_end *end, const struct packet_head *head, mach_msg_header_t *msg, mach_msg_option_t option,
                  mach_msg_size_t size)
{
    uint64_t waiting = 0, carried;
    if (head->length && !(head->header.flags & WIRE_DESTROYED)) {
        carried = (uint64_t)head->length - sizeof head->header + sizeof *msg;
        if (head->header.size <= (head->header.flags & WIRE_LARGE ? MAX_MESSAGE_SIZE : carried))
            waiting = head->header.size; /* a lie is found out by receiving it */
    } else if (end->kind == KIND_ONCE || end->told) {
        waiting = sizeof *msg;
    }
    if (!waiting || waiting + ipc_kmsg_trailer_size(option) <= size)
        return false;
    if (size >= offsetof(mach_msg_header_t, msgh_voucher_port)) { /* a smaller buffer is not told */
        msg->msgh_size = (mach_msg_size_t)waiting;
        if (option & MACH_RCV_LARGE_IDENTITY)
            msg->msgh_local_port = end->port->name;
    }
    return true;
}

/* The end has given what it had to give: one message of a send-once right, or of whoever looked the name up of a port whose
   senders take turns. */
static void used(struct ipc_end *end)
{
    end->spoke++;
    if (end->kind == KIND_ONCE || (end->port->turns && end->peer))
        ipc_end_drop(end);
    else
        ipc_mqueue_taken(end);
}

/* Who waits for room in the port's own queue is told. */
static void room_again(struct ipc_task *task, mach_port_name_t name)
{
    struct ipc_entry *entry = ipc_entry_lookup(task, name);
    struct ipc_right to;
    if (!entry || !entry->request.armed || entry->socket)
        return;
    to = entry->request.notify;
    entry->request = (struct ipc_request){0};
    ipc_notify_send_possible(task, &to, name);
}

/* The packet is a message, or the notice of a send-once right, in the caller's buffer; the port's number was counted. */
static mach_msg_return_t finish(struct ipc_task *task, struct ipc_port *port, struct incoming *in, enum verdict verdict,
                                uint32_t seqno, uint64_t context, mach_port_name_t name, mach_msg_header_t *msg,
                                mach_msg_option_t option, mach_msg_size_t size)
{
    if (verdict == A_NOTICE) {
        packet_discard(in->packet);
        in->header = (struct wire_header){.bits = KIND_ONCE, .size = sizeof *msg, .id = MACH_NOTIFY_SEND_ONCE};
        in->token = (audit_token_t){{0}};
        in->security = (security_token_t){{0, 1}};
        in->nrights = 0;
        in->count = 0;
        in->body = in->packet->body;
        in->length = 0;
    }
    if (in->header.size + (uint64_t)ipc_kmsg_trailer_size(option) > size) {
        ipc_notify_check_senders(port);
        ipc_incoming_destroy(task, in);
        write_minimal(msg, size, name);
        return MACH_RCV_TOO_LARGE;
    }
    copyout(task, in, msg, option);
    msg->msgh_local_port = name;
    write_trailer((char *)msg + in->header.size, option, seqno, context, in);
    ipc_incoming_destroy(task, in); /* what found no name */
    return MACH_MSG_SUCCESS;
}

mach_msg_return_t ipc_kmsg_receive(struct ipc_task *task, struct ipc_end *end, mach_msg_header_t *msg, mach_msg_option_t option,
                                   mach_msg_size_t size)
{
    struct incoming in;
    struct packet_head head;
    struct ipc_message *message = NULL;
    struct ipc_port *port = end->port;
    mach_port_name_t name = port->name;
    uint64_t context = port->context;
    enum verdict verdict;
    mach_msg_return_t mr;
    uint32_t seqno;
    bool unread, peeked = false, watched = end->watched;
    int error;
    if (option & MACH_RCV_LARGE) {
        error = ipc_end_peek(end, &head);
        peeked = error == 0;
        if (error == -EAGAIN && !end->queued)
            return error;
        if (peeked && stays(end, &head, msg, option, size))
            return MACH_RCV_TOO_LARGE;
    }
    if (!ipc_task_packet(task))
        return KERN_RESOURCE_SHORTAGE;
    if (end->local)
        error = (message = ipc_local_take(end)) ? 0 : -EAGAIN;
    else
        error = packet_receive(end->fd, task->packet, end->stamped, &end->sender, end->spoke >= OFTEN, peeked ? &head : NULL);
    if (error == -EAGAIN && !end->queued)
        return -EAGAIN;
    if (error == -EAGAIN) {
        ipc_mqueue_taken(end); /* somebody else has read it, who has a copy of the end */
        return -1;
    }
    if (error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS)
        return KERN_RESOURCE_SHORTAGE; /* the message waits until there is room for it */
    if (error) {
        ipc_end_drop(end);
        ipc_notify_check_senders(port);
        return -1;
    }
    ipc_incoming_init(&in, task->packet, message);
    end->late = in.packet->length < end->late ? end->late - (int32_t)in.packet->length : 0;
    verdict = ipc_incoming_judge(end, &in);
    /* Size before content: what is larger than was asked for, and comes in memory, is not even looked at. */
    unread = verdict == A_MESSAGE && in.header.size + (uint64_t)ipc_kmsg_trailer_size(option) > size;
    if (verdict == A_MESSAGE && !(unread && in.header.flags & WIRE_LARGE) && (error = ipc_incoming_parse(task, &in, unread)))
        verdict = error != -EBADMSG ? LOST : in.kind == KIND_ONCE ? A_NOTICE : NO_MESSAGE;
    if (verdict == NO_MESSAGE) {
        /* No task of ours sends this: whoever holds the right loses it, and nobody else notices. */
        packet_discard(in.packet);
        ipc_end_drop(end);
        ipc_notify_check_senders(port);
        return -1;
    }
    seqno = port->seqno++;
    used(end);
    if (verdict == LOST) {
        packet_discard(in.packet);
        return MACH_RCV_BODY_ERROR | MACH_MSG_IPC_KERNEL;
    }
    mr = finish(task, port, &in, verdict, seqno, context, name, msg, option, size);
    packet_discard(in.packet);
    if (!watched) /* else the watcher tells of its end */
        ipc_notify_check_senders(port);
    room_again(task, name);
    return mr;
}
