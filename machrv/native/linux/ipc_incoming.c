/*
 * A packet on its way in: who sent it, and what it brings.
 *
 * The only place where what came from a socket is taken apart. What must never happen here: belief in anything that is not
 * checked; an identity that the system did not attest; choosing or waiting. All of it: locked.
 */

#include "incoming.h"

#define MAX_TAIL (MACH_PORT_UREFS_MAX / 4 * sizeof(uint32_t))

/* -- who ---------------------------------------------------------------------------------------------------------------------- */

static bool system_attests_processes(void)
{
    static atomic_int known;
    if (!known) {
        int value, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        socklen_t size = sizeof value;
        if (fd < 0)
            return true;
        known = getsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &value, &size) == 0 ? 1 : -1;
        close(fd);
    }
    return known > 0 && HAVE(PASSPIDFD);
}

/*
 * Whether the system attests who sent a packet. It must have brought its process, where the system has that to give; of a
 * sender that has been waited for some kernels tell only that it is gone (packet.c), and then it is nobody's in particular.
 */
static bool attest(struct incoming *in)
{
    const struct sender *sender = &in->packet->sender;
    uint64_t process = sender->process;
    uint32_t uid, gid;
    if (sender->pid <= 0)
        return false;
    in->own = sender->pid == self_pid() && !sender->reaped && (!sender->pinned || process == self_process());
    if (!sender->pinned && !sender->reaped && system_attests_processes())
        return false;
    if (in->own) {
        self_token(in->header.space, geteuid(), getegid(), sender->uid, sender->gid, &in->token);
    } else {
        if (!sender->pinned && !sender->reaped) /* before 6.5 nothing pins the sender */
            process = machrv_process(sender->pid, -1);
        uid = sender->ids ? sender->euid : sender->uid;
        gid = sender->ids ? sender->egid : sender->gid;
        in->token = (audit_token_t){
            {UINT32_MAX, uid, gid, sender->uid, sender->gid, (uint32_t)sender->pid, in->header.space, (uint32_t)process}};
    }
    return true;
}

static void sign(struct incoming *in)
{
    if (in->own && in->header.flags & WIRE_NOTIFICATION) {
        in->token = (audit_token_t){{0}};
        in->security = (security_token_t){{0, 1}}; /* KERNEL_SECURITY_TOKEN_VALUE */
        return;
    }
    in->security = (security_token_t){{in->token.val[1], in->token.val[2]}};
}

/* -- reading -------------------------------------------------------------------------------------------------------------------- */

/* The body of a packet that travelled in a memfd, its last descriptor. */
static bool map_body(struct incoming *in)
{
    struct packet *packet = in->packet;
    int fd = packet->nfds > 0 ? packet->fds[packet->nfds - 1] : -1;
    int64_t size = fd >= 0 ? memory_sealed_size(fd) : -1;
    vm_address_t address = 0;
    const size_t said = in->header.size - sizeof(mach_msg_header_t);
    if (size <= 0 || (uint64_t)size < said || (uint64_t)size > said + MAX_TAIL || memory_map(fd, (size_t)size, &address))
        return false;
    packet->nfds--;
    close(fd); /* it is a sealed memfd: that waits for nobody */
    in->mapping = (void *)address;
    in->body = in->mapping;
    in->length = (size_t)size;
    return true;
}

/* What a slot says: its descriptor is used once, and what for. */
static bool use_slot(const struct incoming *in, uint32_t slot, unsigned kind, uint8_t kinds[], bool files[])
{
    uint32_t number = slot & ~SLOT_FILE;
    if (slot == SLOT_NULL || slot == SLOT_DEAD)
        return true;
    if (number == 0 || number > (uint32_t)in->slots || kinds[number - 1] || !kind)
        return false;
    kinds[number - 1] = (uint8_t)kind;
    files[number - 1] = slot & SLOT_FILE;
    return true;
}

static unsigned right_kind(unsigned disposition)
{
    return disposition == KIND_RECEIVE || disposition == KIND_SEND || disposition == KIND_ONCE ? disposition : 0;
}

static bool read_descriptor(const struct incoming *in, const union ipc_descriptor *d, size_t *tail, uint8_t kinds[],
                            bool files[])
{
    switch ((unsigned)d->port.type) {
    case MACH_MSG_PORT_DESCRIPTOR:
        return use_slot(in, d->port.name, right_kind(d->port.disposition), kinds, files);
    case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
        return use_slot(in, d->guarded.name, d->guarded.disposition == KIND_RECEIVE ? KIND_RECEIVE : 0, kinds, files);
    case MACH_MSG_OOL_DESCRIPTOR:
    case MACH_MSG_OOL_VOLATILE_DESCRIPTOR: {
        uintptr_t slot = (uintptr_t)d->ool.address;
        return slot <= MACHRV_MAX_FDS && (slot == 0) == (d->ool.size == 0) &&
               use_slot(in, (uint32_t)slot, KIND_MEMORY, kinds, files);
    }
    case MACH_MSG_OOL_PORTS_DESCRIPTOR: {
        size_t bytes = (size_t)d->ool_ports.count * sizeof(uint32_t);
        if (bytes > in->length - *tail)
            return false;
        for (uint32_t i = 0; i < d->ool_ports.count; i++) {
            uint32_t slot;
            memcpy(&slot, in->body + *tail + i * sizeof slot, sizeof slot);
            if (!use_slot(in, slot, right_kind(d->ool_ports.disposition), kinds, files))
                return false;
        }
        *tail += bytes;
        return true;
    }
    default:
        return false;
    }
}

