/*
 * Port sets: which receive rights are received from together, and in which order (osfmk/ipc/ipc_pset.c).
 *
 * As in XNU (osfmk/kern/waitq.c), a set is served member by member: the one that first had something to receive comes first,
 * and stays first until it is seen to be empty. A port may be in several sets; it leaves them all when its receive right
 * moves. All of it: locked.
 */

#include "ipc.h"

/* With more members than this, the set's epoll is asked which of them have anything. */
#define FEW 4

struct ipc_pset *ipc_pset_new(void)
{
    struct ipc_pset *pset = calloc(1, sizeof *pset);
    if (pset)
        pset->refs = 1;
    return pset;
}

void ipc_pset_release(struct ipc_pset *pset)
{
    if (--pset->refs > 0)
        return;
    free(pset->members);
    free(pset->order);
    free(pset);
}

bool ipc_pset_is_member(const struct ipc_pset *pset, const struct ipc_port *port)
{
    for (unsigned i = 0; i < port->nsets; i++)
        if (port->sets[i] == pset)
            return true;
    return false;
}

static void take_out(void **array, unsigned *count, const void *what)
{
    unsigned at = 0;
    while (at < *count && array[at] != what)
        at++;
    if (at == *count)
        return;
    memmove(array + at, array + at + 1, (*count - at - 1) * sizeof *array);
    --*count;
}

/* Room for one more member, and one more set of a port. */
static bool make_room(struct ipc_pset *pset, struct ipc_port *port)
{
    if (pset->nmembers == pset->members_size) {
        unsigned size = pset->members_size ? 2 * pset->members_size : 4;
        struct ipc_port **members = realloc(pset->members, size * sizeof *members);
        struct ipc_port **order;
        if (!members)
            return false;
        pset->members = members;
        order = realloc(pset->order, size * sizeof *order);
        if (!order)
            return false;
        pset->order = order;
        pset->members_size = size;
    }
    if (port->nsets == port->sets_size) {
        unsigned size = port->sets_size ? 2 * port->sets_size : 2;
        struct ipc_pset **sets = realloc(port->sets, size * sizeof *sets);
        if (!sets)
            return false;
        port->sets = sets;
        port->sets_size = size;
    }
    return true;
}

static int poll_member(struct ipc_pset *pset, struct ipc_port *port)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = port};
    int error = ipc_port_watch(port);
    if (!error && epoll_ctl(pset->epoll->fd, EPOLL_CTL_ADD, port->epoll->fd, &event))
        error = -errno;
    return error;
}

int ipc_pset_insert(struct ipc_pset *pset, struct ipc_port *port)
{
    int error;
    if (!make_room(pset, port))
        return -ENOMEM;
    ipc_pset_refresh(pset);
    if (pset->epoll && (error = poll_member(pset, port)))
        return error; /* a member that is not polled would never be heard of */
    pset->members[pset->nmembers++] = port;
    port->sets[port->nsets++] = pset;
    error = ipc_port_order(port);
    if (error) {
        ipc_pset_remove(pset, port);
        return error;
    }
    ipc_pset_refresh(pset);
    if (port->task)
        ipc_kick(port->task); /* whoever waits on the port or the set */
    return 0;
}

void ipc_pset_remove(struct ipc_pset *pset, struct ipc_port *port)
{
    take_out((void **)pset->members, &pset->nmembers, port);
    take_out((void **)pset->order, &pset->norder, port);
    take_out((void **)port->sets, &port->nsets, pset);
    if (pset->epoll && port->epoll)
        epoll_ctl(pset->epoll->fd, EPOLL_CTL_DEL, port->epoll->fd, NULL);
}

