/*
 * A message on its way out: its rights taken out of names, in the order of ipc_kmsg_copyin_header and _body
 * (osfmk/ipc/ipc_kmsg.c), and what a failed send leaves in the caller's buffer (ipc_kmsg_copyout_pseudo).
 *
 * Whatever needs room is made before anything is taken, or after everything was: what fails then is given back.
 */

#include "copyin.h"

#define MAX_PORTS (MACH_PORT_UREFS_MAX / 4)
#define DESCRIPTORS sizeof(mach_msg_base_t)

static bool is_send_type(unsigned disposition)
{
    return disposition >= MACH_MSG_TYPE_MOVE_SEND && disposition <= MACH_MSG_TYPE_MAKE_SEND_ONCE;
}

static bool is_make(unsigned disposition)
{
    return disposition == MACH_MSG_TYPE_MAKE_SEND || disposition == MACH_MSG_TYPE_MAKE_SEND_ONCE;
}

static bool is_null(mach_port_name_t name) { return name == MACH_PORT_NULL || name == MACH_PORT_DEAD; }

size_t ipc_descriptor_size(unsigned type)
{
    /* Unknown types count as port descriptors (ipc_kmsg_copyin_body). */
    return type >= MACH_MSG_OOL_DESCRIPTOR && type <= MACH_MSG_GUARDED_PORT_DESCRIPTOR ? sizeof(mach_msg_ool_descriptor_t)
                                                                                       : sizeof(mach_msg_port_descriptor_t);
}

/* -- before anything is taken --------------------------------------------------------------------------------------------- */

static void add_error(struct ipc_kmsg *kmsg, mach_msg_return_t error)
{
    if (kmsg->refused == MACH_MSG_SUCCESS)
        kmsg->refused = error;
}

/* The first pass: sizes and options. Counts ports and memory; false: it is refused. */
static bool check_descriptors(struct ipc_kmsg *kmsg, size_t *ports)
{
    const char *message = (const char *)kmsg->user;
    size_t offset = DESCRIPTORS;
    mach_msg_return_t refused = MACH_MSG_SUCCESS;
    for (uint32_t i = 0; i < kmsg->count && !refused; i++) {
        union ipc_descriptor d;
        size_t size;
        if (offset + sizeof d.port > kmsg->size ||
            offset + (size = ipc_descriptor_size((unsigned char)message[offset + 11])) > kmsg->size) {
            refused = MACH_SEND_MSG_TOO_SMALL;
            break;
        }
        memcpy(&d, message + offset, size);
        offset += size;
        switch ((unsigned)d.port.type) {
        case MACH_MSG_OOL_DESCRIPTOR:
        case MACH_MSG_OOL_VOLATILE_DESCRIPTOR:
            if ((unsigned)d.ool.copy > MACH_MSG_VIRTUAL_COPY)
                refused = MACH_SEND_INVALID_TYPE;
            kmsg->nmemory++;
            break;
        case MACH_MSG_OOL_PORTS_DESCRIPTOR:
            *ports += d.ool_ports.count;
            kmsg->ntail += d.ool_ports.count;
            break;
        case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
            if (!d.guarded.flags || (unsigned)d.guarded.flags & ~(unsigned)MACH_MSG_GUARD_FLAGS_MASK ||
                ((unsigned)d.guarded.flags & MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND && d.guarded.context) ||
                d.guarded.disposition != MACH_MSG_TYPE_MOVE_RECEIVE)
                refused = MACH_SEND_INVALID_TYPE;
            ++*ports;
            break;
        case MACH_MSG_PORT_DESCRIPTOR:
            ++*ports;
        }
        if (*ports >= MAX_PORTS && !refused && i + 1 == kmsg->count)
            refused = MACH_SEND_TOO_LARGE;
    }
    kmsg->area = offset - sizeof(mach_msg_header_t);
    if (refused)
        add_error(kmsg, refused);
    return refused == MACH_MSG_SUCCESS;
}

/* Copies out-of-line memory, and the names of out-of-line ports. What is not there is found in its turn. More rights than a
   packet carries are found before anything is taken. */
