/*
 * The receiving sides of the rights that are made for a port: one made right is one socket pair, so a port's queue lies in as
 * many sockets as it has rights. Making and closing ends, and whether anybody is left to send.
 *
 * What must never happen here: names, receiving, waiting. All of it: locked.
 */

#include "ipc.h"

#include <stdio.h>

#define CROWD 16

static uint64_t serials;
static pthread_mutex_t serials_lock = PTHREAD_MUTEX_INITIALIZER;

/* The abstract address of an end: any holder of the right reads the port's id from it. It is nobody else's: the serial is
   a random number that is counted on. */
static int make_address(const struct ipc_port *port, unsigned kind, struct sockaddr_un *name)
{
    uint64_t serial;
    int error = 0, length;
    pthread_mutex_lock(&serials_lock);
    if (serials == 0)
        error = random_bytes(&serials, sizeof serials);
    serial = ++serials;
    pthread_mutex_unlock(&serials_lock);
    if (error)
        return error;
    name->sun_family = AF_UNIX;
    name->sun_path[0] = 0;
    length = snprintf(name->sun_path + 1, sizeof name->sun_path - 1, "machrv/%.*s/%c%016llx", PORT_ID, port->id,
                      kind == KIND_SEND ? 's' : 'o', (unsigned long long)serial);
    return length + 1;
}

struct ipc_end *ipc_end_new(int fd, unsigned kind)
{
    struct ipc_end *end = calloc(1, sizeof *end);
    if (!end)
        return NULL;
    end->fd = fd;
    end->kind = kind;
    end->sender.pidfd = -1;
    return end;
}

static void close_end(struct ipc_end *end)
{
    attested_process_forget(&end->sender);
    if (end->local || (end->drained && !end->foreign)) {
        if (end->fd >= 0)
            close(end->fd);
        free(end);
        return;
    }
    if (end->foreign && !end->moved)
        shutdown(end->fd, SHUT_RDWR); /* the other side sees it, however long the close takes */
    if (end->moved || end->foreign)
        close_later(end->fd);
    else
        close_socket(end->fd);
    free(end);
}

void ipc_end_unpin(struct ipc_end *end)
{
    if (--end->pins == 0 && end->gone)
        close_end(end);
}

static int stamp_end(struct ipc_end *end)
{
    int error;
    if (end->stamped || end->kind == KIND_LISTENER)
        return 0;
    error = packet_stamp(end->fd);
    if (error)
        return error;
    end->stamped = true;
    end->late = packet_waiting(end->fd);
    if (end->late < 0)
        end->late = 0;
    return 0;
}

int ipc_port_order(struct ipc_port *port)
{
    int error;
    if (port->ordered || port->turns)
        return 0;
    for (struct ipc_end *end = port->ends; end; end = end->next)
        if ((error = stamp_end(end)))
            return error;
    port->ordered = true;
    return 0;
}

bool ipc_port_needs_epoll(const struct ipc_port *port)
{
    return port->nends - (port->local != NULL) > 1; /* what waits in memory is seen without */
}

struct ipc_end *ipc_port_socket(const struct ipc_port *port)
{
    struct ipc_end *end = port->ends;
    while (end && (end->local || end->kind == KIND_LISTENER))
        end = end->next;
    return end;
}

int ipc_end_poll(struct ipc_port *port, struct ipc_end *end, bool add)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = end};
    int fd = end->local ? ipc_local_fd(end) : end->fd;
    if (fd < 0)
        return fd;
    if (end->kind == KIND_LISTENER && port->out_of_room)
        event.events = 0;
    return epoll_ctl(port->epoll->fd, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) ? -errno : 0;
}

int ipc_port_watch(struct ipc_port *port)
{
    struct epoll_event event = {.events = EPOLLIN};
    int watcher, epoll, error = 0;
    if (port->epoll)
        return 0;
    watcher = port->task ? ipc_watcher(port->task) : -1;
    if (port->task && watcher < 0)
        return watcher;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return -errno;
    packet_note_fd(epoll);
    port->epoll = ipc_socket_new(epoll, false);
    if (!port->epoll) {
        close(epoll);
        return -ENOMEM;
    }
    port->epoll->ours = true;
    if (watcher >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, watcher, &event))
        error = -errno;
    for (struct ipc_end *end = port->ends; end && !error; end = end->next)
        error = ipc_end_poll(port, end, true);
    if (error) { /* one that lacks an end would never tell of what waits there */
        ipc_socket_release(port->epoll);
        port->epoll = NULL;
    }
    return error;
}