/* Finds the descriptors of a complex message: every slot is used exactly once, and nothing is left over. */
static int read_body(struct incoming *in, uint8_t kinds[], bool files[])
{
    const size_t end = in->header.size - sizeof(mach_msg_header_t);
    size_t offset = sizeof(mach_msg_body_t), tail = end;
    if (in->header.bits & MACH_MSGH_BITS_COMPLEX) {
        if (end < sizeof(mach_msg_body_t))
            return -EBADMSG;
        memcpy(&in->count, in->body, sizeof in->count);
        if (in->count > end / sizeof(mach_msg_port_descriptor_t))
            return -EBADMSG;
        in->offsets = in->count <= FEW_DESCRIPTORS ? in->few : malloc(in->count * sizeof *in->offsets);
        if (!in->offsets)
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < in->count; i++) {
        union ipc_descriptor d;
        size_t size;
        if (offset + sizeof d.port > end || offset + (size = ipc_descriptor_size((unsigned char)in->body[offset + 11])) > end)
            return -EBADMSG;
        memcpy(&d, in->body + offset, size);
        in->offsets[i] = (uint32_t)offset;
        offset += size;
        if (!read_descriptor(in, &d, &tail, kinds, files))
            return -EBADMSG;
    }
    for (int i = 0; i < in->slots; i++)
        if (!kinds[i])
            return -EBADMSG;
    return tail == in->length ? 0 : -EBADMSG;
}

/* Turns the descriptors of a packet into rights. A negative errno: it is malformed, or there is no room; what it brought is
   for the caller to destroy. `unread`: it is to be destroyed anyway, so receive rights of strangers are not looked into. */
static int take_rights(struct ipc_task *task, struct incoming *in, const uint8_t kinds[], const bool files[], bool unread)
{
    struct packet *packet = in->packet;
    struct pollfd state[MACHRV_MAX_FDS];
    int error = 0, count = packet->nfds;
    /* Of files and memory nothing is asked that could wait; nor of what only says that it is a right: a poll of a file can. */
    for (int i = 0; i < count && !error; i++) {
        bool right = kinds[i] != KIND_MEMORY && !files[i];
        state[i] = (struct pollfd){.fd = right ? packet->fds[i] : -1};
        error = right && !ipc_transit_is_right(packet->fds[i]) ? -EBADMSG : 0;
    }
    if (count > 0 && !error)
        poll_surely(state, (size_t)count);
    for (int i = 0; i < count && !error; i++) {
        int fd = packet->fds[i];
        packet->fds[i] = -1;
        in->rights[i] = NO_RIGHT;
        in->nrights = i + 1;
        if (unread && kinds[i] == KIND_RECEIVE && !in->own)
            close_later(fd);
        else
            error = ipc_transit_arrived(task, fd, kinds[i], files[i], state[i].revents & (POLLHUP | POLLERR | POLLNVAL),
                                        in->own, &in->rights[i]);
    }
    packet_discard(packet);
    return error;
}

/* Sockets that waited in a message whose ports have died meanwhile. */
static void bury_rights(struct incoming *in)
{
    struct pollfd state[MACHRV_MAX_FDS];
    int sockets = 0;
    for (int i = 0; i < in->nrights; i++) {
        const struct ipc_socket *socket = in->rights[i].kind == KIND_MEMORY ? NULL : in->rights[i].socket;
        state[i] = (struct pollfd){.fd = socket && !socket->file ? socket->fd : -1};
        sockets += state[i].fd >= 0;
    }
    if (sockets == 0 || poll_surely(state, (size_t)in->nrights) <= 0)
        return;
    for (int i = 0; i < in->nrights; i++)
        if (state[i].revents & (POLLHUP | POLLERR | POLLNVAL)) {
            ipc_socket_release(in->rights[i].socket);
            in->rights[i].socket = NULL;
        }
}

void ipc_incoming_forget(struct incoming *in)
{
    if (in->mapping)
        vm_deallocate(mach_task_self(), (vm_address_t)in->mapping, in->length);
    if (in->offsets != in->few)
        free(in->offsets);
    if (in->message)
        ipc_local_free(in->message);
    in->message = NULL;
    in->mapping = NULL;
    in->offsets = NULL;
}

void ipc_incoming_destroy(struct ipc_task *task, struct incoming *in)
{
    ipc_kmsg_doom(task, in->rights, (unsigned)in->nrights);
    ipc_kmsg_reap(task);
    in->nrights = 0;
    ipc_incoming_forget(in);
}

