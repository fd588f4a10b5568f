/*
 * What a task holds, for a person: `machrv ports` and `machrv trace`. Changes nothing; looks at what is our own alone.
 */

#include "ipc.h"

#include <sys/stat.h>

static uint64_t inode(int fd)
{
    struct stat file;
    return fd >= 0 && fstat(fd, &file) == 0 ? file.st_ino : 0;
}

static void read_id(const struct ipc_entry *entry, char id[PORT_ID + 1])
{
    memset(id, 0, PORT_ID + 1);
    if (entry->port)
        memcpy(id, entry->port->id, PORT_ID);
    else if (entry->socket && entry->socket->file)
        memcpy(id, "file", 4);
    else if (entry->socket && entry->socket->named)
        memcpy(id, entry->socket->id, PORT_ID);
}

kern_return_t machrv_port_identity(mach_port_t handle, mach_port_name_t name, char *id, mach_port_type_t *type)
{
    struct ipc_task *task = task_find(handle);
    struct ipc_entry *entry;
    *id = 0;
    *type = MACH_PORT_TYPE_NONE;
    if (!task)
        return KERN_INVALID_TASK;
    pthread_mutex_lock(&task->lock);
    entry = ipc_entry_lookup(task, name);
    if (entry) {
        read_id(entry, id);
        *type = entry->type;
    }
    task_leave(task);
    return KERN_SUCCESS;
}

/* How many packets wait. They are looked at one behind the other, and all of them stay. */
static uint32_t count_packets(int fd)
{
    int passed = 0, off = -1;
    uint32_t count = 0;
    char one;
    for (;; count++) {
        ssize_t size;
        if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &passed, sizeof passed))
            break;
        size = recv(fd, &one, 1, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
        if (size <= 0)
            break;
        passed += (int)size;
    }
    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
    return count;
}

static void read_account(const struct ipc_entry *entry, machrv_account_t *into)
{
    struct ipc_port *port = entry->type & MACH_PORT_TYPE_RECEIVE ? entry->port : NULL;
    *into = (machrv_account_t){.name = entry->name,
                               .type = ipc_right_type(entry),
                               .urefs = entry->urefs,
                               .file = entry->socket && entry->socket->file};
    read_id(entry, into->id);
    /* Of a stranger's file nothing is asked: that can wait. A memfd of a memory object is one. */
    if (entry->socket && !entry->socket->file)
        into->socket = inode(entry->socket->fd);
    if (port) {
        into->ends = port->nends - (port->local != NULL);
        for (struct ipc_end *end = port->ends; end; end = end->next)
            if (end->kind != KIND_LISTENER)
                into->messages += end->local ? end->count : count_packets(end->fd);
        for (const struct ipc_message *message = port->local ? port->local->first : NULL; message; message = message->next)
            into->bytes += sizeof message->header + message->length;
        into->own = (entry->type & MACH_PORT_TYPE_SEND ? 1 : 0) + port->onces;
    }
    if (entry->pset)
        into->members = entry->pset->nmembers;
}

int machrv_account(mach_port_t handle, int first, machrv_account_t *into, int room)
{
    struct ipc_task *task = task_look(handle);
    int count = 0;
    if (!task)
        return -EINVAL;
    ipc_right_check_all(task);
    for (uint32_t index = 0; index < task->table_size; index++) {
        struct ipc_entry *entry = task->table[index];
        if (!entry || !entry->type)
            continue;
        if (count >= first && count - first < room)
            read_account(entry, &into[count - first]);
        count++;
    }
    task_leave(task);
    return count > first ? count - first : 0;
}

int machrv_account_ends(mach_port_t handle, mach_port_name_t name, uint64_t *into, int room)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry;
    int count = 0;
    if (!task)
        return -EINVAL;
    entry = ipc_entry_lookup(task, name);
    if (entry && entry->type & MACH_PORT_TYPE_RECEIVE)
        for (struct ipc_end *end = entry->port->ends; end; end = end->next)
            if (!end->local && count++ < room)
                into[count - 1] = inode(end->fd);
    task_leave(task);
    return count;
}
