/*
 * Which message is next (osfmk/ipc/ipc_mqueue.c).
 *
 * A port has as many sockets as it has rights, yet messages come out in the order in which they were sent. With a single
 * right there is no order to find. With more, the system stamps each message; the heads of the ends are looked at, with no
 * room for descriptors so that none is installed, and the oldest is next. What becomes readable after a scan is younger than
 * what was sent before it, so a head is looked at once, however many senders there are. Where senders take turns, there is
 * at most one message of each process between two scans.
 *
 * What must never happen here: looking into a packet. All of it: locked, but for ipc_mqueue_receive().
 */

#include "ipc.h"

/* How much is looked at before others get the lock. */
#define LOOKS 256
/* So often in a row nothing is found, before it is looked at why. */
#define IN_VAIN 4

/* -- the heads that were looked at: the oldest last ------------------------------------------------------------------------ */

static bool enqueue(struct ipc_end *end, int64_t stamp)
{
    struct ipc_port *port = end->port;
    unsigned low = 0, high = port->nqueued;
    if (port->nqueued == port->heap_size) {
        unsigned size = port->heap_size ? 2 * port->heap_size : 16;
        struct ipc_end **heap = realloc(port->heap, size * sizeof *heap);
        if (!heap)
            return false;
        port->heap = heap;
        port->heap_size = size;
    }
    while (low < high) { /* younger ones stand before it */
        unsigned middle = (low + high) / 2;
        const struct ipc_end *other = port->heap[middle];
        if (other->stamp > stamp || (other->stamp == stamp && other->fd > end->fd))
            low = middle + 1;
        else
            high = middle;
    }
    memmove(port->heap + low + 1, port->heap + low, (port->nqueued - low) * sizeof *port->heap);
    port->heap[low] = end;
    port->nqueued++;
    end->queued = true;
    end->stamp = stamp;
    return true;
}

void ipc_mqueue_unqueue(struct ipc_end *end)
{
    struct ipc_port *port = end->port;
    unsigned at = port->nqueued;
    if (!end->queued)
        return;
    while (at-- > 0 && port->heap[at] != end)
        ;
    memmove(port->heap + at, port->heap + at + 1, (port->nqueued - at - 1) * sizeof *port->heap);
    port->nqueued--;
    end->queued = false;
}

static struct ipc_end *oldest(const struct ipc_port *port) { return port->nqueued ? port->heap[port->nqueued - 1] : NULL; }

static bool out_of_room(int error) { return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS; }

/* Puts an end with something to read among those that were looked at; closes it if it is at its end. */
static int look(struct ipc_end *end)
{
    struct packet_head head;
    int64_t stamp;
    int error = ipc_end_peek(end, &head);
    if (error == -EAGAIN)
        return 0;
    if (error && out_of_room(error))
        return error;
    if (error || (head.length == 0 && end->kind == KIND_SEND)) {
        ipc_end_drop(end); /* a reset connection, or none at all: its right is as gone as at end-of-file */
        return 0;
    }
    if (head.length == 0)
        stamp = now_real();
    else if (end->late || !head.stamp) /* sent before there were stamps: the sender's word, which orders what it sent */
        stamp = head.header.sent < 0 ? 0 : head.header.sent < head.before ? head.header.sent : head.before;
    else
        stamp = head.stamp;
    return enqueue(end, stamp) ? 0 : -ENOMEM;
}

/* Asks which ends have something to read: how many events there are, or a negative errno. */
static int ask(struct ipc_port *port)
{
    int count;
    if (port->nevents < port->nends + 2) {
        unsigned size = 2 * port->nends + 8;
        struct epoll_event *events = realloc(port->events, size * sizeof *events);
        if (!events)
            return -ENOMEM;
        port->events = events;
        port->nevents = size;
    }
    while ((count = epoll_wait(port->epoll->fd, port->events, (int)port->nevents, 0)) < 0)
        if (errno != EINTR)
            return -errno;
    return count;
}

