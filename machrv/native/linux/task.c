/*
 * The tasks of this process: port spaces, the first and further ones; who this process is; and what a fork does.
 *
 * Rights are not inherited: the child of a fork starts with its parent's tasks emptied. What must never happen here: a task
 * that goes while somebody is inside.
 */

#include "ipc.h"

#include <sched.h>

#define FIRST_TASK 1 /* handles are no names: names begin at 0x203 (ipc_entry.c) */

static pthread_mutex_t tasks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ipc_task **tasks; /* by handle - FIRST_TASK; NULL: free */
static size_t ntasks;
static struct ipc_task first_task;
static struct ipc_task *first_place[1];

mach_port_t bootstrap_port = FIRST_TASK;

static uint16_t numbered; /* how many tasks have been numbered, the first by who comes first */

static void task_init(struct ipc_task *task, mach_port_t handle)
{
    memset(task, 0, sizeof *task);
    pthread_mutex_init(&task->lock, NULL);
    atomic_init(&task->refs, 1);
    task->handle = handle;
    task->number = numbered++;
    task->watcher = task->kick = task->retry = -1;
    task->doomed_last = &task->doomed;
}

static void ipc_task_abandon(struct ipc_task *task);

/* -- fork ------------------------------------------------------------------------------------------------------------------ */

static void before_fork(void)
{
    pthread_mutex_lock(&tasks_lock);
    for (size_t i = 0; i < ntasks; i++)
        if (tasks[i])
            pthread_mutex_lock(&tasks[i]->lock);
    pthread_mutex_lock(&ipc_ports_lock);
    bootstrap_before_fork();
    closing_before_fork();
}

static void after_fork_in_parent(void)
{
    closing_after_fork_in_parent();
    bootstrap_after_fork_in_parent();
    pthread_mutex_unlock(&ipc_ports_lock);
    for (size_t i = ntasks; i-- > 0;)
        if (tasks[i])
            pthread_mutex_unlock(&tasks[i]->lock);
    pthread_mutex_unlock(&tasks_lock);
}

static void after_fork_in_child(void)
{
    closing_after_fork_in_child();
    bootstrap_after_fork_in_child();
    pthread_mutex_init(&ipc_ports_lock, NULL);
    task_forget_self();
    for (size_t i = 0; i < ntasks; i++)
        if (tasks[i]) {
            ipc_task_abandon(tasks[i]); /* whoever was inside is not here */
        }
    ipc_ports_forget();
    pthread_mutex_init(&tasks_lock, NULL);
    closing_pause();
}

static void prepare(void)
{
    task_init(&first_task, FIRST_TASK);
    numbered = 0; /* it is numbered when it is used */
    first_place[0] = &first_task;
    tasks = first_place;
    ntasks = 1;
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static void prepare_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
}

/* Closes what a task has in the child of a fork: the parent's rights live on, so nothing is sent. A file may have to be flushed by
   each who closes it, and that can wait. */
static void abandon_socket(struct ipc_socket *socket)
{
    if (socket && socket->fd >= 0) {
        if (socket->file)
            close_later(socket->fd);
        else
            close(socket->fd);
        socket->fd = -1; /* whoever else counts it finds it closed */
    }
}

static void abandon_port(struct ipc_port *port)
{
    for (struct ipc_end *end = port->ends, *next; end; end = next) {
        next = end->next;
        attested_process_forget(&end->sender);
        if (end->fd >= 0)
            close(end->fd);
        free(end);
    }
    abandon_socket(port->epoll);
    abandon_socket(port->nsrequest.socket);
    abandon_socket(port->pdrequest.socket);
    bootstrap_name_forget(port->bootstrap);
    free(port->left);
    free(port->sets);
    free(port->heap);
    free(port->events);
    free(port);
}

static void abandon_held(struct ipc_held *all)
{
    for (struct ipc_held *held = all; held; held = held->next)
        for (size_t i = 0; i < held->count; i++) {
            abandon_socket(held->rights[i].socket);
            if (held->rights[i].kind == KIND_RECEIVE && held->rights[i].port)
                abandon_port(held->rights[i].port);
        }
    for (struct ipc_held *held = all, *next; held; held = next) {
        next = held->next;
        free(held->message);
    }
}

static void ipc_task_abandon(struct ipc_task *task)
{
    mach_port_t handle = task->handle;
    uint16_t number = task->number;
    abandon_held(task->held);
    for (uint32_t index = 0; index < task->table_size; index++) {
        struct ipc_entry *entry = task->table[index];
        if (!entry || !entry->type)
            continue;
        abandon_socket(entry->socket);
        abandon_socket(entry->request.notify.socket);
        if (entry->pset)
            abandon_socket(entry->pset->epoll);
        if (entry->type & MACH_PORT_TYPE_RECEIVE)
            abandon_port(entry->port);
    }
    ipc_wait_close(task);
    ipc_entry_free_table(task);
    free(task->packet);
    task_init(task, handle);
    numbered--;
    task->number = number;
}

/* A task's number is told in the tokens of its messages: 0 is that of the first that is used. */
static atomic_bool first_is_numbered;

static void number_first(void)
{
    pthread_mutex_lock(&tasks_lock);
    if (!first_is_numbered)
        first_task.number = numbered++;
    first_is_numbered = true;
    pthread_mutex_unlock(&tasks_lock);
}

/* -- handles ---------------------------------------------------------------------------------------------------------------- */

mach_port_t mach_task_self(void) { return FIRST_TASK; }

