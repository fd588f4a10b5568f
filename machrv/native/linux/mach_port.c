/*
 * The calls of <mach/mach_port.h>: arguments in, return codes out, in the order in which XNU checks (osfmk/ipc/mach_port.c).
 *
 * What must never happen here: the rules of rights (ipc_right.c).
 */

#include "ipc.h"

#define VALID(name) ((name) != MACH_PORT_NULL && (name) != MACH_PORT_DEAD)

/* The entry of a name; NULL, and *kr. */
static struct ipc_entry *find(struct ipc_task *task, mach_port_name_t name, kern_return_t *kr)
{
    struct ipc_entry *entry = ipc_entry_lookup(task, name);
    *kr = entry ? KERN_SUCCESS : KERN_INVALID_NAME;
    return entry;
}

/* The port of a receive right; NULL, and *kr. */
static struct ipc_port *find_receive(struct ipc_task *task, mach_port_name_t name, kern_return_t *kr)
{
    struct ipc_entry *entry;
    *kr = KERN_INVALID_RIGHT;
    if (!VALID(name) || !(entry = find(task, name, kr)))
        return NULL;
    *kr = entry->type & MACH_PORT_TYPE_RECEIVE ? KERN_SUCCESS : KERN_INVALID_RIGHT;
    return *kr == KERN_SUCCESS ? entry->port : NULL;
}

static struct ipc_pset *find_set(struct ipc_task *task, mach_port_name_t name, kern_return_t *kr)
{
    struct ipc_entry *entry;
    *kr = KERN_INVALID_RIGHT;
    if (!VALID(name) || !(entry = find(task, name, kr)))
        return NULL;
    *kr = entry->type == MACH_PORT_TYPE_PORT_SET ? KERN_SUCCESS : KERN_INVALID_RIGHT;
    return *kr == KERN_SUCCESS ? entry->pset : NULL;
}

/* -- making names --------------------------------------------------------------------------------------------------------- */

/* Makes an entry, under a fresh name or a free one that the caller chose, what it was allocated for. */
static kern_return_t furnish(struct ipc_task *task, mach_port_right_t right, mach_port_name_t name, struct ipc_entry **made)
{
    struct ipc_port *port = right == MACH_PORT_RIGHT_RECEIVE ? ipc_port_new(NULL) : NULL;
    struct ipc_pset *pset = right == MACH_PORT_RIGHT_PORT_SET ? ipc_pset_new() : NULL;
    struct ipc_entry *entry = NULL;
    kern_return_t kr = KERN_RESOURCE_SHORTAGE;
    if (right != MACH_PORT_RIGHT_DEAD_NAME && !port && !pset)
        return kr;
    if (name == MACH_PORT_NULL)
        kr = (entry = ipc_entry_alloc(task)) ? KERN_SUCCESS : KERN_RESOURCE_SHORTAGE;
    else
        kr = ipc_entry_alloc_name(task, name, &entry);
    if (kr == KERN_SUCCESS && entry->type)
        kr = KERN_NAME_EXISTS;
    if (kr != KERN_SUCCESS) {
        if (port)
            ipc_port_release(port);
        if (pset)
            ipc_pset_release(pset);
        return kr;
    }
    if (port) {
        entry->type = MACH_PORT_TYPE_RECEIVE;
        entry->port = port;
        ipc_port_enter(port, task, entry->name);
    } else if (pset) {
        entry->type = MACH_PORT_TYPE_PORT_SET;
        entry->pset = pset;
        pset->task = task;
        pset->name = entry->name;
    } else {
        entry->type = MACH_PORT_TYPE_DEAD_NAME;
        entry->urefs = 1;
    }
    *made = entry;
    return KERN_SUCCESS;
}

static kern_return_t allocate(mach_port_t handle, mach_port_right_t right, mach_port_name_t wanted, mach_port_name_t *name)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry;
    kern_return_t kr;
    if (!task)
        return KERN_INVALID_TASK;
    if (right != MACH_PORT_RIGHT_RECEIVE && right != MACH_PORT_RIGHT_PORT_SET && right != MACH_PORT_RIGHT_DEAD_NAME)
        kr = KERN_INVALID_VALUE;
    else if ((kr = furnish(task, right, wanted, &entry)) == KERN_SUCCESS)
        *name = entry->name;
    task_leave(task);
    return kr;
}