static int read_out_of_line(struct ipc_kmsg *kmsg)
{
    size_t offset = sizeof(mach_msg_body_t), names = 0, memory = 0, carried = is_null(kmsg->local) ? 0 : 1;
    for (uint32_t i = 0; i < kmsg->count; i++) {
        union ipc_descriptor d;
        size_t size = ipc_descriptor_size((unsigned char)kmsg->image[offset + 11]);
        memcpy(&d, kmsg->image + offset, size);
        offset += size;
        if (d.port.type == MACH_MSG_OOL_PORTS_DESCRIPTOR) {
            if (d.ool_ports.count > 0 && memory_read(kmsg->tail + names, (vm_address_t)d.ool_ports.address,
                                                     d.ool_ports.count * sizeof(mach_port_name_t)))
                kmsg->no_names = kmsg->no_names < i ? kmsg->no_names : i;
            for (uint32_t name = 0; name < d.ool_ports.count && kmsg->no_names == UINT32_MAX; name++)
                carried += !is_null(kmsg->tail[names + name]);
            names += d.ool_ports.count;
        } else if (d.port.type == MACH_MSG_OOL_DESCRIPTOR || d.port.type == MACH_MSG_OOL_VOLATILE_DESCRIPTOR) {
            int fd = d.ool.size ? memory_copy((vm_address_t)d.ool.address, d.ool.size) : -EFAULT;
            if (fd < 0 && fd != -EFAULT)
                return fd;
            kmsg->memory_fds[memory++] = fd;
            carried += d.ool.size != 0;
        } else if (d.port.type == MACH_MSG_PORT_DESCRIPTOR) {
            carried += !is_null(d.port.name);
        } else if (d.port.type == MACH_MSG_GUARDED_PORT_DESCRIPTOR) {
            carried += !is_null(d.guarded.name);
        }
        if (!packet_carries(carried))
            return -EMSGSIZE;
    }
    return 0;
}

int ipc_kmsg_prepare(struct ipc_kmsg *kmsg)
{
    size_t ports = 0;
    const char *message = (const char *)kmsg->user;
    kmsg->no_names = UINT32_MAX;
    if (kmsg->bits & MACH_MSGH_BITS_COMPLEX) {
        memcpy(&kmsg->count, message + sizeof(mach_msg_header_t), sizeof kmsg->count);
        if (!check_descriptors(kmsg, &ports))
            kmsg->count = 0, kmsg->ntail = 0, kmsg->nmemory = 0, ports = 0;
    }
    kmsg->max_rights = 1 + ports + kmsg->nmemory;
    if (kmsg->max_rights > FEW_RIGHTS)
        kmsg->rights = calloc(kmsg->max_rights, sizeof *kmsg->rights);
    if (kmsg->area > FEW_BYTES)
        kmsg->image = malloc(kmsg->area);
    if (kmsg->ntail)
        kmsg->tail = malloc(kmsg->ntail * sizeof *kmsg->tail);
    if (kmsg->nmemory)
        kmsg->memory_fds = malloc(kmsg->nmemory * sizeof *kmsg->memory_fds);
    if (!kmsg->rights || !kmsg->image || (kmsg->ntail && !kmsg->tail) || (kmsg->nmemory && !kmsg->memory_fds))
        return -ENOMEM;
    for (size_t i = 0; i < kmsg->nmemory; i++)
        kmsg->memory_fds[i] = -1;
    if (kmsg->area)
        memcpy(kmsg->image, message + sizeof(mach_msg_header_t), kmsg->area);
    return kmsg->count ? read_out_of_line(kmsg) : 0;
}

void ipc_kmsg_init(struct ipc_kmsg *kmsg, struct ipc_task *task, mach_msg_header_t *msg, mach_msg_size_t size)
{
    *kmsg = (struct ipc_kmsg){.task = task, .user = msg, .size = size, .body_memory = -1};
    kmsg->rights = kmsg->few_rights;
    kmsg->image = kmsg->few_bytes;
    kmsg->bits = msg->msgh_bits & MACH_MSGH_BITS_USER;
    kmsg->remote = msg->msgh_remote_port;
    kmsg->local = msg->msgh_local_port;
    kmsg->voucher = msg->msgh_voucher_port;
    kmsg->id = msg->msgh_id;
}