/* The same, once those have been taken in who look the port up. */
static int readable(struct ipc_port *port)
{
    int count;
    if (port->out_of_room) /* its listener is not asked about: is there a descriptor by now? */
        ipc_port_accept(port);
    count = ask(port);
    for (int i = 0; i < count && port->listener; i++)
        if (port->events[i].data.ptr == port->listener) {
            ipc_port_accept(port); /* who came has a say, and what was told may have made room for them */
            return ask(port);
        }
    return count;
}

/* Of a port with one socket at most, and messages of the task's own. */
static int scan_few(struct ipc_port *port, struct ipc_end *socket, struct ipc_end **alone)
{
    struct ipc_end *local = port->local && port->local->first ? port->local : NULL;
    int error = 0;
    if (!local || !socket) {
        *alone = socket ? socket : local;
        return 0;
    }
    if (!socket->queued && (error = look(socket)))
        return error;
    if (port->nqueued == 0) { /* there is nothing to compare it with */
        *alone = local;
        return 0;
    }
    if ((error = ipc_port_order(port)))
        return error;
    return local->queued ? 0 : look(local);
}

static int scan(struct ipc_port *port, struct ipc_end **alone)
{
    int count, ready = 0, error = 0;
    struct ipc_end *first = NULL;
    *alone = NULL;
    if (!port->epoll) {
        if (port->listener)
            ipc_port_accept(port);
        if (!ipc_port_needs_epoll(port))
            return scan_few(port, ipc_port_socket(port), alone);
        if ((error = ipc_port_watch(port)))
            return error;
    }
    count = readable(port);
    if (count < 0)
        return count;
    for (int i = 0; i < count; i++) {
        struct ipc_end *end = port->events[i].data.ptr;
        if (!end || end->kind == KIND_LISTENER || end->queued)
            continue;
        if (ready++ == 0)
            first = end;
    }
    if (ready == 1 && port->nqueued == 0) {
        *alone = first; /* if only one end has anything, nobody needs to know when it was sent */
        return 0;
    }
    for (int i = 0; i < count && !error; i++) {
        struct ipc_end *end = port->events[i].data.ptr;
        if (end && end->kind != KIND_LISTENER && !end->queued)
            error = look(end);
    }
    return error;
}

/* One end of each process that has something to read, those first whose turn has not been for longest. */
static int gather_turns(struct ipc_port *port)
{
    int count, error = ipc_port_watch(port);
    if (error || (count = readable(port)) < 0)
        return error ? error : count;
    for (int i = 0; i < count; i++) {
        struct ipc_end *end = port->events[i].data.ptr;
        int64_t turn;
        bool has_one = false;
        if (!end || end->kind == KIND_LISTENER || end->queued)
            continue;
        turn = end->peer > port->served ? (int64_t)end->peer : (int64_t)end->peer + ((int64_t)1 << 32);
        for (unsigned low = 0, high = port->nqueued; low < high && !has_one;) {
            unsigned middle = (low + high) / 2;
            has_one = port->heap[middle]->stamp == turn;
            if (port->heap[middle]->stamp > turn)
                low = middle + 1;
            else
                high = middle;
        }
        if (!has_one && !enqueue(end, turn))
            return -ENOMEM;
    }
    return 0;
}

struct ipc_end *ipc_mqueue_next(struct ipc_port *port, int *error)
{
    struct ipc_end *alone;
    *error = 0;
    if (port->turns) {
        if (!oldest(port))
            *error = gather_turns(port);
        if (oldest(port) && oldest(port)->peer)
            port->served = oldest(port)->peer;
        return *error ? NULL : oldest(port);
    }
    /* Twice: what came during the scan may have come out of order. Not more: the clock may be set back. */
    for (int look_again = 0; look_again < 2; look_again++) {
        int64_t before;
        if (oldest(port) && oldest(port)->stamp <= port->scanned)
            return oldest(port);
        before = now_real();
        *error = scan(port, &alone);
        if (*error || alone)
            return *error ? NULL : alone;
        port->scanned = before;
        if (!port->nqueued)
            return NULL;
    }
    return oldest(port);
}

