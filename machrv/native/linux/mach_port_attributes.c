/*
 * The calls of <mach/mach_port.h> about one receive right: status, limits, context, counts, guards, and a look at what waits
 * (osfmk/ipc/mach_port.c).
 */

#include "ipc.h"

/* What XNU keeps for the importance of tasks; here it is told, and nothing comes of it. */
#define DONATES MACH_PORT_STATUS_FLAG_IMP_DONATION
#define TEMPOWNER (MACH_PORT_STATUS_FLAG_IMP_DONATION | MACH_PORT_STATUS_FLAG_TEMPOWNER)

/* The port of a receive right, its task entered; NULL, nothing entered, and *kr. */
static struct ipc_port *enter(mach_port_t handle, mach_port_name_t name, struct ipc_task **task, kern_return_t *kr)
{
    struct ipc_entry *entry = NULL;
    *kr = KERN_INVALID_TASK;
    *task = task_look(handle);
    if (!*task)
        return NULL;
    *kr = KERN_INVALID_RIGHT;
    if (name != MACH_PORT_NULL && name != MACH_PORT_DEAD && !(entry = ipc_entry_lookup(*task, name)))
        *kr = KERN_INVALID_NAME;
    if (entry && entry->type & MACH_PORT_TYPE_RECEIVE) {
        *kr = KERN_SUCCESS;
        return entry->port;
    }
    task_leave(*task);
    return NULL;
}

static void read_status(struct ipc_port *port, mach_port_status_t *status)
{
    struct ipc_end *end;
    int error;
    *status = (mach_port_status_t){.mps_pset = port->nsets > 0, /* how many, or which, is nobody's business */
                                   .mps_seqno = port->seqno,
                                   .mps_mscount = port->mscount,
                                   .mps_qlimit = port->qlimit,
                                   .mps_srights = ipc_port_has_senders(port),
                                   .mps_sorights = port->onces,
                                   .mps_pdrequest = port->pdrequest.kind != 0,
                                   .mps_nsrequest = port->nsrequest.kind != 0,
                                   .mps_flags = port->importance};
    for (end = port->ends; end; end = end->next)
        status->mps_sorights += end->kind == KIND_ONCE;
    end = ipc_mqueue_next(port, &error);
    /* Something waits: how much, the system does not tell. An only end nobody has looked at may be at its end. */
    status->mps_msgcount = end && (end->queued || ipc_end_waiting(end) > 0);
    if (port->guarded) /* of one that is not, nothing else is told (mach_port_get_status_helper) */
        status->mps_flags |= MACH_PORT_STATUS_FLAG_GUARDED | (port->strict ? MACH_PORT_STATUS_FLAG_STRICT_GUARD : 0) |
                             (port->immovable ? MACH_PORT_STATUS_FLAG_GUARD_IMMOVABLE_RECEIVE : 0);
}

/* How many words a flavor tells; 0: there is no such flavor. */
static mach_msg_type_number_t flavor_count(mach_port_flavor_t flavor)
{
    switch (flavor) {
    case MACH_PORT_LIMITS_INFO:
        return MACH_PORT_LIMITS_INFO_COUNT;
    case MACH_PORT_RECEIVE_STATUS:
        return MACH_PORT_RECEIVE_STATUS_COUNT;
    case MACH_PORT_DNREQUESTS_SIZE:
        return MACH_PORT_DNREQUESTS_SIZE_COUNT;
    case MACH_PORT_INFO_EXT:
        return MACH_PORT_INFO_EXT_COUNT;
    default:
        return 0;
    }
}

kern_return_t mach_port_get_attributes(mach_port_t handle, mach_port_name_t name, mach_port_flavor_t flavor, integer_t *info,
                                       mach_msg_type_number_t *count)
{
    const mach_msg_type_number_t words = flavor_count(flavor);
    struct ipc_task *task;
    struct ipc_port *port;
    kern_return_t kr;
    if (!words)
        return KERN_INVALID_ARGUMENT;
    if (*count < words)
        return KERN_FAILURE;
    if ((name == MACH_PORT_NULL || name == MACH_PORT_DEAD) &&
        (flavor == MACH_PORT_LIMITS_INFO ||
         flavor == MACH_PORT_DNREQUESTS_SIZE)) { /* XNU has nothing to tell, and nothing against it */
        *count = flavor == MACH_PORT_LIMITS_INFO ? 0 : *count;
        info[0] = flavor == MACH_PORT_LIMITS_INFO ? info[0] : 0;
        return task_is_valid(handle) ? KERN_SUCCESS : KERN_INVALID_TASK;
    }
    port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    memset(info, 0, words * sizeof *info);
    if (flavor == MACH_PORT_LIMITS_INFO)
        ((mach_port_limits_t *)info)->mpl_qlimit = port->qlimit;
    else if (flavor != MACH_PORT_DNREQUESTS_SIZE)      /* those are kept with the names that they are about */
        read_status(port, (mach_port_status_t *)info); /* an extended status begins with one */
    *count = words;
    task_leave(task);
    return KERN_SUCCESS;
}