void ipc_kmsg_free(struct ipc_kmsg *kmsg)
{
    for (size_t i = 0; kmsg->memory_fds && i < kmsg->nmemory; i++)
        if (kmsg->memory_fds[i] >= 0)
            close(kmsg->memory_fds[i]);
    if (kmsg->body_memory >= 0)
        close(kmsg->body_memory);
    free(kmsg->memory_fds);
    free(kmsg->tail);
    if (kmsg->rights != kmsg->few_rights)
        free(kmsg->rights);
    if (kmsg->image != kmsg->few_bytes)
        free(kmsg->image);
}

/* -- the header ------------------------------------------------------------------------------------------------------------- */

/* A right to a dead port can be named as reply port, whatever it was (ipc_right_copyin_check_reply). */
static bool can_reply(struct ipc_task *task, struct ipc_entry *entry, unsigned disposition)
{
    if (is_make(disposition))
        return entry->type & MACH_PORT_TYPE_RECEIVE;
    if (entry->type & MACH_PORT_TYPE_SEND_RIGHTS)
        ipc_right_check(task, entry);
    return entry->type & (MACH_PORT_TYPE_DEAD_NAME |
                          (disposition == MACH_MSG_TYPE_MOVE_SEND_ONCE ? MACH_PORT_TYPE_SEND_ONCE : MACH_PORT_TYPE_SEND));
}

/* Destination and reply port are one name (ipc_right_copyin_two). False: MACH_SEND_INVALID_DEST. */
static bool copyin_two(struct ipc_kmsg *kmsg, struct ipc_entry *entry, unsigned one, unsigned two)
{
    struct ipc_task *task = kmsg->task;
    struct ipc_right *first = &kmsg->dest, *second = &kmsg->rights[0];
    if (one == MACH_MSG_TYPE_MOVE_SEND_ONCE || two == MACH_MSG_TYPE_MOVE_SEND_ONCE)
        return false;
    if (!is_make(one) && !is_make(two)) {
        if (!(entry->type & MACH_PORT_TYPE_SEND) || ipc_right_check(task, entry))
            return false;
        if (one == two && one == MACH_MSG_TYPE_MOVE_SEND && entry->urefs < 2)
            return false;
        if (one != two) { /* copy first: the last reference may be the one that moves */
            bool moves_first = one == MACH_MSG_TYPE_MOVE_SEND;
            return ipc_right_copyin(task, entry, MACH_MSG_TYPE_COPY_SEND, false, moves_first ? second : first) ==
                       KERN_SUCCESS &&
                   ipc_right_copyin(task, entry, MACH_MSG_TYPE_MOVE_SEND, false, moves_first ? first : second) == KERN_SUCCESS;
        }
    }
    if (ipc_right_copyin(task, entry, one, false, first) != KERN_SUCCESS)
        return false;
    if (ipc_right_copyin(task, entry, two, false, second) != KERN_SUCCESS)
        *second = NO_RIGHT;
    return true;
}

