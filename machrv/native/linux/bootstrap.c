/*
 * bootstrap_check_in() and bootstrap_look_up(): names for ports (launchd's liblaunch/bootstrap.h).
 *
 * Where the names are is in bootstrap_name.c. What must never happen here: a wait with a task's lock held.
 */

#include "ipc.h"

#define PATIENCE 10000 /* ms: how long a look-up waits for a place with a busy server */

static kern_return_t enter_listener(struct ipc_task *task, int listener, const char *address, int length, const char *id,
                                    struct bootstrap_name *name, mach_port_t *sp)
{
    struct ipc_port *port = ipc_port_new(id);
    struct ipc_end *end = ipc_end_new(listener, KIND_LISTENER);
    struct ipc_entry *entry = port && end ? ipc_entry_alloc(task) : NULL;
    int error = entry ? 0 : -ENOMEM;
    if (entry) {
        end->address_length = length;
        memcpy(end->address, address, (size_t)length);
        end->stamped = true;
        error = ipc_port_add_end(port, end);
        if (error)
            ipc_entry_dealloc(task, entry);
    }
    if (error) {
        free(end);
        if (port)
            ipc_port_release(port);
        return KERN_RESOURCE_SHORTAGE;
    }
    port->bootstrap = name;
    entry->type = MACH_PORT_TYPE_RECEIVE;
    entry->port = port;
    ipc_port_enter(port, task, entry->name);
    *sp = entry->name;
    return KERN_SUCCESS;
}

static int new_id(char id[PORT_ID + 1])
{
    struct ipc_port *port = ipc_port_new(NULL);
    if (!port)
        return -ENOMEM;
    memcpy(id, port->id, PORT_ID);
    ipc_port_release(port);
    return 0;
}

kern_return_t bootstrap_check_in(mach_port_t bp, const char *service_name, mach_port_t *sp)
{
    struct bootstrap_name *name = NULL;
    char id[PORT_ID + 1], address[ADDRESS_MAX];
    int listener = -1, length = 0;
    struct ipc_task *task;
    kern_return_t kr;
    if (!task_is_valid(bp))
        return KERN_INVALID_TASK;
    kr = new_id(id) ? KERN_RESOURCE_SHORTAGE : bootstrap_name_claim(service_name, id, &listener, address, &length, &name);
    if (kr != KERN_SUCCESS)
        return kr;
    task = task_enter(bp);
    kr = task ? enter_listener(task, listener, address, length, id, name, sp) : KERN_INVALID_TASK;
    if (task)
        task_leave(task);
    if (kr != KERN_SUCCESS) {
        bootstrap_name_remove(name);
        close_later(listener);
    }
    return kr;
}

kern_return_t machrv_bootstrap_look_up(mach_port_t handle, const char *service_name, mach_msg_timeout_t timeout,
                                       mach_port_t *sp)
{
    struct ipc_right right = {KIND_SEND, NULL, NULL};
    char id[PORT_ID];
    struct ipc_task *task;
    kern_return_t kr;
    int fd = -1;
    if (!task_is_valid(handle))
        return KERN_INVALID_TASK;
    kr = bootstrap_name_connect(service_name, timeout, &fd, id);
    if (kr != KERN_SUCCESS)
        return kr;
    packet_note_fd(fd);
    task = task_enter(handle);
    right.socket = task ? ipc_socket_new(fd, false) : NULL;
    if (!right.socket) {
        close_later(fd);
        if (task)
            task_leave(task);
        return task ? KERN_RESOURCE_SHORTAGE : KERN_INVALID_TASK;
    }
    right.socket->named = right.socket->alone = true;
    memcpy(right.socket->id, id, PORT_ID);
    *sp = ipc_right_copyout(task, &right, MACH_PORT_NULL);
    kr = *sp == MACH_PORT_NULL ? KERN_RESOURCE_SHORTAGE : KERN_SUCCESS;
    task_leave(task);
    return kr;
}

kern_return_t bootstrap_look_up(mach_port_t bp, const char *service_name, mach_port_t *sp)
{
    return machrv_bootstrap_look_up(bp, service_name, PATIENCE, sp);
}