void ipc_mqueue_taken(struct ipc_end *end)
{
    struct ipc_port *port = end->port;
    if (!end->queued)
        return;
    ipc_mqueue_unqueue(end);
    if (port->nqueued && !port->turns)
        look(end); /* where that fails, the next scan finds it */
}

/* -- how much waits ------------------------------------------------------------------------------------------------------------ */

/* Of so many messages, each of any size, a socket takes in its default buffer (packet.c, INLINE_WAITING). */
#define USUAL_LIMIT 64

/* A receiving end has nothing to send: that its sending side is shut down says that the port is to take more than usual, to
   whoever sends, whenever that was decided. The sender makes its buffer larger then (packet.c, packet_widen). */
void ipc_mqueue_tell_qlimit(struct ipc_end *end)
{
    if (end->port->qlimit > USUAL_LIMIT && end->kind != KIND_LISTENER && !end->local)
        shutdown(end->fd, SHUT_WR);
}

void ipc_mqueue_set_qlimit(struct ipc_port *port, mach_port_msgcount_t qlimit)
{
    port->qlimit = qlimit;
    for (struct ipc_end *end = port->ends; end; end = end->next)
        ipc_mqueue_tell_qlimit(end);
    if (port->local && port->local->blocked && port->task)
        ipc_kick(port->task); /* whoever waits for room in the task's own queue looks again */
}

/*
 * An end that is readable and shows nothing: somebody who has a copy of it tells the kernel to look past what waits (SO_PEEK_OFF).
 * It is told anew; if that is of no use, the end is given up: whoever waits would spin.
 */
static void look_behind(struct ipc_port *port)
{
    struct ipc_end *next;
    if (++port->vain < IN_VAIN)
        return;
    port->vain = 0;
    for (struct ipc_end *end = port->ends; end; end = next) {
        struct pollfd state = {.fd = end->fd, .events = POLLIN};
        struct packet_head head;
        next = end->next;
        if (!end->foreign || end->kind == KIND_LISTENER || end->queued)
            continue;
        if (poll_surely(&state, 1) <= 0 || packet_peek(end->fd, end->stamped, &head) != -EAGAIN)
            end->hidden = false;
        else if (end->hidden)
            ipc_end_drop(end);
        else
            end->hidden = packet_renew(end->fd) == 0;
    }
}

/* -- receiving ------------------------------------------------------------------------------------------------------------------ */

struct source {
    struct ipc_port *port;
    struct ipc_pset *pset;
};

#define NOTHING (-100)
#define BUSY (-101)

static void in_vain(const struct source *source)
{
    if (source->port)
        look_behind(source->port);
    for (unsigned i = 0; source->pset && i < source->pset->nmembers; i++)
        look_behind(source->pset->members[i]);
}

/* The next message. NOTHING waits; BUSY: much was looked at, none of it a message. */
static mach_msg_return_t take(struct ipc_task *task, const struct source *source, mach_msg_header_t *msg,
                              mach_msg_option_t option, mach_msg_size_t size)
{
    for (int looks = 0; looks < LOOKS; looks++) {
        mach_msg_return_t mr;
        struct ipc_end *end;
        int error;
        if (source->port)
            for (unsigned i = 0; i < source->port->nsets; i++)
                ipc_pset_refresh(source->port->sets[i]);
        end = source->pset ? ipc_pset_next(source->pset, &error) : ipc_mqueue_next(source->port, &error);
        if (error)
            return KERN_RESOURCE_SHORTAGE;
        mr = end ? ipc_kmsg_receive(task, end, msg, option, size) : NOTHING;
        if (mr == NOTHING || mr == -EAGAIN) { /* of an only end nobody has looked whether anything waits there */
            in_vain(source);
            return NOTHING;
        }
        if (mr != -1) {
            if (source->port)
                source->port->vain = 0;
            return mr;
        }
    }
    return BUSY;
}