mach_msg_return_t ipc_kmsg_copyin_header(struct ipc_kmsg *kmsg)
{
    unsigned one = MACH_MSGH_BITS_REMOTE_MASK & kmsg->bits, two = (kmsg->bits & MACH_MSGH_BITS_LOCAL_MASK) >> 8;
    unsigned voucher = (kmsg->bits & MACH_MSGH_BITS_VOUCHER_MASK) >> 16;
    struct ipc_task *task = kmsg->task;
    struct ipc_entry *entry, *reply = NULL;
    bool both;
    if (!is_send_type(one) || (two == 0 ? kmsg->local != MACH_PORT_NULL : !is_send_type(two)))
        return MACH_SEND_INVALID_HEADER;
    if (is_null(kmsg->remote))
        return MACH_SEND_INVALID_DEST;
    if (voucher &&
        (kmsg->voucher != MACH_PORT_NULL || (voucher != MACH_MSG_TYPE_MOVE_SEND && voucher != MACH_MSG_TYPE_COPY_SEND)))
        return MACH_SEND_INVALID_VOUCHER;
    entry = ipc_entry_lookup(task, kmsg->remote);
    if (!entry)
        return MACH_SEND_INVALID_DEST;
    if (!is_null(kmsg->local)) {
        reply = ipc_entry_lookup(task, kmsg->local);
        if (!reply || !can_reply(task, reply, two))
            return MACH_SEND_INVALID_REPLY;
    }
    both = reply == entry;
    if (!both) {
        if (entry->socket && entry->socket->file)
            return MACH_SEND_INVALID_DEST;
        /* Of a plain message, sending shows whether the port lives. A message on a dead send-once right that nobody asked
           about is sent, and lost. */
        if (!ipc_kmsg_is_plain(kmsg) && (entry->type & MACH_PORT_TYPE_SEND || entry->request.notify.kind) &&
            ipc_right_check(task, entry))
            return MACH_SEND_INVALID_DEST;
    }
    if (both ? !copyin_two(kmsg, entry, one, two) : ipc_right_copyin(task, entry, one, false, &kmsg->dest) != KERN_SUCCESS)
        return MACH_SEND_INVALID_DEST;
    kmsg->reply_kind = ipc_right_kind(two);
    kmsg->reply_slot = kmsg->local == MACH_PORT_DEAD ? SLOT_DEAD : SLOT_NULL;
    if (!reply)
        return MACH_MSG_SUCCESS;
    if (!both)
        ipc_right_copyin(task, reply, two, true, &kmsg->rights[0]);
    kmsg->reply_slot = SLOT_DEAD;
    if (kmsg->rights[0].port || kmsg->rights[0].socket) {
        kmsg->nrights = 1;
        kmsg->reply_slot = 1 | (kmsg->rights[0].socket && kmsg->rights[0].socket->file ? SLOT_FILE : 0);
    }
    return MACH_MSG_SUCCESS;
}

/* -- the body --------------------------------------------------------------------------------------------------------------------- */

/* The slot of a right that a descriptor names. */
static mach_msg_return_t copyin_name(struct ipc_kmsg *kmsg, mach_port_name_t name, unsigned disposition, uint32_t *slot)
{
    struct ipc_right *right = &kmsg->rights[kmsg->nrights];
    const char *to = ipc_right_id(&kmsg->dest);
    struct ipc_entry *entry;
    *slot = name == MACH_PORT_NULL ? SLOT_NULL : SLOT_DEAD;
    if (is_null(name))
        return MACH_MSG_SUCCESS;
    entry = ipc_entry_lookup(kmsg->task, name);
    if (!entry || ipc_right_copyin(kmsg->task, entry, disposition, true, right) != KERN_SUCCESS)
        return MACH_SEND_INVALID_RIGHT;
    if (ipc_right_is_dead(right))
        return MACH_MSG_SUCCESS;
    *slot = (uint32_t)++kmsg->nrights | (right->socket && right->socket->file ? SLOT_FILE : 0);
    if (right->kind == KIND_RECEIVE && to && ipc_port_is_circular(right->port->id, to))
        kmsg->circular = true;
    return MACH_MSG_SUCCESS;
}

static mach_msg_return_t copyin_memory(struct ipc_kmsg *kmsg, size_t number, union ipc_descriptor *d)
{
    struct ipc_socket *socket;
    int fd = kmsg->memory_fds[number];
    mach_msg_size_t size = d->ool.size;
    unsigned type = (unsigned)d->ool.type;
    *d = (union ipc_descriptor){.ool = {.copy = MACH_MSG_VIRTUAL_COPY, .deallocate = 1, .size = size}};
    d->ool.type = type & 0xff;
    if (size == 0)
        return MACH_MSG_SUCCESS;
    if (fd < 0)
        return MACH_SEND_INVALID_MEMORY;
    socket = ipc_socket_new(fd, false);
    if (!socket)
        return MACH_SEND_INVALID_MEMORY;
    socket->ours = true;
    kmsg->memory_fds[number] = -1;
    kmsg->rights[kmsg->nrights] = (struct ipc_right){KIND_MEMORY, NULL, socket};
    d->ool.address = (void *)(uintptr_t)++kmsg->nrights;
    return MACH_MSG_SUCCESS;
}

