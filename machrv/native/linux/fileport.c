/*
 * Descriptors as rights: fileport_makeport(), fileport_makefd() (bsd/kern/kern_descrip.c), and memory as a right
 * (mach_make_memory_entry_64(), osfmk/vm). A fileport is the file's descriptor itself; a memory entry a fileport of a memfd.
 */

#include "ipc.h"

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
    kern_return_t kr;
    if (copy < 0)
        return -1;
    packet_note_fd(copy);
    kr = make_port(task, copy, port);
    if (kr == KERN_SUCCESS)
        return 0;
    errno = kr == KERN_RESOURCE_SHORTAGE ? ENOMEM : EINVAL;
    return -1;
}

int machrv_fileport_makefd(mach_port_t handle, mach_port_t port)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry = task ? ipc_entry_lookup(task, port) : NULL;
    int fd = -1, error = EINVAL;
    if (entry && entry->type & MACH_PORT_TYPE_SEND && entry->socket && entry->socket->file) {
        fd = fcntl(entry->socket->fd, F_DUPFD_CLOEXEC, 3);
        error = errno;
    }
    if (task)
        task_leave(task);
    errno = error;
    return fd;
}

int fileport_makeport(int fd, mach_port_t *port) { return machrv_fileport_makeport(mach_task_self(), fd, port); }

int fileport_makefd(mach_port_t port) { return machrv_fileport_makefd(mach_task_self(), port); }

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
