/*
 * mach_msg() and mach_msg_destroy() (osfmk/ipc/mach_msg.c; libsyscall/mach/mach_msg.c).
 *
 * What must never happen here: a message that is half sent. Sending and receiving are two steps, each with its own timeout,
 * as on Mach.
 */

#include "copyin.h"

mach_msg_return_t machrv_msg(mach_port_t handle, mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t send_size,
                             mach_msg_size_t rcv_size, mach_port_name_t rcv_name, mach_msg_timeout_t timeout,
                             mach_port_name_t notify)
{
    struct ipc_task *task = task_find(handle);
    mach_msg_return_t mr = MACH_MSG_SUCCESS;
    (void)notify; /* of no use since Mach 2.5 */
    if (!task)
        return option & MACH_SEND_MSG ? MACH_SEND_INVALID_DEST : MACH_RCV_INVALID_NAME;
    if (option & MACH_SEND_MSG)
        mr = ipc_kmsg_send(task, msg, option, send_size, timeout);
    if (mr == MACH_MSG_SUCCESS && option & MACH_RCV_MSG)
        mr = ipc_mqueue_receive(task, msg, option, rcv_size, rcv_name, timeout);
    task_release(task);
    return mr;
}

mach_msg_return_t mach_msg(mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t send_size,
                           mach_msg_size_t rcv_size, mach_port_name_t rcv_name, mach_msg_timeout_t timeout,
                           mach_port_name_t notify)
{
    return machrv_msg(mach_task_self(), msg, option, send_size, rcv_size, rcv_name, timeout, notify);
}

/* Gives up what a name in a message stands for: what is to be moved, and what would be copied or made. */
static void destroy_port(mach_port_t task, mach_port_name_t name, unsigned disposition)
{
    mach_port_name_t made;
    mach_msg_type_name_t kind;
    if (name == MACH_PORT_NULL || name == MACH_PORT_DEAD)
        return;
    switch (disposition) {
    case MACH_MSG_TYPE_MOVE_SEND:
    case MACH_MSG_TYPE_MOVE_SEND_ONCE:
        mach_port_deallocate(task, name);
        break;
    case MACH_MSG_TYPE_MOVE_RECEIVE:
        mach_port_mod_refs(task, name, MACH_PORT_RIGHT_RECEIVE, -1);
        break;
    case MACH_MSG_TYPE_MAKE_SEND:
    case MACH_MSG_TYPE_COPY_SEND:
        if (mach_port_insert_right(task, name, name, disposition) == KERN_SUCCESS)
            mach_port_deallocate(task, name);
        break;
    case MACH_MSG_TYPE_MAKE_SEND_ONCE:
        if (mach_port_extract_right(task, name, disposition, &made, &kind) == KERN_SUCCESS)
            mach_port_deallocate(task, made);
    }
}

static void destroy_descriptor(mach_port_t task, const union ipc_descriptor *d)
{
    switch ((unsigned)d->port.type) {
    case MACH_MSG_PORT_DESCRIPTOR:
        destroy_port(task, d->port.name, d->port.disposition);
        break;
    case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
        if (d->guarded.flags & MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND || d->guarded.context == 0)
            destroy_port(task, d->guarded.name, d->guarded.disposition);
        else
            mach_port_destruct(task, d->guarded.name, 0, d->guarded.context);
        break;
    case MACH_MSG_OOL_DESCRIPTOR:
    case MACH_MSG_OOL_VOLATILE_DESCRIPTOR:
        if (d->ool.size && d->ool.deallocate)
            vm_deallocate(task, (vm_address_t)d->ool.address, d->ool.size);
        break;
    case MACH_MSG_OOL_PORTS_DESCRIPTOR:
        for (uint32_t i = 0; i < d->ool_ports.count; i++) {
            mach_port_name_t name;
            if (memory_read(&name, (vm_address_t)d->ool_ports.address + i * sizeof name, sizeof name) == 0)
                destroy_port(task, name, d->ool_ports.disposition);
        }
        if (d->ool_ports.count && d->ool_ports.deallocate)
            vm_deallocate(task, (vm_address_t)d->ool_ports.address, d->ool_ports.count * sizeof(mach_port_name_t));
    }
}

void machrv_msg_destroy(mach_port_t task, mach_msg_header_t *msg)
{
    const char *message = (const char *)msg;
    size_t offset = sizeof(mach_msg_base_t);
    uint32_t count;
    /* The destination of a received message is the receiver's own port: that is not given up. */
    destroy_port(task, msg->msgh_remote_port, msg->msgh_bits & MACH_MSGH_BITS_REMOTE_MASK);
    if (!(msg->msgh_bits & MACH_MSGH_BITS_COMPLEX) || msg->msgh_size < offset)
        return;
    memcpy(&count, message + sizeof *msg, sizeof count);
    for (; count > 0; count--) {
        union ipc_descriptor d;
        size_t size;
        if (offset + sizeof d.port > msg->msgh_size ||
            offset + (size = ipc_descriptor_size((unsigned char)message[offset + 11])) > msg->msgh_size)
            return;
        memcpy(&d, message + offset, size);
        offset += size;
        destroy_descriptor(task, &d);
    }
}

void mach_msg_destroy(mach_msg_header_t *msg) { machrv_msg_destroy(mach_task_self(), msg); }