static void link_end(struct ipc_port *port, struct ipc_end *end)
{
    end->port = port;
    end->next = NULL;
    end->previous = port->last_end;
    if (port->last_end)
        port->last_end->next = end;
    else
        port->ends = end;
    port->last_end = end;
    port->nends++;
    if (end->kind == KIND_LISTENER)
        port->listener = end;
}

static void unlink_end(struct ipc_end *end)
{
    struct ipc_port *port = end->port;
    if (end->previous)
        end->previous->next = end->next;
    else
        port->ends = end->next;
    if (end->next)
        end->next->previous = end->previous;
    else
        port->last_end = end->previous;
    port->nends--;
    if (port->listener == end)
        port->listener = NULL;
}

int ipc_port_add_end(struct ipc_port *port, struct ipc_end *end)
{
    int error = 0;
    link_end(port, end);
    packet_note_fd(end->fd);
    if (port->epoll)
        error = ipc_end_poll(port, end, true);
    else if (port->task && ipc_port_needs_epoll(port))
        error = ipc_port_watch(port); /* now there is a descriptor for it */
    if (error && end->local) {        /* what waits in memory needs none: whoever waits is woken */
        end->unpolled = true;
        error = 0;
    }
    if (!error && port->ordered)
        error = stamp_end(end);
    else if (!error && (port->nsets || ipc_port_needs_epoll(port)))
        error = ipc_port_order(port);
    if (!error && port->nsrequest.kind && port->task)
        error = ipc_watch_end(end);
    if (!error) {
        ipc_mqueue_tell_qlimit(end);
        if (port->task && port->nends == 2)
            ipc_kick(port->task); /* whoever waits on the other end alone */
        return 0;
    }
    if (port->epoll)
        epoll_ctl(port->epoll->fd, EPOLL_CTL_DEL, end->fd, NULL);
    unlink_end(end);
    return error;
}

/* Takes an end out of its port; it is still to be closed. */
static void remove_end(struct ipc_end *end)
{
    struct ipc_port *port = end->port;
    ipc_mqueue_unqueue(end);
    if (port->epoll)
        epoll_ctl(port->epoll->fd, EPOLL_CTL_DEL, end->fd, NULL);
    ipc_unwatch_end(end);
    unlink_end(end);
    if (end == port->local)
        port->local = NULL;
}

void ipc_end_drop(struct ipc_end *end)
{
    struct ipc_port *port = end->port;
    while (end->first)
        ipc_local_free(ipc_local_take(end));
    remove_end(end);
    end->gone = true;
    if (end->pins == 0)
        close_end(end);
    else if (port->task)
        ipc_kick(port->task);
}

void ipc_port_close(struct ipc_port *port)
{
    while (port->ends)
        ipc_end_drop(port->ends);
    if (port->epoll)
        ipc_socket_release(port->epoll);
    port->epoll = NULL;
    ipc_port_unlist(port);
}

/* -- who is left to send ------------------------------------------------------------------------------------------------------ */

/* Looks at so many ends at once: calls `found` for those whose other side has gone. */
static void each_hung_up(struct ipc_port *port, bool (*found)(struct ipc_end *end, bool hung, void *into), void *into)
{
    struct ipc_end *next = port->ends, *some[64];
    struct pollfd state[64];
    while (next) {
        int count = 0, asked = 0;
        for (; next && count < 64; next = next->next)
            if (next->kind == KIND_SEND && !next->local) {
                some[count] = next;
                state[count++] = (struct pollfd){.fd = next->hung ? -1 : next->fd};
                asked += !next->hung;
            }
        if (asked > 0 && poll_surely(state, (size_t)count) < 0)
            return;
        for (int i = 0; i < count; i++) {
            some[i]->hung = some[i]->hung || state[i].revents & (POLLHUP | POLLERR | POLLNVAL);
            if (found(some[i], some[i]->hung, into))
                return;
        }
    }
}

static bool is_sender(struct ipc_end *end, bool hung, void *into)
{
    /* A message that waits still holds the right that it was sent with, as in XNU. */
    return *(bool *)into = !hung || packet_waiting(end->fd) > 0;
}

bool ipc_port_has_senders(struct ipc_port *port)
{
    struct ipc_entry *entry;
    bool has = false;
    ipc_port_accept(port);
    entry = port->task ? ipc_entry_lookup(port->task, port->name) : NULL;
    if (port->carried > 0 || (entry && entry->type & MACH_PORT_TYPE_SEND))
        return true;
    each_hung_up(port, is_sender, &has);
    return has;
}

static bool drop_if_spent(struct ipc_end *end, bool hung, void *into)
{
    (void)into;
    if (hung && !end->queued && packet_waiting(end->fd) == 0)
        ipc_end_drop(end);
    return false;
}