static bool find_source(struct ipc_task *task, mach_port_name_t name, struct source *source)
{
    struct ipc_entry *entry = ipc_entry_lookup(task, name);
    source->port = entry && entry->type & MACH_PORT_TYPE_RECEIVE ? entry->port : NULL;
    source->pset = entry && entry->type == MACH_PORT_TYPE_PORT_SET ? entry->pset : NULL;
    return source->port || source->pset;
}

static void hold(struct source *source)
{
    if (source->port)
        ipc_port_hold(source->port);
    else
        source->pset->refs++;
}

static void let_go(struct source *source)
{
    if (source->port)
        ipc_port_release(source->port);
    else if (source->pset)
        ipc_pset_release(source->pset);
    *source = (struct source){NULL, NULL};
}

/* Waits until there may be something: as ipc_wait(). A port's only end is polled itself, and not closed meanwhile. */
static int wait_for(struct ipc_task *task, const struct source *source, int64_t deadline)
{
    struct ipc_port *port = source->port;
    struct ipc_socket *epoll;
    int result;
    if (port && port->nends > 0 && !port->listener && !port->epoll && !ipc_port_needs_epoll(port)) {
        struct ipc_end *socket = ipc_port_socket(port), *end = socket ? socket : port->local;
        result = end->local ? ipc_local_fd(end) : end->fd;
        if (result < 0)
            return result;
        end->pins++;
        port->watchers += socket != NULL;
        result = ipc_wait(task, result, POLLIN, deadline);
        port->watchers -= socket != NULL;
        ipc_end_unpin(end);
        return result;
    }
    result = port ? ipc_port_watch(port) : ipc_pset_watch(source->pset);
    if (result)
        return result;
    epoll = ipc_socket_hold(port ? port->epoll : source->pset->epoll);
    result = ipc_wait(task, epoll->fd, POLLIN, deadline);
    ipc_socket_release(epoll);
    return result;
}

mach_msg_return_t ipc_mqueue_receive(struct ipc_task *task, mach_msg_header_t *msg, mach_msg_option_t option,
                                     mach_msg_size_t size, mach_port_name_t name, mach_msg_timeout_t timeout)
{
    int64_t deadline = option & MACH_RCV_TIMEOUT ? now_monotonic() + (int64_t)timeout * 1000000 : 0;
    bool last = option & MACH_RCV_TIMEOUT && timeout == 0;
    struct source source, waited = {NULL, NULL};
    mach_msg_return_t mr;
    unsigned starved = machrv_starved;
    pthread_mutex_lock(&task->lock);
    if (task->watched || task->starving)
        ipc_pump(task);
    for (;;) {
        int result = 1;
        if (!find_source(task, name, &source)) {
            mr = waited.port || waited.pset ? MACH_RCV_PORT_CHANGED : MACH_RCV_INVALID_NAME;
            break;
        }
        if ((waited.port || waited.pset) && (source.port != waited.port || source.pset != waited.pset)) {
            mr = MACH_RCV_PORT_CHANGED;
            break;
        }
        mr = take(task, &source, msg, option, size);
        if (mr >= 0)
            break;
        if (mr == BUSY) { /* let others in */
            pthread_mutex_unlock(&task->lock);
            pthread_mutex_lock(&task->lock);
            if (!deadline || now_monotonic() < deadline)
                continue;
            last = true;
        }
        mr = MACH_RCV_TIMED_OUT;
        if (last)
            break;
        if (!waited.port && !waited.pset) {
            waited = source;
            hold(&waited);
        }
        result = wait_for(task, &source, deadline);
        if (result == 1 && starved != machrv_starved && option & MACH_RCV_INTERRUPT)
            result = -EINTR; /* somebody is to be told that look-ups wait */
        if (result == -EINTR && option & MACH_RCV_INTERRUPT) {
            mr = MACH_RCV_INTERRUPTED;
            break;
        }
        if (result < 0 && result != -EINTR) {
            mr = KERN_RESOURCE_SHORTAGE;
            break;
        }
        last = result == 0 || (deadline && now_monotonic() >= deadline); /* one more look */
    }
    let_go(&waited);
    pthread_mutex_unlock(&task->lock);
    closing_pause();
    return mr;
}