static mach_msg_return_t copyin_ports(struct ipc_kmsg *kmsg, size_t first, union ipc_descriptor *d)
{
    uint32_t count = d->ool_ports.count;
    unsigned disposition = d->ool_ports.disposition;
    if ((unsigned)d->ool_ports.copy > MACH_MSG_VIRTUAL_COPY)
        return MACH_SEND_INVALID_TYPE;
    *d = (union ipc_descriptor){.ool_ports = {.deallocate = 1, .copy = MACH_MSG_VIRTUAL_COPY, .count = count}};
    d->ool_ports.disposition = ipc_right_kind(disposition) & 0xff;
    d->ool_ports.type = MACH_MSG_OOL_PORTS_DESCRIPTOR;
    for (uint32_t i = 0; i < count; i++) {
        mach_msg_return_t mr = copyin_name(kmsg, kmsg->tail[first + i], disposition, &kmsg->tail[first + i]);
        if (mr != MACH_MSG_SUCCESS)
            return mr;
    }
    return MACH_MSG_SUCCESS;
}

static mach_msg_return_t copyin_guarded(struct ipc_kmsg *kmsg, union ipc_descriptor *d)
{
    struct ipc_entry *entry = ipc_entry_lookup(kmsg->task, d->guarded.name);
    struct ipc_port *port = entry && entry->type & MACH_PORT_TYPE_RECEIVE ? entry->port : NULL;
    unsigned flags = d->guarded.flags;
    if (port && port->guarded && port->context != d->guarded.context)
        return MACH_SEND_INVALID_RIGHT;
    d->guarded.context = 0;
    d->guarded.flags = (flags | MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND) & MACH_MSG_GUARD_FLAGS_MASK;
    d->guarded.disposition = KIND_RECEIVE;
    return copyin_name(kmsg, d->guarded.name, MACH_MSG_TYPE_MOVE_RECEIVE, &d->guarded.name);
}

mach_msg_return_t ipc_kmsg_copyin_body(struct ipc_kmsg *kmsg)
{
    size_t offset = sizeof(mach_msg_body_t), names = 0, memory = 0;
    for (uint32_t i = 0; i < kmsg->count; i++) {
        union ipc_descriptor d;
        size_t size = ipc_descriptor_size((unsigned char)kmsg->image[offset + 11]);
        mach_msg_return_t mr;
        memcpy(&d, kmsg->image + offset, size);
        switch ((unsigned)d.port.type) {
        case MACH_MSG_PORT_DESCRIPTOR: {
            unsigned disposition = d.port.disposition;
            mach_port_name_t name = d.port.name;
            d = (union ipc_descriptor){.port = {.name = name}};
            d.port.disposition = ipc_right_kind(disposition) & 0xff;
            mr = copyin_name(kmsg, name, disposition, &d.port.name);
            break;
        }
        case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
            mr = copyin_guarded(kmsg, &d);
            break;
        case MACH_MSG_OOL_PORTS_DESCRIPTOR:
            mr = i >= kmsg->no_names ? MACH_SEND_INVALID_MEMORY : copyin_ports(kmsg, names, &d);
            names += d.ool_ports.count;
            kmsg->taken += mr == MACH_SEND_INVALID_RIGHT; /* its names are read, and their memory given up, before its rights */
            break;
        case MACH_MSG_OOL_DESCRIPTOR:
        case MACH_MSG_OOL_VOLATILE_DESCRIPTOR:
            mr = copyin_memory(kmsg, memory++, &d);
            break;
        default:
            mr = MACH_SEND_INVALID_TYPE;
        }
        if (mr != MACH_MSG_SUCCESS)
            return mr;
        memcpy(kmsg->image + offset, &d, size);
        offset += size;
        kmsg->taken++;
    }
    return kmsg->refused;
}