kern_return_t mach_port_allocate(mach_port_t handle, mach_port_right_t right, mach_port_name_t *name)
{
    return allocate(handle, right, MACH_PORT_NULL, name);
}

kern_return_t mach_port_allocate_name(mach_port_t handle, mach_port_right_t right, mach_port_name_t name)
{
    return VALID(name) ? allocate(handle, right, name, &name) : KERN_INVALID_VALUE;
}

mach_port_t mach_reply_port(void)
{
    mach_port_name_t name = MACH_PORT_NULL;
    return mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &name) == KERN_SUCCESS ? name : MACH_PORT_NULL;
}

kern_return_t mach_port_construct(mach_port_t handle, mach_port_options_t *options, mach_port_context_t context,
                                  mach_port_name_t *name)
{
    const uint32_t kinds =
        options->flags & (MPO_REPLY_PORT | MPO_ENFORCE_REPLY_PORT_SEMANTICS | MPO_EXCEPTION_PORT | MPO_PROVISIONAL_REPLY_PORT);
    const uint32_t services = options->flags & (MPO_SERVICE_PORT | MPO_CONNECTION_PORT | MPO_TG_BLOCK_TRACKING);
    const uint32_t importance = options->flags & (MPO_TEMPOWNER | MPO_IMPORTANCE_RECEIVER | MPO_DENAP_RECEIVER);
    struct ipc_task *task;
    struct ipc_entry *entry;
    kern_return_t kr;
    if (kinds & (kinds - 1) || services & (services - 1))
        return KERN_INVALID_ARGUMENT;
    if (services) /* those are launchd's, its services' (whose port nobody has named), and the window server's */
        return services == MPO_CONNECTION_PORT && !options->reserved[0] ? KERN_INVALID_ARGUMENT : KERN_DENIED;
    if (options->flags & MPO_QLIMIT && options->mpl.mpl_qlimit > MACH_PORT_QLIMIT_MAX)
        return KERN_INVALID_VALUE;
    task = task_enter(handle);
    if (!task)
        return KERN_INVALID_TASK;
    kr = furnish(task, MACH_PORT_RIGHT_RECEIVE, MACH_PORT_NULL, &entry);
    if (kr == KERN_SUCCESS) {
        struct ipc_port *port = entry->port;
        if (options->flags & MPO_QLIMIT)
            ipc_mqueue_set_qlimit(port, options->mpl.mpl_qlimit);
        port->context = context;
        port->guarded = options->flags & MPO_CONTEXT_AS_GUARD;
        port->strict = port->guarded && options->flags & MPO_STRICT;
        port->immovable = port->guarded && options->flags & MPO_IMMOVABLE_RECEIVE;
        port->importance = (importance ? MACH_PORT_STATUS_FLAG_IMP_DONATION : 0) |
                           (importance & MPO_TEMPOWNER ? MACH_PORT_STATUS_FLAG_TEMPOWNER : 0);
        if (options->flags & MPO_INSERT_SEND_RIGHT) {
            ipc_port_count_made(port);
            entry->type |= MACH_PORT_TYPE_SEND;
            entry->urefs = 1;
        }
        *name = entry->name;
    }
    task_leave(task);
    return kr;
}

/* -- giving up -------------------------------------------------------------------------------------------------------------- */

static kern_return_t destruct(struct ipc_task *task, struct ipc_entry *entry, mach_port_delta_t srdelta, uint64_t guard)
{
    if (!(entry->type & MACH_PORT_TYPE_RECEIVE) || (srdelta && !(entry->type & MACH_PORT_TYPE_SEND)))
        return KERN_INVALID_RIGHT;
    if (srdelta > 0)
        return KERN_INVALID_VALUE;
    if (entry->port->guarded && entry->port->context != guard)
        return KERN_INVALID_ARGUMENT;
    if (srdelta && (int64_t)entry->urefs + srdelta < 0)
        return KERN_INVALID_VALUE;
    if (srdelta) {
        kern_return_t kr = ipc_right_delta(task, entry, MACH_PORT_RIGHT_SEND, srdelta);
        if (kr != KERN_SUCCESS)
            return kr;
    }
    ipc_right_end_receive(task, entry);
    return KERN_SUCCESS;
}