kern_return_t mach_port_set_attributes(mach_port_t handle, mach_port_name_t name, mach_port_flavor_t flavor, integer_t *info,
                                       mach_msg_type_number_t count)
{
    struct ipc_task *task;
    struct ipc_port *port;
    kern_return_t kr;
    switch (flavor) {
    case MACH_PORT_LIMITS_INFO:
    case MACH_PORT_DNREQUESTS_SIZE:
        if (count < flavor_count(flavor))
            return KERN_FAILURE;
        if (flavor == MACH_PORT_LIMITS_INFO && ((mach_port_limits_t *)info)->mpl_qlimit > MACH_PORT_QLIMIT_MAX)
            return KERN_INVALID_VALUE;
        break;
    case MACH_PORT_TEMPOWNER:
    case MACH_PORT_IMPORTANCE_RECEIVER:
    case MACH_PORT_DENAP_RECEIVER:
        break;
    default:
        return KERN_INVALID_ARGUMENT;
    }
    port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    if (flavor == MACH_PORT_LIMITS_INFO)
        ipc_mqueue_set_qlimit(port, ((mach_port_limits_t *)info)->mpl_qlimit);
    else if (flavor != MACH_PORT_DNREQUESTS_SIZE)
        port->importance |= flavor == MACH_PORT_TEMPOWNER ? TEMPOWNER : DONATES;
    task_leave(task);
    return KERN_SUCCESS;
}

#undef mach_port_get_context
kern_return_t mach_port_get_context(mach_port_t handle, mach_port_name_t name, mach_port_context_t *context)
{
    struct ipc_task *task;
    kern_return_t kr;
    struct ipc_port *port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    *context = port->strict ? 0 : port->context; /* a strict guard is nobody's to read */
    task_leave(task);
    return KERN_SUCCESS;
}

kern_return_t mach_port_set_context(mach_port_t handle, mach_port_name_t name, mach_port_context_t context)
{
    struct ipc_task *task;
    kern_return_t kr;
    struct ipc_port *port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    if (port->strict)
        kr = KERN_INVALID_ARGUMENT;
    else
        port->context = context;
    task_leave(task);
    return kr;
}

kern_return_t mach_port_set_mscount(mach_port_t handle, mach_port_name_t name, mach_port_mscount_t mscount)
{
    struct ipc_task *task;
    kern_return_t kr;
    struct ipc_port *port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    port->mscount = mscount;
    task_leave(task);
    return KERN_SUCCESS;
}

kern_return_t mach_port_set_seqno(mach_port_t handle, mach_port_name_t name, mach_port_seqno_t seqno)
{
    struct ipc_task *task;
    kern_return_t kr;
    struct ipc_port *port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    port->seqno = seqno;
    task_leave(task);
    return KERN_SUCCESS;
}

/* Of guards, a name that cannot be one is no name. */
static struct ipc_port *enter_guard(mach_port_t handle, mach_port_name_t name, struct ipc_task **task, kern_return_t *kr)
{
    struct ipc_port *port = enter(handle, name, task, kr);
    if (!port && *kr == KERN_INVALID_RIGHT && (name == MACH_PORT_NULL || name == MACH_PORT_DEAD))
        *kr = KERN_INVALID_NAME;
    return port;
}

kern_return_t mach_port_guard(mach_port_t handle, mach_port_name_t name, mach_port_context_t guard, boolean_t strict)
{
    struct ipc_task *task;
    kern_return_t kr;
    struct ipc_port *port = enter_guard(handle, name, &task, &kr);
    if (!port)
        return kr;
    if (port->context) {
        kr = KERN_INVALID_ARGUMENT; /* it has a context, or a guard, already */
    } else {
        port->context = guard;
        port->guarded = true;
        port->strict = strict != 0;
    }
    task_leave(task);
    return kr;
}