struct ipc_task *task_find(mach_port_t handle)
{
    struct ipc_task *task = NULL;
    size_t place = (size_t)handle - FIRST_TASK;
    prepare_once();
    if (handle == FIRST_TASK) {
        if (!first_is_numbered)
            number_first();
        atomic_fetch_add(&first_task.refs, 1);
        return &first_task;
    }
    pthread_mutex_lock(&tasks_lock);
    if (handle >= FIRST_TASK && place < ntasks && (task = tasks[place]))
        atomic_fetch_add(&task->refs, 1);
    pthread_mutex_unlock(&tasks_lock);
    return task;
}

void task_release(struct ipc_task *task)
{
    if (atomic_fetch_sub(&task->refs, 1) > 1)
        return;
    ipc_wait_close(task);
    ipc_entry_free_table(task);
    free(task->packet);
    pthread_mutex_destroy(&task->lock);
    if (task != &first_task) /* that one is never given up */
        free(task);
}

struct packet *ipc_task_packet(struct ipc_task *task)
{
    if (!task->packet && (task->packet = malloc(sizeof *task->packet)))
        task->packet->length = task->packet->nfds = 0;
    return task->packet;
}

struct ipc_task *task_enter(mach_port_t handle)
{
    struct ipc_task *task = task_find(handle);
    if (task)
        pthread_mutex_lock(&task->lock);
    return task;
}

struct ipc_task *task_look(mach_port_t handle)
{
    struct ipc_task *task = task_enter(handle);
    if (task && (task->watched || task->starving))
        ipc_pump(task);
    return task;
}

void task_leave(struct ipc_task *task)
{
    pthread_mutex_unlock(&task->lock);
    task_release(task);
    closing_pause();
}

bool task_is_valid(mach_port_t handle)
{
    struct ipc_task *task = task_find(handle);
    if (task)
        task_release(task);
    return task != NULL;
}

/* A place in the table of tasks, which is locked; ntasks without memory. */
static size_t free_place(void)
{
    struct ipc_task **more;
    size_t place = 1;
    while (place < ntasks && tasks[place])
        place++;
    if (place < ntasks || ntasks > UINT16_MAX)
        return place < ntasks ? place : SIZE_MAX;
    more = malloc(2 * ntasks * sizeof *more);
    if (!more)
        return SIZE_MAX;
    memcpy(more, tasks, ntasks * sizeof *more);
    memset(more + ntasks, 0, ntasks * sizeof *more);
    if (tasks != first_place)
        free(tasks);
    tasks = more;
    ntasks *= 2;
    return place;
}

kern_return_t machrv_task_create(mach_port_t *handle)
{
    struct ipc_task *task = malloc(sizeof *task);
    size_t place;
    prepare_once();
    if (!task)
        return KERN_RESOURCE_SHORTAGE;
    pthread_mutex_lock(&tasks_lock);
    place = free_place();
    if (place != SIZE_MAX) {
        task_init(task, (mach_port_t)place + FIRST_TASK);
        tasks[place] = task;
        *handle = task->handle;
    }
    pthread_mutex_unlock(&tasks_lock);
    if (place == SIZE_MAX) {
        free(task);
        return KERN_RESOURCE_SHORTAGE;
    }
    return KERN_SUCCESS;
}

kern_return_t machrv_task_terminate(mach_port_t handle)
{
    struct ipc_task *task = task_enter(handle);
    if (!task)
        return KERN_INVALID_ARGUMENT;
    for (uint32_t index = 0; index < task->table_size; index++) {
        struct ipc_entry *entry = task->table[index];
        if (entry && entry->type)
            ipc_right_destroy(task, entry, false);
    }
    ipc_kmsg_reap(task);
    ipc_kick(task);
    if (!task->waiting)
        ipc_wait_close(task);
    task_leave(task);
    return KERN_SUCCESS;
}

kern_return_t machrv_task_deallocate(mach_port_t handle)
{
    kern_return_t kr = machrv_task_terminate(handle);
    struct ipc_task *task = NULL;
    if (kr != KERN_SUCCESS || handle == FIRST_TASK)
        return kr;
    pthread_mutex_lock(&tasks_lock);
    if (handle - FIRST_TASK < ntasks) {
        task = tasks[handle - FIRST_TASK];
        tasks[handle - FIRST_TASK] = NULL;
    }
    pthread_mutex_unlock(&tasks_lock);
    if (!task)
        return KERN_INVALID_ARGUMENT; /* another thread was first */
    task_release(task);
    return KERN_SUCCESS;
}

/* -- who this process is -------------------------------------------------------------------------------------------------------- */

/* Nobody, as long as it is not known: no packet may be taken for one of our own by accident. */
static atomic_int known_pid = -1;
static _Atomic uint64_t known_process;

void task_forget_self(void)
{
    known_pid = -1;
    known_process = 0;
}

pid_t self_pid(void)
{
    if (known_pid < 0)
        known_pid = getpid();
    return known_pid;
}

uint64_t self_process(void)
{
    if (known_process == 0) {
        int pidfd = machrv_pidfd_open(self_pid());
        known_process = machrv_process(self_pid(), pidfd);
        if (pidfd >= 0)
            close(pidfd);
    }
    return known_process;
}

void self_token(uint16_t space, uint32_t euid, uint32_t egid, uint32_t ruid, uint32_t rgid, audit_token_t *token)
{
    *token = (audit_token_t){{UINT32_MAX, euid, egid, ruid, rgid, (uint32_t)self_pid(), space, (uint32_t)self_process()}};
}

kern_return_t machrv_task_token(mach_port_t handle, audit_token_t *token)
{
    struct ipc_task *task = task_find(handle);
    if (!task)
        return KERN_INVALID_ARGUMENT;
    self_token(task->number, geteuid(), getegid(), getuid(), getgid(), token);
    task_release(task);
    return KERN_SUCCESS;
}