kern_return_t mach_port_destruct(mach_port_t handle, mach_port_name_t name, mach_port_delta_t srdelta,
                                 mach_port_context_t guard)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry;
    kern_return_t kr = KERN_INVALID_NAME;
    if (!task)
        return KERN_INVALID_TASK;
    if (VALID(name) && (entry = find(task, name, &kr)))
        kr = destruct(task, entry, srdelta, guard);
    task_leave(task);
    return kr;
}

kern_return_t mach_port_deallocate(mach_port_t handle, mach_port_name_t name)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry;
    kern_return_t kr = KERN_SUCCESS;
    if (!task)
        return KERN_INVALID_TASK;
    if (VALID(name) && (entry = find(task, name, &kr)))
        kr = ipc_right_dealloc(task, entry);
    task_leave(task);
    return kr;
}

kern_return_t mach_port_destroy(mach_port_t handle, mach_port_name_t name)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry;
    kern_return_t kr = KERN_SUCCESS;
    if (!task)
        return KERN_INVALID_TASK;
    if (VALID(name) && (entry = find(task, name, &kr)))
        kr = ipc_right_destroy(task, entry, true);
    task_leave(task);
    return kr;
}

kern_return_t mach_port_mod_refs(mach_port_t handle, mach_port_name_t name, mach_port_right_t right, mach_port_delta_t delta)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry;
    kern_return_t kr;
    if (!task)
        return KERN_INVALID_TASK;
    if (right >= MACH_PORT_RIGHT_NUMBER)
        kr = KERN_INVALID_VALUE;
    else if (!VALID(name))
        kr = right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_SEND_ONCE ? KERN_SUCCESS : KERN_INVALID_NAME;
    else if ((entry = find(task, name, &kr)))
        kr = ipc_right_delta(task, entry, right, delta);
    task_leave(task);
    return kr;
}

/* -- looking ----------------------------------------------------------------------------------------------------------------- */

kern_return_t mach_port_get_refs(mach_port_t handle, mach_port_name_t name, mach_port_right_t right, mach_port_urefs_t *refs)
{
    struct ipc_task *task = task_look(handle);
    struct ipc_entry *entry;
    kern_return_t kr = KERN_SUCCESS;
    if (!task)
        return KERN_INVALID_TASK;
    if (right >= MACH_PORT_RIGHT_NUMBER) {
        kr = KERN_INVALID_VALUE;
    } else if (!VALID(name)) {
        if (right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_SEND_ONCE)
            *refs = 1;
        else
            kr = KERN_INVALID_NAME;
    } else if ((entry = find(task, name, &kr))) {
        ipc_right_check(task, entry);
        *refs = !(entry->type & MACH_PORT_TYPE(right))                                ? 0
                : right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_DEAD_NAME ? entry->urefs
                                                                                      : 1;
    }
    task_leave(task);
    return kr;
}

kern_return_t mach_port_type(mach_port_t handle, mach_port_name_t name, mach_port_type_t *type)
{
    struct ipc_task *task = task_look(handle);
    struct ipc_entry *entry;
    kern_return_t kr = KERN_SUCCESS;
    if (!task)
        return KERN_INVALID_TASK;
    if (name == MACH_PORT_DEAD) {
        *type = MACH_PORT_TYPE_DEAD_NAME;
    } else if ((entry = find(task, name, &kr))) {
        ipc_right_check(task, entry);
        /* mach_port_names() tells those, and this call does not (osfmk/ipc/mach_port.c, mach_port_type). */
        *type = ipc_right_type(entry) & ~(mach_port_type_t)(MACH_PORT_TYPE_SPREQUEST | MACH_PORT_TYPE_SPREQUEST_DELAYED);
    }
    task_leave(task);
    return kr;
}

/* An array for the caller, who gives it back with vm_deallocate(). */
static kern_return_t array(uint32_t count, mach_port_name_t **into)
{
    vm_address_t address = 0;
    kern_return_t kr = count ? vm_allocate(mach_task_self(), &address, count * sizeof **into, VM_FLAGS_ANYWHERE) : KERN_SUCCESS;
    *into = (mach_port_name_t *)address;
    return kr == KERN_SUCCESS ? kr : KERN_RESOURCE_SHORTAGE;
}