int ipc_incoming_parse(struct ipc_task *task, struct incoming *in, bool unread)
{
    const struct wire_header *header = &in->header;
    uint8_t kinds[MACHRV_MAX_FDS] = {0};
    bool files[MACHRV_MAX_FDS] = {0};
    unsigned reply_kind = header->bits >> 8 & 0x1f;
    int error = -EBADMSG;
    if (header->size < sizeof(mach_msg_header_t) || header->size & 3 || header->size > MAX_MESSAGE_SIZE ||
        (header->bits & 0x1f) != in->kind || (reply_kind && reply_kind != KIND_SEND && reply_kind != KIND_ONCE))
        goto refused;
    if (in->message) {
        in->body = in->message->body;
        in->length = in->message->length;
    } else if (header->flags & WIRE_LARGE) {
        if (!map_body(in))
            goto refused;
    } else {
        in->body = in->packet->body;
        in->length = (size_t)in->packet->length - sizeof *header;
    }
    in->slots = in->message ? in->nrights : in->packet->nfds;
    if (in->length < header->size - sizeof(mach_msg_header_t) || !use_slot(in, header->reply, reply_kind, kinds, files) ||
        (error = read_body(in, kinds, files)))
        goto refused;
    if (in->message) {
        bury_rights(in);
        return 0;
    }
    error = take_rights(task, in, kinds, files, unread);
    if (!error)
        return 0;
refused:
    packet_discard(in->packet);
    ipc_incoming_destroy(task, in);
    return error;
}

/* -- what it is ---------------------------------------------------------------------------------------------------------------- */

void ipc_incoming_init(struct incoming *in, struct packet *packet, struct ipc_message *message)
{
    in->packet = packet;
    in->message = message;
    in->header = message ? message->header : packet->header;
    in->body = NULL;
    in->mapping = NULL;
    in->offsets = in->few;
    in->length = in->count = 0;
    in->rights = message ? message->held.rights : in->arrived;
    in->nrights = message ? (int)message->held.count : 0;
}

/* A message that never left this task. */
static enum verdict judge_local(struct incoming *in)
{
    const struct ipc_message *message = in->message;
    in->kind = in->header.bits & 0x1f;
    in->own = true;
    if (in->header.flags & WIRE_DESTROYED)
        return A_NOTICE;
    self_token(in->header.space, message->euid, message->egid, message->ruid, message->rgid, &in->token);
    sign(in);
    return A_MESSAGE;
}

enum verdict ipc_incoming_judge(struct ipc_end *end, struct incoming *in)
{
    struct packet *packet = in->packet;
    bool destroyed;
    if (in->message)
        return judge_local(in);
    destroyed = packet->length > 0 && packet->state != PACKET_ODD && in->header.flags & WIRE_DESTROYED;
    in->kind = end->told && packet->length > 0 ? in->header.bits & 0x1f : end->kind;
    if (in->kind != KIND_ONCE)
        in->kind = KIND_SEND;
    if (packet->length == 0 || destroyed)
        return in->kind == KIND_ONCE ? A_NOTICE : NO_MESSAGE;
    if (packet->state == PACKET_LOST)
        return LOST;
    if (packet->state == PACKET_ODD || in->header.size > MAX_MESSAGE_SIZE || !attest(in))
        return in->kind == KIND_ONCE ? A_NOTICE : NO_MESSAGE;
    sign(in);
    return A_MESSAGE;
}

static void collect_local(struct ipc_task *task, struct ipc_end *end)
{
    struct ipc_message *message;
    while ((message = ipc_local_take(end))) {
        ipc_kmsg_doom(task, message->held.rights, (unsigned)message->held.count);
        ipc_local_free(message);
    }
}

void ipc_kmsg_collect(struct ipc_task *task, struct ipc_port *port)
{
    struct incoming in;
    if (!ipc_task_packet(task))
        return; /* the messages die with their sockets */
    for (struct ipc_end *end = port->ends; end; end = end->next) {
        if (end->kind == KIND_LISTENER)
            continue;
        if (end->local) {
            collect_local(task, end);
            continue;
        }
        shutdown(end->fd, SHUT_RD); /* nothing more can be sent here */
        for (;;) {
            int error = packet_receive(end->fd, task->packet, end->stamped, &end->sender, false, NULL);
            if (error || (task->packet->length == 0 && task->packet->nfds == 0)) {
                end->drained = !error;
                break;
            }
            ipc_incoming_init(&in, task->packet, NULL);
            if (ipc_incoming_judge(end, &in) == A_MESSAGE && !(in.header.flags & WIRE_LARGE && !in.own) &&
                ipc_incoming_parse(task, &in, true) == 0) {
                ipc_kmsg_doom(task, in.rights, (unsigned)in.nrights);
                ipc_incoming_forget(&in);
            } else {
                packet_discard(task->packet);
            }
        }
    }
}
