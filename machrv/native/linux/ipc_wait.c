/*
 * Waiting: threads that wait on a task, event loops, and what makes a notification due while nobody calls.
 *
 * A task has a watcher, an epoll over everything that whoever waits must look at: the sockets of names with a request, the
 * ends of ports with one, an eventfd that wakes the threads. It is part of every epoll that is waited on or given out. What
 * must never happen here: a wait with the lock held; a poll of a descriptor that may be another file by then.
 */

#include "ipc.h"

#include <sys/eventfd.h>
#include <sys/timerfd.h>

/* How often it is tried again to take look-ups in, in milliseconds. */
#define RETRY 100

static int add(int epoll, int fd, uint32_t events, void *what, unsigned kind)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)(uintptr_t)what | kind};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int ipc_watcher(struct ipc_task *task)
{
    int watcher, kick, retry, error = 0;
    if (task->watcher >= 0)
        return task->watcher;
    watcher = epoll_create1(EPOLL_CLOEXEC);
    kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    retry = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (watcher < 0 || kick < 0 || retry < 0)
        error = -errno;
    if (!error)
        error = add(watcher, kick, EPOLLIN, NULL, WATCHED_KICK);
    if (!error)
        error = add(watcher, retry, EPOLLIN, NULL, WATCHED_RETRY);
    if (!error) {
        packet_note_fd(retry);
        task->watcher = watcher;
        task->kick = kick;
        task->retry = retry;
        return watcher;
    }
    for (int i = 0, fds[] = {watcher, kick, retry}; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return error;
}

void ipc_wait_close(struct ipc_task *task)
{
    int *fds[] = {&task->watcher, &task->kick, &task->retry};
    for (int i = 0; i < 3; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    task->watched = 0;
}

int ipc_watch_end(struct ipc_end *end)
{
    struct ipc_task *task = end->port->task;
    uint32_t events = end->kind == KIND_LISTENER ? EPOLLIN | EPOLLET : 0; /* a hang-up is always told */
    int error;
    if (end->watched || !task || end->local || end->hung)
        return 0;
    error = ipc_watcher(task);
    if (error < 0 || (error = add(task->watcher, end->fd, events, end, WATCHED_END)))
        return error;
    end->watched = true;
    task->watched++;
    return 0;
}

void ipc_unwatch_end(struct ipc_end *end)
{
    struct ipc_task *task = end->port->task;
    if (!end->watched)
        return;
    end->watched = false;
    if (!task || task->watcher < 0)
        return;
    epoll_ctl(task->watcher, EPOLL_CTL_DEL, end->fd, NULL);
    task->watched--;
}

int ipc_watch_entry(struct ipc_task *task, struct ipc_entry *entry)
{
    int error;
    ipc_unwatch_entry(task, entry);
    if (!entry->socket || entry->socket->file)
        return 0;
    error = ipc_watcher(task);
    if (error < 0 || (error = add(task->watcher, entry->socket->fd, entry->request.armed ? EPOLLOUT : 0, entry, WATCHED_ENTRY)))
        return error;
    entry->watched = true;
    task->watched++;
    return 0;
}

void ipc_unwatch_entry(struct ipc_task *task, struct ipc_entry *entry)
{
    if (!entry->watched)
        return;
    entry->watched = false;
    task->watched--;
    if (task->watcher >= 0)
        epoll_ctl(task->watcher, EPOLL_CTL_DEL, entry->socket->fd, NULL);
}

/* -- what has become due -------------------------------------------------------------------------------------------------- */

static void pump_entry(struct ipc_task *task, struct ipc_entry *entry, uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLERR) && ipc_right_check(task, entry))
        return;
    if (entry->request.armed && events & EPOLLOUT) {
        struct ipc_right to = entry->request.notify;
        ipc_unwatch_entry(task, entry);
        entry->request = (struct ipc_request){0};
        ipc_notify_send_possible(task, &to, entry->name);
    } else {
        ipc_unwatch_entry(task, entry); /* a hang-up that means no death would be told without end */
    }
}

static void pump_end(struct ipc_end *end)
{
    struct ipc_port *port = end->port;
    if (end->kind == KIND_LISTENER) {
        ipc_notify_check_senders(port);
        return;
    }
    end->hung = true;
    ipc_unwatch_end(end);
    ipc_notify_check_senders(port);
}

static void pump_retry(struct ipc_task *task)
{
    for (uint32_t index = 0; index < task->table_size; index++) {
        struct ipc_entry *entry = task->table[index];
        if (entry && entry->type & MACH_PORT_TYPE_RECEIVE && entry->port->out_of_room)
            ipc_port_accept(entry->port);
    }
    ipc_retry_later(task);
}

void ipc_pump(struct ipc_task *task)
{
    bool kick = false;
    /* One at a time: each may end what another one is about. */
    for (unsigned most = 2 * task->watched + 2; most > 0 && task->watcher >= 0; most--) {
        struct epoll_event event;
        void *what;
        if (epoll_wait(task->watcher, &event, 1, 0) <= 0)
            return;
        what = (void *)(uintptr_t)(event.data.u64 & ~(uint64_t)3);
        switch (event.data.u64 & 3) {
        case WATCHED_ENTRY:
            pump_entry(task, what, event.events);
            break;
        case WATCHED_END:
            pump_end(what);
            break;
        case WATCHED_RETRY:
            pump_retry(task);
            break;
        default:
            if (kick)
                return;
            kick = true;
        }
    }
}

