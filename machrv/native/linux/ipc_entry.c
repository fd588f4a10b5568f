/*
 * Names: index in the upper 24 bits, generation in the lower 8, as XNU lays them out (osfmk/ipc/ipc_entry.c). A name that
 * was given up is given out again with the next of 64 generations, the last first, so that a stale name is an error and not
 * another right.
 *
 * What must never happen here: a system call, or knowledge of what a right does. All of it: locked.
 */

#include "ipc.h"

/* gcc's analyzer forgets what stands in the table as soon as anything is written by way of it. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define FIRST_INDEX 2      /* 0 is MACH_PORT_NULL's, 1 is never given out */
#define MAX_INDEX 0x100000 /* as many names, and none beyond: KERN_NO_SPACE */
#define NAME(index) ((mach_port_name_t)(index) << 8 | 3)
#define NEXT_GENERATION(name) (((name)&0xffffff00) | ((((name) + 4) | 3) & 0xff))

static bool grow(struct ipc_task *task, uint32_t size)
{
    uint32_t larger = task->table_size ? task->table_size : 16;
    struct ipc_entry **table;
    while (larger < size)
        larger *= 2;
    if (larger == task->table_size)
        return true;
    table = realloc(task->table, larger * sizeof *table);
    if (!table)
        return false;
    memset(table + task->table_size, 0, (larger - task->table_size) * sizeof *table);
    task->table = table;
    task->table_size = larger;
    return true;
}

struct ipc_entry *ipc_entry_lookup(struct ipc_task *task, mach_port_name_t name)
{
    uint32_t index = name >> 8;
    struct ipc_entry *entry = index < task->table_size ? task->table[index] : NULL;
    return entry && entry->type && entry->name == name ? entry : NULL;
}

/* The entry of an index that has none yet. */
static struct ipc_entry *new_entry(struct ipc_task *task, uint32_t index)
{
    struct ipc_entry *entry;
    if (!grow(task, index + 1) || !(entry = calloc(1, sizeof *entry)))
        return NULL;
    entry->name = NAME(index);
    task->table[index] = entry;
    return entry;
}

/* One more free entry, behind those that are free: they are given out in the order of their numbers. */
static bool extend(struct ipc_task *task)
{
    uint32_t index = task->next_index ? task->next_index : FIRST_INDEX;
    if (index > MAX_INDEX || (!(index < task->table_size && task->table[index]) && !new_entry(task, index)))
        return false;
    task->next_index = index + 1;
    if (task->free_head)
        task->table[task->free_tail]->next_free = index;
    else
        task->free_head = index;
    task->free_tail = index;
    task->nfree++;
    return true;
}

bool ipc_entry_reserve(struct ipc_task *task, unsigned count)
{
    while (task->nfree < count)
        if (!extend(task))
            return false;
    return true;
}

struct ipc_entry *ipc_entry_alloc(struct ipc_task *task)
{
    struct ipc_entry *entry;
    if (!ipc_entry_reserve(task, 1))
        return NULL;
    entry = task->table[task->free_head];
    task->free_head = entry->next_free;
    entry->next_free = 0;
    task->nfree--;
    return entry;
}

/* Takes an entry out of the list of free ones, if it is there. */
static void unlist(struct ipc_task *task, uint32_t index)
{
    uint32_t *place = &task->free_head, before = 0;
    while (*place && *place != index) {
        before = *place;
        place = &task->table[*place]->next_free;
    }
    if (!*place)
        return;
    *place = task->table[index]->next_free;
    task->table[index]->next_free = 0;
    task->nfree--;
    if (task->free_tail == index)
        task->free_tail = before;
}

kern_return_t ipc_entry_alloc_name(struct ipc_task *task, mach_port_name_t name, struct ipc_entry **found)
{
    uint32_t index = name >> 8;
    struct ipc_entry *entry;
    if (index > MAX_INDEX)
        return KERN_NO_SPACE;
    if ((name & 3) != 3)
        return KERN_INVALID_VALUE; /* no valid generation */
    if (index == 0)
        return KERN_FAILURE;
    entry = index < task->table_size ? task->table[index] : NULL;
    if (entry && entry->type) {
        *found = entry;
        return entry->name == name ? KERN_SUCCESS : KERN_FAILURE;
    }
    while (index >= FIRST_INDEX && index >= task->next_index)
        if (!extend(task))
            return KERN_RESOURCE_SHORTAGE;
    if (index < FIRST_INDEX && !entry && !new_entry(task, index))
        return KERN_RESOURCE_SHORTAGE;
    entry = task->table[index];
    unlist(task, index);
    entry->name = name;
    *found = entry;
    return KERN_SUCCESS;
}

void ipc_entry_dealloc(struct ipc_task *task, struct ipc_entry *entry)
{
    entry->type = 0;
    entry->urefs = 0;
    entry->name = NEXT_GENERATION(entry->name);
    entry->next_free = task->free_head;
    task->free_head = entry->name >> 8;
    if (task->nfree++ == 0)
        task->free_tail = task->free_head;
}

void ipc_entry_free_table(struct ipc_task *task)
{
    for (uint32_t index = 0; index < task->table_size; index++)
        free(task->table[index]);
    free(task->table);
    task->table = NULL;
    task->table_size = 0;
}

/* -- by the port that a socket claims ------------------------------------------------------------------------------------------ */

unsigned id_hash(const char id[PORT_ID])
{
    unsigned hash = 0;
    for (int i = 0; i < 8; i++)
        hash = hash * 31 + (unsigned char)id[i];
    return hash % ID_BUCKETS;
}

void ipc_entry_remember(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_entry **bucket;
    if (!entry->socket || !entry->socket->named || !(entry->type & MACH_PORT_TYPE_SEND))
        return;
    bucket = &task->by_id[id_hash(entry->socket->id)];
    while (*bucket) /* behind the others: the first that came is the first that is found */
        bucket = &(*bucket)->same_hash;
    entry->same_hash = NULL;
    *bucket = entry;
}

void ipc_entry_forget(struct ipc_task *task, struct ipc_entry *entry)
{
    struct ipc_entry **place;
    if (!entry->socket || !entry->socket->named)
        return;
    place = &task->by_id[id_hash(entry->socket->id)];
    while (*place && *place != entry)
        place = &(*place)->same_hash;
    if (*place) {
        *place = entry->same_hash;
        entry->same_hash = NULL;
    }
}
