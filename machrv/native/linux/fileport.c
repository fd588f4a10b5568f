/*
 * Descriptors as rights: fileport_makeport(), fileport_makefd() (bsd/kern/kern_descrip.c), and memory as a right
 * (mach_make_memory_entry_64(), osfmk/vm). A fileport is the file's descriptor itself; a memory entry a fileport of a memfd.
 * And a send right as the descriptor that it is, for a child to inherit.
 */

#include "ipc.h"

#include <poll.h>
#include <sys/mman.h>

/* A right to a file, whose descriptor is used up. */
static kern_return_t make_port(mach_port_t handle, int fd, mach_port_t *port)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_right right = {KIND_SEND, NULL, task ? ipc_socket_new(fd, true) : NULL};
    if (!right.socket) {
        close_later(fd);
        if (task)
            task_leave(task);
        return task ? KERN_RESOURCE_SHORTAGE : KERN_INVALID_TASK;
    }
    *port = ipc_right_copyout(task, &right, MACH_PORT_NULL);
    task_leave(task);
    return *port == MACH_PORT_NULL ? KERN_RESOURCE_SHORTAGE : KERN_SUCCESS;
}

int machrv_fileport_makeport(mach_port_t task, int fd, mach_port_t *port)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return -errno;
    packet_note_fd(copy);
    switch (make_port(task, copy, port)) {
    case KERN_SUCCESS:
        return 0;
    case KERN_RESOURCE_SHORTAGE:
        return -ENOMEM;
    default:
        return -EINVAL;
    }
}

int machrv_fileport_makefd(mach_port_t handle, mach_port_t port)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry = task ? ipc_entry_lookup(task, port) : NULL;
    int fd = -EINVAL;
    if (entry && entry->type & MACH_PORT_TYPE_SEND && entry->socket && entry->socket->file &&
        (fd = fcntl(entry->socket->fd, F_DUPFD_CLOEXEC, 3)) < 0)
        fd = -errno;
    if (task)
        task_leave(task);
    return fd;
}

/* As Apple's: -1, and errno. */
static int told(int result)
{
    if (result >= 0)
        return result;
    errno = -result;
    return -1;
}

int fileport_makeport(int fd, mach_port_t *port) { return told(machrv_fileport_makeport(mach_task_self(), fd, port)); }

int fileport_makefd(mach_port_t port) { return told(machrv_fileport_makefd(mach_task_self(), port)); }

kern_return_t machrv_right_makefd(mach_port_t handle, mach_port_name_t name, int *fd)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry = task ? ipc_entry_lookup(task, name) : NULL;
    struct ipc_right right = NO_RIGHT;
    kern_return_t kr = task ? KERN_INVALID_NAME : KERN_INVALID_TASK;
    if (entry)
        kr = ipc_right_copyin(task, entry, MACH_MSG_TYPE_COPY_SEND, false, &right);
    if (kr == KERN_SUCCESS) {
        if (ipc_right_externalize(&right))
            kr = KERN_RESOURCE_SHORTAGE;
        else if (!right.socket || right.socket->file)
            kr = KERN_INVALID_RIGHT;
        else if ((*fd = fcntl(right.socket->fd, F_DUPFD_CLOEXEC, 3)) < 0)
            kr = KERN_RESOURCE_SHORTAGE;
        ipc_right_release(task, &right);
    }
    if (task)
        task_leave(task);
    return kr;
}

/* A descriptor of a send right, which is used up. */
static kern_return_t take_right(struct ipc_task *task, int fd, mach_port_name_t *name)
{
    struct pollfd state = {.fd = fd};
    struct ipc_right right = NO_RIGHT;
    int error;
    poll(&state, 1, 0);
    error = ipc_transit_arrived(task, fd, KIND_SEND, false, state.revents & POLLHUP, false, &right);
    if (error)
        return error == -EBADMSG ? KERN_INVALID_RIGHT : KERN_RESOURCE_SHORTAGE;
    if (right.socket && !right.socket->named) { /* a socket of somebody else's */
        ipc_right_release(task, &right);
        return KERN_INVALID_RIGHT;
    }
    *name = ipc_right_copyout(task, &right, MACH_PORT_NULL);
    return *name == MACH_PORT_NULL ? KERN_RESOURCE_SHORTAGE : KERN_SUCCESS;
}

kern_return_t machrv_right_makeport(mach_port_t handle, int fd, mach_port_name_t *name)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    struct ipc_task *task;
    kern_return_t kr;
    if (copy < 0)
        return errno == EBADF ? KERN_INVALID_RIGHT : KERN_RESOURCE_SHORTAGE;
    packet_note_fd(copy);
    task = task_enter(handle);
    if (!task) {
        close_later(copy);
        return KERN_INVALID_TASK;
    }
    kr = take_right(task, copy, name);
    task_leave(task);
    return kr;
}

kern_return_t mach_make_memory_entry_64(mach_port_t task, memory_object_size_t *size, memory_object_offset_t offset,
                                        vm_prot_t permission, mach_port_t *object_handle, mach_port_t parent_entry)
{
    int fd;
    /* Fresh memory is all that a MemoryObject needs: no part of a map, no part of another entry. */
    if (offset || parent_entry != MACH_PORT_NULL || !(permission & MAP_MEM_NAMED_CREATE))
        return KERN_NOT_SUPPORTED;
    if (*size > INT64_MAX)
        return KERN_INVALID_ARGUMENT;
    fd = memory_file("machrv-memory-object");
    if (fd < 0)
        return KERN_RESOURCE_SHORTAGE;
    packet_note_fd(fd);
    if (ftruncate(fd, (off_t)*size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)) {
        close(fd);
        return KERN_RESOURCE_SHORTAGE;
    }
    return make_port(task, fd, object_handle);
}