kern_return_t mach_port_unguard(mach_port_t handle, mach_port_name_t name, mach_port_context_t guard)
{
    struct ipc_task *task;
    kern_return_t kr;
    struct ipc_port *port = enter_guard(handle, name, &task, &kr);
    if (!port)
        return kr;
    if (!port->guarded || port->context != guard) {
        kr = KERN_INVALID_ARGUMENT;
    } else {
        port->context = 0;
        port->guarded = port->strict = false;
    }
    task_leave(task);
    return kr;
}

/* What msgh_size grows by in XNU, where the header holds pointers: mach_port_peek() tells it as it is there
   (tests/ipc/port_peek.c, USER_HEADER_SIZE_DELTA). */
#define SIZE_DELTA 8

/* The next message without receiving it: its size and id, who sent it as far as the head tells. */
static kern_return_t peek(struct ipc_port *port, mach_port_seqno_t *seqno, mach_msg_size_t *size, mach_msg_id_t *id,
                          mach_msg_audit_trailer_t *trailer)
{
    struct packet_head head;
    struct ipc_end *end;
    int error;
    if (*seqno && *seqno != port->seqno)
        return KERN_FAILURE; /* only the head is within reach */
    end = ipc_mqueue_next(port, &error);
    if (!end || ipc_end_peek(end, &head) || (head.length == 0 && end->kind == KIND_SEND))
        return KERN_FAILURE;
    *seqno = port->seqno;
    *size = (head.length && head.header.size ? head.header.size : (mach_msg_size_t)sizeof(mach_msg_header_t)) + SIZE_DELTA;
    *id = head.length && !(head.header.flags & WIRE_DESTROYED) ? head.header.id : MACH_NOTIFY_SEND_ONCE;
    trailer->msgh_seqno = port->seqno;
    if (end->local)
        self_token(head.header.space, end->first->euid, end->first->egid, head.uid, head.gid, &trailer->msgh_audit);
    else if (head.pid > 0) /* which process that is, and its effective ids, is known once it is received */
        trailer->msgh_audit = (audit_token_t){{UINT32_MAX, head.uid, head.gid, head.uid, head.gid, (uint32_t)head.pid}};
    trailer->msgh_sender = (security_token_t){{trailer->msgh_audit.val[1], trailer->msgh_audit.val[2]}};
    return KERN_SUCCESS;
}

kern_return_t mach_port_peek(mach_port_t handle, mach_port_name_t name, mach_msg_trailer_type_t trailer_type,
                             mach_port_seqno_t *seqno, mach_msg_size_t *size, mach_msg_id_t *id, char *info,
                             mach_msg_type_number_t *info_size)
{
    const mach_msg_size_t wanted = ipc_kmsg_trailer_size((mach_msg_option_t)trailer_type);
    mach_msg_audit_trailer_t trailer = {.msgh_trailer_size = wanted};
    struct ipc_task *task;
    struct ipc_port *port;
    kern_return_t kr;
    if (name != MACH_PORT_NULL && name != MACH_PORT_DEAD && (wanted > sizeof trailer || wanted > *info_size))
        return KERN_INVALID_VALUE;
    port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    kr = peek(port, seqno, size, id, &trailer);
    task_leave(task);
    if (kr == KERN_SUCCESS) {
        memcpy(info, &trailer, wanted);
        *info_size = wanted;
    }
    return kr;
}

int machrv_port_beyond(mach_port_t handle, mach_port_name_t name)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry = task ? ipc_entry_lookup(task, name) : NULL;
    struct ucred maker = {.pid = 1};
    socklen_t size = sizeof maker;
    int beyond = -1;
    if (entry && entry->type & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_SEND_ONCE))
        beyond = entry->socket && !entry->socket->file &&
                 getsockopt(entry->socket->fd, SOL_SOCKET, SO_PEERCRED, &maker, &size) == 0 && maker.pid == 0;
    if (task)
        task_leave(task);
    return beyond;
}

/* Where senders take turns, so many connections may wait to be taken in. */
#define FEW_WAIT 128

kern_return_t machrv_port_take_turns(mach_port_t handle, mach_port_name_t name)
{
    struct ipc_task *task;
    kern_return_t kr;
    struct ipc_port *port = enter(handle, name, &task, &kr);
    if (!port)
        return kr;
    while (port->nqueued > 0) /* those that were looked at are looked at again, in the new order */
        ipc_mqueue_unqueue(port->heap[port->nqueued - 1]);
    port->turns = true;
    port->served = 0;
    /* Each connection waits behind those before it, of whomever. Who finds no place waits for one. */
    if (port->listener && listen(port->listener->fd, FEW_WAIT))
        kr = KERN_RESOURCE_SHORTAGE;
    task_leave(task);
    return kr;
}