kern_return_t mach_port_names(mach_port_t handle, mach_port_name_t **names, mach_msg_type_number_t *names_count,
                              mach_port_type_t **types, mach_msg_type_number_t *types_count)
{
    struct ipc_task *task = task_look(handle);
    uint32_t count = 0, at = 0;
    kern_return_t kr;
    if (!task)
        return KERN_INVALID_TASK;
    ipc_right_check_all(task);
    for (uint32_t index = 0; index < task->table_size; index++)
        count += task->table[index] && task->table[index]->type;
    kr = array(count, names);
    if (kr == KERN_SUCCESS && (kr = array(count, types)) != KERN_SUCCESS && count)
        vm_deallocate(mach_task_self(), (vm_address_t)*names, count * sizeof **names);
    for (uint32_t index = 0; index < task->table_size && kr == KERN_SUCCESS && at < count; index++)
        if (task->table[index] && task->table[index]->type) {
            (*names)[at] = task->table[index]->name;
            (*types)[at++] = ipc_right_type(task->table[index]);
        }
    if (kr == KERN_SUCCESS)
        *names_count = *types_count = count;
    task_leave(task);
    return kr;
}

/* -- within a task ----------------------------------------------------------------------------------------------------------- */

/* One reference more where the right stands already (ipc_object_insert_send_right). */
static kern_return_t insert_send(struct ipc_task *task, struct ipc_entry *entry, mach_msg_type_name_t disposition)
{
    if (ipc_right_check(task, entry) || entry->type == MACH_PORT_TYPE_DEAD_NAME)
        return KERN_INVALID_CAPABILITY;
    if (!(entry->type & (disposition == MACH_MSG_TYPE_MAKE_SEND ? MACH_PORT_TYPE_RECEIVE : MACH_PORT_TYPE_SEND)))
        return KERN_INVALID_RIGHT;
    if (disposition == MACH_MSG_TYPE_MAKE_SEND) {
        ipc_port_count_made(entry->port);
        entry->type |= MACH_PORT_TYPE_SEND;
    }
    ipc_right_add_urefs(entry);
    return KERN_SUCCESS;
}

/* Under this name or not at all (ipc_object_copyout_name): the name is looked at first, then who has the right already. */
static kern_return_t copyout_name(struct ipc_task *task, struct ipc_right *right, mach_port_name_t name)
{
    struct ipc_entry *entry, *holder;
    kern_return_t kr;
    if (!VALID(name))
        return KERN_INVALID_VALUE;
    if (ipc_right_is_dead(right))
        return KERN_INVALID_CAPABILITY;
    kr = ipc_entry_alloc_name(task, name, &entry);
    if (kr != KERN_SUCCESS)
        return kr;
    holder = right->kind == KIND_ONCE ? NULL : ipc_right_reverse(task, right);
    if (holder && holder != entry)
        kr = KERN_RIGHT_EXISTS;
    else if (!holder && entry->type)
        kr = KERN_NAME_EXISTS;
    if (!entry->type)
        ipc_entry_dealloc(task, entry);
    if (kr == KERN_SUCCESS)
        ipc_right_copyout(task, right, name);
    return kr;
}

kern_return_t mach_port_insert_right(mach_port_t handle, mach_port_name_t name, mach_port_t poly,
                                     mach_msg_type_name_t disposition)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_right right = NO_RIGHT;
    struct ipc_entry *entry;
    kern_return_t kr;
    if (!task)
        return KERN_INVALID_TASK;
    entry = find(task, poly, &kr);
    if (entry && name == poly && (disposition == MACH_MSG_TYPE_MAKE_SEND || disposition == MACH_MSG_TYPE_COPY_SEND))
        kr = insert_send(task, entry, disposition);
    else if (entry && (kr = ipc_right_copyin(task, entry, disposition, true, &right)) == KERN_SUCCESS)
        kr = copyout_name(task, &right, name);
    if (right.kind)
        ipc_right_release(task, &right);
    task_leave(task);
    return kr;
}