int ipc_pset_watch(struct ipc_pset *pset)
{
    struct epoll_event event = {.events = EPOLLIN};
    int epoll, error = 0, watcher = ipc_watcher(pset->task);
    if (pset->epoll || watcher < 0)
        return pset->epoll ? 0 : watcher;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return -errno;
    packet_note_fd(epoll);
    pset->epoll = ipc_socket_new(epoll, false);
    if (!pset->epoll) {
        close(epoll);
        return -ENOMEM;
    }
    pset->epoll->ours = true;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, watcher, &event))
        error = -errno;
    for (unsigned i = 0; i < pset->nmembers && !error; i++)
        error = poll_member(pset, pset->members[i]);
    if (error) {
        ipc_socket_release(pset->epoll);
        pset->epoll = NULL;
    }
    return error;
}

static bool in_order(const struct ipc_pset *pset, const struct ipc_port *port)
{
    for (unsigned i = 0; i < pset->norder; i++)
        if (pset->order[i] == port)
            return true;
    return false;
}

/* The stamp of the next message of a member, that is not in the order yet; false if there is none. */
static bool begins(struct ipc_pset *pset, struct ipc_port *port, int64_t *stamp)
{
    struct packet_head head;
    struct ipc_end *end;
    int error;
    if (in_order(pset, port) || !(end = ipc_mqueue_next(port, &error)))
        return false;
    if (end->queued) {
        *stamp = end->stamp;
        return true;
    }
    /* An only end, at which nobody has looked. */
    if (ipc_end_peek(end, &head) || (head.length == 0 && end->kind == KIND_SEND))
        return false;
    *stamp = head.length == 0 ? now_real() : end->late || !head.stamp ? head.header.sent : head.stamp;
    return true;
}

/* Members that have begun to have something stand behind those that had before, the earliest first. */
static void append(struct ipc_pset *pset, struct ipc_port *port, int64_t stamp, int64_t *stamps, unsigned first)
{
    unsigned at = pset->norder++;
    while (at > first && stamps[at - 1 - first] > stamp) {
        pset->order[at] = pset->order[at - 1];
        stamps[at - first] = stamps[at - 1 - first];
        at--;
    }
    pset->order[at] = port;
    stamps[at - first] = stamp;
}

void ipc_pset_refresh(struct ipc_pset *pset)
{
    struct epoll_event events[64];
    int64_t few[64], *stamps = pset->nmembers > 64 ? malloc(pset->nmembers * sizeof *stamps) : few, stamp;
    unsigned first = pset->norder;
    int count = -1;
    if (!stamps)
        return;
    if (pset->nmembers > FEW && ipc_pset_watch(pset) == 0)
        count = epoll_wait(pset->epoll->fd, events, 64, 0);
    if (count >= 0 && count < 64) {
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr && begins(pset, events[i].data.ptr, &stamp))
                append(pset, events[i].data.ptr, stamp, stamps, first);
    } else {
        for (unsigned i = 0; i < pset->nmembers; i++)
            if (begins(pset, pset->members[i], &stamp))
                append(pset, pset->members[i], stamp, stamps, first);
    }
    if (stamps != few)
        free(stamps);
}

struct ipc_end *ipc_pset_next(struct ipc_pset *pset, int *error)
{
    *error = 0;
    ipc_pset_refresh(pset);
    while (pset->norder > 0) {
        struct packet_head head;
        struct ipc_port *port = pset->order[0];
        struct ipc_end *end = ipc_mqueue_next(port, error);
        if (*error)
            return NULL;
        if (end && (end->queued || ipc_end_peek(end, &head) != -EAGAIN))
            return end;
        take_out((void **)pset->order, &pset->norder, port);
    }
    return NULL;
}

void ipc_pset_destroy(struct ipc_task *task, struct ipc_pset *pset)
{
    ipc_kick(task);
    while (pset->nmembers > 0)
        ipc_pset_remove(pset, pset->members[pset->nmembers - 1]);
    if (pset->epoll) {
        ipc_epoll_end(pset->epoll);
        ipc_socket_release(pset->epoll);
        pset->epoll = NULL;
    }
    ipc_pset_release(pset);
}
