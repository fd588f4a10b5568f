/*
 * Who looks a port up: connections to its listener, and which of them go when there are too many.
 *
 * What must never happen here: waiting; a connection of somebody who has one dropped for the sake of who has many. All of it:
 * locked.
 */

#include "ipc.h"

#include <sys/resource.h>

/* How many look-ups are taken in at a time: others may have sent messages. */
#define AT_ONCE 64
/* Where senders take turns, one process has no more connections than this. */
#define TOO_MANY 128
/* Who has no more than this is asking, and not flooding. */
#define SOME 16
/* So many descriptors are left to those who register, and to the rights of a message, as long as there is a connection to be
   had for them: a quarter of what there may be, and no more than this. */
#define RESERVE 320
#define NOBODY (-1) /* connected from outside this pid namespace */

unsigned machrv_starved;

static void set_out_of_room(struct ipc_port *port, bool out_of_room)
{
    if (port->out_of_room == out_of_room || !port->task)
        return;
    port->out_of_room = out_of_room;
    machrv_starved += out_of_room;
    port->task->starving += out_of_room ? 1u : UINT_MAX;
    /* Without a free descriptor the listener stays readable: nobody may wait on it before one is free. */
    if (port->epoll && port->listener)
        ipc_end_poll(port, port->listener, false);
    ipc_retry_later(port->task);
    ipc_kick(port->task);
}

static int compare(const void *one, const void *other)
{
    pid_t a = *(const pid_t *)one, b = *(const pid_t *)other;
    return (a > b) - (a < b);
}

/* How many of a sorted array are this one. */
static unsigned count_of(const pid_t *peers, unsigned count, pid_t peer)
{
    unsigned low = 0, high = count, last;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (peers[middle] < peer)
            low = middle + 1;
        else
            high = middle;
    }
    for (last = low; last < count && peers[last] == peer;)
        last++;
    return last - low;
}

/* The oldest connection, the newest is none, of somebody who has at least so many; that has said nothing, if `silent`. */
static struct ipc_end *oldest_of(const struct ipc_port *port, const pid_t *peers, unsigned count, unsigned many, bool silent)
{
    for (struct ipc_end *end = port->ends; end && end != port->last_end; end = end->next)
        if (end->peer && !end->queued && (many < 2 || count_of(peers, count, end->peer) >= many) &&
            !(silent && packet_waiting(end->fd) > 0))
            return end;
    return NULL;
}

/* The oldest connection that has said nothing makes room for another, of whoever has the most; where all of his have spoken and
   they are many, the oldest of those. */
static bool make_room(struct ipc_port *port)
{
    pid_t *peers = port->turns ? malloc((port->nends + 1) * sizeof *peers) : NULL;
    unsigned count = 0, run = 0, many = 0;
    struct ipc_end *end = NULL;
    if (!peers)
        return false;
    for (end = port->ends; end; end = end->next)
        if (end->peer)
            peers[count++] = end->peer;
    qsort(peers, count, sizeof *peers, compare);
    for (unsigned i = 0; i < count; i++) {
        run = i > 0 && peers[i] == peers[i - 1] ? run + 1 : 1;
        many = run > many ? run : many;
    }
    end = oldest_of(port, peers, count, many, true);
    if (!end && many > SOME)
        end = oldest_of(port, peers, count, many, false);
    if (!end)
        end = oldest_of(port, peers, count, 0, true);
    free(peers);
    if (end)
        ipc_end_drop(end);
    return end != NULL;
}

static bool few_are_left(int fd)
{
    struct rlimit limit;
    if (fd < SOME || getrlimit(RLIMIT_NOFILE, &limit))
        return false;
    return (rlim_t)fd + (limit.rlim_cur / 4 < RESERVE ? limit.rlim_cur / 4 : RESERVE) >= limit.rlim_cur;
}

/* A process that has so many connections which wait for its turn loses the oldest: another one would only be in the way. */
static void drop_one_too_many(struct ipc_port *port, pid_t peer)
{
    struct ipc_end *oldest = NULL;
    unsigned count = 0;
    if (!peer || port->nends <= TOO_MANY)
        return;
    for (struct ipc_end *end = port->ends; end; end = end->next)
        if (end->peer == peer) {
            count++;
            if (!oldest && !end->queued)
                oldest = end;
        }
    if (count > TOO_MANY && oldest)
        ipc_end_drop(oldest);
}

/* A descriptor is given the lowest number that is free: a high one shows that few are left, a low one nothing. So it is
   remembered how many connections there were then. */
static void leave_some(struct ipc_port *port, int fd)
{
    if (few_are_left(fd) && (port->most == 0 || port->nends < port->most))
        port->most = port->nends;
    if (port->most > 0 && port->nends >= port->most)
        make_room(port);
    if (port->nends < port->most / 2)
        port->most = 0;
}

/* One connection: 1, 0 if there is none (any more, or now). */
static int accept_one(struct ipc_port *port)
{
    struct ipc_end *listener = port->listener, *end;
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        bool short_of = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        if (errno == EINTR || errno == ECONNABORTED || (short_of && make_room(port)))
            return 1;
        set_out_of_room(port, short_of);
        if (errno != EAGAIN && !short_of)
            ipc_end_drop(listener);
        return 0;
    }
    packet_note_fd(fd);
    ipc_port_count_made(port);
    end = ipc_end_new(fd, KIND_SEND);
    if (end) {
        memcpy(end->address, listener->address, (size_t)listener->address_length);
        end->address_length = listener->address_length;
        if (port->turns && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
            end->peer = peer.pid > 0 ? peer.pid : NOBODY;
    }
    if (end && ipc_port_add_end(port, end) == 0) {
        drop_one_too_many(port, end->peer);
        leave_some(port, fd);
        return 1;
    }
    close_socket(fd);
    free(end);
    return 0;
}

unsigned ipc_port_accept(struct ipc_port *port)
{
    unsigned before = port->nends, tries = 0;
    while (port->listener && tries++ < AT_ONCE && accept_one(port))
        ;
    return port->nends > before ? port->nends - before : 0;
}