void ipc_retry_later(struct ipc_task *task)
{
    struct itimerspec when = {.it_value = {0, task->starving ? RETRY * 1000000 : 0}};
    if (task->retry >= 0)
        timerfd_settime(task->retry, 0, &when, NULL);
}

/* -- threads ------------------------------------------------------------------------------------------------------------------ */

void ipc_kick(struct ipc_task *task)
{
    uint64_t one = 1;
    if (task->waiting == 0)
        return;
    task->kicks++;
    task->kicked = task->waiting;
    if (write(task->kick, &one, sizeof one) < 0)
        return; /* it is readable already */
}

/* A thread that began to wait after `kicks` no longer does; the last that was woken makes it quiet again. */
static void noticed(struct ipc_task *task, unsigned kicks)
{
    uint64_t count;
    task->waiting--;
    if (kicks != task->kicks && --task->kicked == 0 && read(task->kick, &count, sizeof count) < 0)
        return; /* nobody has written */
}

int ipc_wait(struct ipc_task *task, int fd, short events, int64_t deadline)
{
    int watcher = ipc_watcher(task), result;
    struct pollfd polled[2] = {{.fd = fd, .events = events}, {.fd = watcher, .events = POLLIN}};
    bool starving = task->starving > 0;
    struct timespec left = {0, RETRY * 1000000};
    bool limited = deadline != 0 || starving;
    unsigned kicks = task->kicks;
    if (watcher < 0)
        return watcher;
    if (deadline) {
        int64_t rest = deadline - now_monotonic();
        if (rest < 0)
            rest = 0;
        if (!starving || rest < RETRY * 1000000) {
            left = (struct timespec){rest / 1000000000, rest % 1000000000};
            starving = false;
        }
    }
    task->waiting++;
    pthread_mutex_unlock(&task->lock);
    result = ppoll(polled, 2, limited ? &left : NULL, NULL);
    if (result < 0)
        result = -errno;
    pthread_mutex_lock(&task->lock);
    noticed(task, kicks);
    if (polled[1].revents && (task->watched || task->starving))
        ipc_pump(task);
    return result == 0 && starving ? 1 : result;
}

/* -- event loops -------------------------------------------------------------------------------------------------------------- */

static int always_readable = -1; /* guarded by ipc_ports_lock */

/* Made when the library is loaded: it stays for as long as the process, and nobody has to wonder where it comes from. */
__attribute__((constructor)) static void begin(void) { ipc_ended(); }

int ipc_ended(void)
{
    int fd;
    pthread_mutex_lock(&ipc_ports_lock);
    if (always_readable < 0)
        always_readable = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    fd = always_readable < 0 ? -errno : always_readable;
    pthread_mutex_unlock(&ipc_ports_lock);
    return fd;
}

void ipc_epoll_end(struct ipc_socket *epoll)
{
    struct epoll_event event = {.events = EPOLLIN};
    int fd = always_readable; /* made before anybody got a copy of an epoll */
    if (fd >= 0)
        epoll_ctl(epoll->fd, EPOLL_CTL_ADD, fd, &event);
}

kern_return_t machrv_port_readable(mach_port_t handle, mach_port_name_t name, int *fd)
{
    struct ipc_task *task = task_enter(handle);
    struct ipc_entry *entry;
    struct ipc_socket *epoll;
    int error;
    if (!task)
        return KERN_INVALID_TASK;
    if (name == MACH_PORT_NULL) {
        error = ipc_watcher(task);
        if (error >= 0)
            error = *fd = fcntl(error, F_DUPFD_CLOEXEC, 3);
        task_leave(task);
        return error < 0 ? KERN_RESOURCE_SHORTAGE : KERN_SUCCESS;
    }
    entry = ipc_entry_lookup(task, name);
    if (!entry || !(entry->type & (MACH_PORT_TYPE_RECEIVE | MACH_PORT_TYPE_PORT_SET))) {
        task_leave(task);
        return entry ? KERN_INVALID_RIGHT : KERN_INVALID_NAME;
    }
    error = ipc_ended();
    if (error >= 0)
        error = entry->pset ? ipc_pset_watch(entry->pset) : ipc_port_watch(entry->port);
    if (error >= 0) {
        epoll = entry->pset ? entry->pset->epoll : entry->port->epoll;
        error = fcntl(epoll->fd, F_DUPFD_CLOEXEC, 3);
        *fd = error;
    }
    task_leave(task);
    return error < 0 ? KERN_RESOURCE_SHORTAGE : KERN_SUCCESS;
}

kern_return_t machrv_port_writable(mach_port_t handle, mach_port_name_t name, int *fd)
{
    struct ipc_task *task = task_enter(handle);
    kern_return_t kr = KERN_SUCCESS;
    struct ipc_entry *entry;
    struct ipc_end *local;
    int socket = -1;
    if (!task)
        return KERN_INVALID_TASK;
    entry = ipc_entry_lookup(task, name);
    if (!entry)
        kr = KERN_INVALID_NAME;
    else if (!(entry->type & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_SEND_ONCE)) || (entry->socket && entry->socket->file))
        kr = KERN_INVALID_RIGHT;
    else if (entry->socket)
        socket = entry->socket->fd;
    else if ((local = ipc_local(entry->port)))
        socket = ipc_local_fd(local);
    if (kr == KERN_SUCCESS && (socket < 0 || (*fd = fcntl(socket, F_DUPFD_CLOEXEC, 3)) < 0))
        kr = KERN_RESOURCE_SHORTAGE;
    task_leave(task);
    return kr;
}