/* Closes ends whose send rights are gone and that hold no message: nobody may ever receive from this port. */
static void reap_ends(struct ipc_port *port)
{
    if (port->nends < port->crowded)
        return;
    each_hung_up(port, drop_if_spent, NULL);
    port->crowded = 2 * port->nends < CROWD ? CROWD : 2 * port->nends;
}

/* -- making rights --------------------------------------------------------------------------------------------------------------- */

static int make_pair(struct ipc_port *port, struct ipc_end *end, int ends[2])
{
    struct sockaddr_un name;
    int error;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    error = packet_attest(ends[0]);
    while (!error && !end->told) {
        int length = make_address(port, end->kind, &name);
        if (length < 0) {
            error = length;
        } else if (bind(ends[0], (struct sockaddr *)&name,
                        (socklen_t)(offsetof(struct sockaddr_un, sun_path)) + (socklen_t)length) == 0) {
            end->address_length = length;
            memcpy(end->address, name.sun_path, (size_t)length);
            break;
        } else if (errno != EADDRINUSE) { /* whoever knows the port's id may have taken the address: the next one */
            error = -errno;
        }
    }
    if (!error)
        return 0;
    close(ends[0]);
    close(ends[1]);
    return error;
}

int ipc_port_make_end(struct ipc_port *port, unsigned kind, bool told, int *sender, struct ipc_end **made)
{
    struct ipc_end *end = ipc_end_new(-1, kind);
    int ends[2], error;
    if (!end)
        return -ENOMEM;
    reap_ends(port);
    end->told = told;
    error = make_pair(port, end, ends);
    if (error) {
        free(end);
        return error;
    }
    end->fd = ends[0];
    error = ipc_port_add_end(port, end);
    if (error) {
        close(ends[0]);
        close(ends[1]);
        free(end);
        return error;
    }
    packet_note_fd(ends[1]);
    *sender = ends[1];
    if (made)
        *made = end;
    return 0;
}

void ipc_port_count_made(struct ipc_port *port)
{
    port->mscount++;
    port->made++;
}

static struct ipc_end *other_end(struct ipc_port *port, struct ipc_socket *socket)
{
    struct sockaddr_un name = {0};
    socklen_t length = sizeof name, size = sizeof(uint64_t);
    uint64_t theirs = 0, ours = 0;
    struct ipc_end *end;
    int address;
    if (getpeername(socket->fd, (struct sockaddr *)&name, &length) || name.sun_family != AF_UNIX)
        return NULL;
    address = (int)length - (int)offsetof(struct sockaddr_un, sun_path);
    if (address <= 0 || address > ADDRESS_MAX)
        return NULL;
    if (name.sun_path[0]) /* a path may end with NULs */
        address = (int)strnlen(name.sun_path, (size_t)address);
    for (end = port->ends; end; end = end->next)
        if (end->address_length == address && memcmp(end->address, name.sun_path, (size_t)address) == 0)
            break;
    if (!end)
        return NULL;
    /* While it lives, an abstract address is bound to one socket of its network namespace: an equal address in the same
       namespace is that very end. The address of a looked-up right is a path, and before Linux 5.14 there is no cookie:
       there the right must have been made by this process. */
    if (!name.sun_path[0] && HAVE(NETNS_COOKIE) && getsockopt(socket->fd, SOL_SOCKET, SO_NETNS_COOKIE, &theirs, &size) == 0 &&
        getsockopt(end->fd, SOL_SOCKET, SO_NETNS_COOKIE, &ours, &size) == 0)
        return theirs && theirs == ours ? end : NULL;
    theirs = socket_maker(socket->fd);
    return theirs && theirs == self_process() ? end : NULL;
}

bool ipc_port_has_end(struct ipc_port *port, struct ipc_socket *socket) { return other_end(port, socket) != NULL; }

bool ipc_port_drop_end_of(struct ipc_port *port, struct ipc_socket *socket)
{
    struct ipc_end *end = other_end(port, socket);
    if (end)
        ipc_end_drop(end);
    return end != NULL;
}

void ipc_port_take_home(struct ipc_port *port, struct ipc_socket *socket)
{
    struct ipc_end *end = other_end(port, socket);
    struct pollfd state = {.fd = end ? end->fd : -1};
    socket->ours = end && !end->foreign; /* else somebody who had the end may have put something into the queue */
    ipc_socket_release(socket);
    if (end && !end->queued && poll_surely(&state, 1) > 0 && state.revents & POLLHUP && packet_waiting(end->fd) == 0)
        ipc_end_drop(end);
}