kern_return_t mach_port_extract_right(mach_port_t handle, mach_port_name_t name, mach_msg_type_name_t disposition,
                                      mach_port_t *poly, mach_msg_type_name_t *kind)
{
    struct ipc_task *task;
    struct ipc_right right;
    struct ipc_entry *entry;
    kern_return_t kr = KERN_INVALID_RIGHT;
    if (!ipc_right_kind(disposition))
        return KERN_INVALID_VALUE;
    task = task_enter(handle);
    if (!task)
        return KERN_INVALID_TASK;
    if (VALID(name) && (entry = find(task, name, &kr)) &&
        (kr = ipc_right_copyin(task, entry, disposition, true, &right)) == KERN_SUCCESS) {
        *poly = ipc_right_copyout(task, &right, MACH_PORT_NULL);
        *kind = ipc_right_kind(disposition);
    }
    task_leave(task);
    return kr;
}

/* -- sets -------------------------------------------------------------------------------------------------------------------- */

static kern_return_t insert(struct ipc_pset *pset, struct ipc_port *port)
{
    return ipc_pset_insert(pset, port) ? KERN_RESOURCE_SHORTAGE : KERN_SUCCESS;
}

kern_return_t mach_port_move_member(mach_port_t handle, mach_port_name_t member, mach_port_name_t after)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_pset *pset = NULL;
    struct ipc_port *port;
    kern_return_t kr = KERN_SUCCESS;
    if (!task)
        return KERN_INVALID_TASK;
    if (!VALID(member) || after == MACH_PORT_DEAD)
        kr = KERN_INVALID_RIGHT;
    else if (after != MACH_PORT_NULL)
        pset = find_set(task, after, &kr);
    if (kr == KERN_SUCCESS && (port = find_receive(task, member, &kr))) {
        while (port->nsets > 0)
            ipc_pset_remove(port->sets[port->nsets - 1], port);
        kr = pset ? insert(pset, port) : KERN_SUCCESS;
    }
    task_leave(task);
    return kr;
}

kern_return_t mach_port_insert_member(mach_port_t handle, mach_port_name_t name, mach_port_name_t set)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_pset *pset;
    struct ipc_port *port;
    kern_return_t kr = KERN_INVALID_RIGHT;
    if (!task)
        return KERN_INVALID_TASK;
    if (VALID(name) && (pset = find_set(task, set, &kr)) && (port = find_receive(task, name, &kr)))
        kr = ipc_pset_is_member(pset, port) ? KERN_ALREADY_IN_SET : insert(pset, port);
    task_leave(task);
    return kr;
}

kern_return_t mach_port_extract_member(mach_port_t handle, mach_port_name_t name, mach_port_name_t set)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_pset *pset;
    struct ipc_port *port;
    kern_return_t kr = KERN_INVALID_RIGHT;
    if (!task)
        return KERN_INVALID_TASK;
    if (VALID(name) && VALID(set) && find(task, name, &kr) && find(task, set, &kr) && (port = find_receive(task, name, &kr)) &&
        (pset = find_set(task, set, &kr))) {
        if (ipc_pset_is_member(pset, port))
            ipc_pset_remove(pset, port);
        else
            kr = KERN_NOT_IN_SET;
    }
    task_leave(task);
    return kr;
}

static int by_number(const void *one, const void *two)
{
    mach_port_name_t a = *(const mach_port_name_t *)one, b = *(const mach_port_name_t *)two;
    return (a > b) - (a < b);
}

kern_return_t mach_port_get_set_status(mach_port_t handle, mach_port_name_t name, mach_port_name_t **members,
                                       mach_msg_type_number_t *count)
{
    struct ipc_task *task = task_look(handle);
    struct ipc_pset *pset;
    kern_return_t kr;
    if (!task)
        return KERN_INVALID_TASK;
    pset = find_set(task, name, &kr);
    if (pset && (kr = array(pset->nmembers, members)) == KERN_SUCCESS) {
        for (unsigned i = 0; i < pset->nmembers; i++)
            (*members)[i] = pset->members[i]->name;
        if (pset->nmembers)
            qsort(*members, pset->nmembers, sizeof **members, by_number);
        *count = pset->nmembers;
    }
    task_leave(task);
    return kr;
}
