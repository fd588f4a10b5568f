/*
 * Rights as descriptors: what has arrived with a packet, and receive rights on their way out of a task.
 *
 * A receive right travels as a bundle: a socket pair into which all its ends were sent, so that it is one descriptor in its
 * message. The first packet of a bundle is its head with the kinds of the ends that it carries; the descriptors of the
 * requests stand before theirs. Further packets are kinds and ends alone.
 *
 * What must never happen here: waiting; belief in anything that is not checked; recursion over what a peer sent. All of it:
 * locked.
 */

#include "ipc.h"

#define HAS_NSREQUEST 1u
#define HAS_PDREQUEST 2u
#define NS_DUE 4u
#define PER_PACKET 250
#define MAX_ENDS 65536
#define KIND_TOLD 3 /* an end that send and send-once rights share */

struct bundle_head {
    char magic[4];
    uint32_t flags, qlimit, ends, spare[2];
    char id[PORT_ID];
};

/* -- what arrives --------------------------------------------------------------------------------------------------------- */

/* The port that an address claims: "\0machrv/ID/..." of a right that was made, ".../.ID" of one that was looked up. */
static const char *claimed_id(const struct sockaddr_un *name, socklen_t length)
{
    static const char prefix[] = "\0machrv/";
    const size_t head = sizeof prefix - 1, place = offsetof(struct sockaddr_un, sun_path);
    size_t size = length > place ? length - place : 0;
    const char *path = name->sun_path, *at;
    if (name->sun_family != AF_UNIX || size == 0 || size > sizeof name->sun_path)
        return NULL;
    if (path[0] == 0)
        return size > head + PORT_ID && memcmp(path, prefix, head) == 0 && path[head + PORT_ID] == '/' ? path + head : NULL;
    size = strnlen(path, size);
    if (size < PORT_ID + 1 || path[size - PORT_ID - 1] != '.' || (size > PORT_ID + 1 && path[size - PORT_ID - 2] != '/'))
        return NULL;
    at = path + size - PORT_ID;
    for (int i = 0; i < PORT_ID; i++)
        if (!strchr("0123456789abcdef", at[i]))
            return NULL;
    return at;
}

bool ipc_transit_is_right(int fd)
{
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

static struct ipc_port *unpack(struct ipc_task *task, int fd, bool own, int *error);

int ipc_transit_arrived(struct ipc_task *task, int fd, unsigned kind, bool file, bool hung, bool own, struct ipc_right *right)
{
    struct sockaddr_un name = {0};
    socklen_t length = sizeof name;
    const char *id;
    int error = 0;
    *right = (struct ipc_right){kind, NULL, NULL};
    if (kind == KIND_RECEIVE && !file) {
        right->port = unpack(task, fd, own, &error);
        return error;
    }
    file = file || kind == KIND_MEMORY;
    if (kind == KIND_RECEIVE || (file && kind == KIND_ONCE))
        goto refused;
    if (!file && getpeername(fd, (struct sockaddr *)&name, &length)) {
        if (errno != ENOTCONN || !hung)
            goto refused;
        name.sun_family = AF_UNIX;
    }
    if (!file && name.sun_family != AF_UNIX)
        goto refused;
    if (!file && hung) {
        close_right(fd);
        return 0; /* to a port that has died */
    }
    right->socket = ipc_socket_new(fd, file);
    if (!right->socket) {
        close_later(fd);
        return -ENOMEM;
    }
    if (!file && (id = claimed_id(&name, length))) {
        right->socket->named = true;
        memcpy(right->socket->id, id, PORT_ID);
    }
    return 0;
refused:
    close_later(fd);
    return -EBADMSG;
}

/* -- a receive right goes ------------------------------------------------------------------------------------------------------- */

static int send_ends(struct ipc_port *port, int fd, int *fds, int nfds)
{
    char bytes[sizeof(struct bundle_head) + PER_PACKET];
    struct bundle_head head = {
        .magic = {'m', 'r', 'v', 'b'}, .qlimit = port->qlimit, .ends = port->nends - (port->local != NULL)};
    struct ipc_end *end = port->ends;
    size_t size = sizeof head;
    int error = 0;
    head.flags = (port->nsrequest.kind ? HAS_NSREQUEST : 0) | (port->pdrequest.kind ? HAS_PDREQUEST : 0) |
                 (!port->ns_counted || port->ns_since != port->made ? NS_DUE : 0);
    memcpy(head.id, port->id, PORT_ID);
    memcpy(bytes, &head, sizeof head);
    do {
        for (int count = 0; end && count < PER_PACKET; end = end->next, count++) {
            if (end->local) {
                count--;
                continue;
            }
            bytes[size++] = (char)(end->told ? KIND_TOLD : end->kind == KIND_LISTENER ? 0 : end->kind);
            fds[nfds++] = end->fd;
        }
        error = packet_send_raw(fd, bytes, size, fds, nfds);
        size = 0;
        nfds = 0;
    } while (end && !error);
    return error;
}

/* The port, behind it those whose receive rights wait in its queue, and so on. The last of them. */
static struct ipc_port *gather(struct ipc_port *port)
{
    struct ipc_port *last = port;
    port->along = port->before = NULL;
    for (; port; port = port->along)
        for (struct ipc_message *message = port->local ? port->local->first : NULL; message; message = message->next)
            for (size_t i = 0; i < message->held.count; i++)
                if (message->held.rights[i].kind == KIND_RECEIVE) {
                    struct ipc_port *inner = message->held.rights[i].port;
                    inner->along = NULL;
                    inner->before = last;
                    last = last->along = inner;
                }
    return last;
}

/* A descriptor that holds the ends of a port, or a negative errno. */
static int pack_one(struct ipc_port *port)
{
    int pair[2], fds[PER_PACKET + 2], nfds = 0, error;
    struct ipc_right *requests[] = {&port->nsrequest, &port->pdrequest};
    ipc_port_accept(port);
    for (int i = 0; i < 2; i++) {
        if ((error = ipc_right_externalize(requests[i])))
            return error;
        if (requests[i]->kind && !requests[i]->socket) /* nobody is left to be told */
            *requests[i] = NO_RIGHT;
        if (requests[i]->kind)
            fds[nfds++] = requests[i]->socket->fd;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    error = send_ends(port, pair[0], fds, nfds);
    close(pair[0]);
    if (!error)
        return pair[1];
    close(pair[1]);
    return error;
}

/* A message that waits, into a socket. The ports in it are ready to be packed. */
static int copy_message(int sender, struct ipc_message *message)
{
    struct wire_header header = message->header;
    struct iovec part = {message->body, message->length};
    struct ipc_right *rights = message->held.rights;
    int fds[MACHRV_MAX_FDS + 1], memory = -1, count = 0, error = 0;
    for (; count < (int)message->held.count && !error; count++) {
        if (rights[count].kind != KIND_RECEIVE && (error = ipc_right_externalize(&rights[count])))
            break;
        fds[count] = rights[count].kind == KIND_RECEIVE ? pack_one(rights[count].port) : ipc_socket_give(rights[count].socket);
        error = fds[count] < 0 ? fds[count] : 0;
    }
    if (!error)
        error = packet_send(sender, &header, &part, 1, fds, count, &memory);
    while (count-- > 0)
        if (rights[count].kind == KIND_RECEIVE && fds[count] >= 0)
            close(fds[count]);
    if (memory >= 0)
        close(memory);
    return error;
}

/* What waits in memory goes into sockets, as many as it takes. */
static int copy_messages(struct ipc_port *port)
{
    struct ipc_message *message = port->local ? port->local->first : NULL;
    int sender = -1, error = 0;
    bool fresh = false;
    while (message && !error) {
        struct ipc_end *end;
        if (sender < 0) {
            if ((error = ipc_port_make_end(port, KIND_SEND, true, &sender, &end)))
                break;
            end->copied = fresh = true;
        }
        error = copy_message(sender, message);
        if (!error) {
            message = message->next;
        } else if (error == -EAGAIN && !fresh) { /* it is full */
            close(sender);
            sender = -1;
            error = 0;
        }
        fresh = false;
    }
    if (sender >= 0)
        close(sender);
    return error;
}

int ipc_transit_pack(struct ipc_task *task, struct ipc_port *port)
{
    struct ipc_port *last = gather(port);
    int error = 0;
    for (struct ipc_port *one = last; one && !error; one = one->before)
        error = ipc_port_externalize(task, one);
    for (struct ipc_port *one = last; one && !error; one = one->before)
        error = copy_messages(one);
    return error ? error : pack_one(port);
}

void ipc_transit_unpack(struct ipc_port *port)
{
    gather(port);
    for (; port; port = port->along)
        for (struct ipc_end *end = port->ends, *next; end; end = next) {
            next = end->next;
            if (end->copied)
                ipc_end_drop(end);
        }
}

/* The rights of messages that have gone: what is left here are our own copies. */
static void forget_messages(struct ipc_port *port)
{
    for (struct ipc_message *message = port->local ? port->local->first : NULL; message; message = message->next)
        for (size_t i = 0; i < message->held.count; i++) {
            struct ipc_right *right = &message->held.rights[i];
            if (right->kind != KIND_RECEIVE)
                ipc_socket_release(right->socket);
            *right = NO_RIGHT;
        }
}

void ipc_transit_sent(struct ipc_port *port, const char *destination)
{
    bool here = destination && ipc_port_departed(port->id, destination);
    gather(port);
    for (struct ipc_port *one = port, *next; one; one = next) {
        next = one->along;
        forget_messages(one);
        for (struct ipc_end *end = one->ends; end; end = end->next)
            end->moved = !end->local;
        if (one->nsrequest.socket)
            ipc_socket_release(one->nsrequest.socket);
        if (one->pdrequest.socket)
            ipc_socket_release(one->pdrequest.socket);
        one->nsrequest = one->pdrequest = NO_RIGHT;
        if (here) { /* a bootstrap name goes along */
            bootstrap_name_forget(one->bootstrap);
        } else { /* it stays where it was checked in */
            ipc_port_gone(one->id);
            bootstrap_name_remove(one->bootstrap);
        }
        one->bootstrap = NULL;
        one->alive = false;
        ipc_port_close(one);
        ipc_port_release(one);
    }
}

/* -- and comes -------------------------------------------------------------------------------------------------------------------- */

/* Reads the next packet of a bundle, whole; there and then, or not at all. */
static int read_packet(int fd, struct packet *packet)
{
    int error = packet_receive_raw(fd, packet);
    if (error)
        return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS ? error : -EBADMSG;
    if (packet->state == PACKET_WHOLE && packet->length > 0)
        return 0;
    error = packet->state == PACKET_LOST ? -EMFILE : -EBADMSG;
    packet_discard(packet);
    return error;
}

/* Where a notification goes; the descriptor is used up. That its port may have died already shows when it is due. */
static int adopt_request(int fd, struct ipc_right *right)
{
    struct sockaddr_un name = {0};
    socklen_t length = sizeof name;
    const char *id = NULL;
    if (!ipc_transit_is_right(fd)) {
        close_later(fd);
        return -EBADMSG;
    }
    if (getpeername(fd, (struct sockaddr *)&name, &length) == 0)
        id = claimed_id(&name, length);
    right->socket = ipc_socket_new(fd, false);
    if (!right->socket) {
        close_later(fd);
        return -ENOMEM;
    }
    right->kind = KIND_ONCE;
    if (id) {
        right->socket->named = true;
        memcpy(right->socket->id, id, PORT_ID);
    }
    return 0;
}

static int adopt_end(struct ipc_port *port, int fd, unsigned kind, bool own)
{
    struct sockaddr_un name = {0};
    socklen_t length = sizeof name;
    struct ipc_end *end;
    int error = -EBADMSG;
    bool listener = kind == 0;
    if (!ipc_transit_is_right(fd) || !(listener || kind == KIND_SEND || kind == KIND_ONCE || kind == KIND_TOLD))
        goto refused;
    error = getsockname(fd, (struct sockaddr *)&name, &length) ? -EBADMSG : packet_renew(fd);
    if (error)
        goto refused;
    length = length > offsetof(struct sockaddr_un, sun_path) ? length - (socklen_t)offsetof(struct sockaddr_un, sun_path) : 0;
    if (length > sizeof name.sun_path)
        goto refused;
    if (length && name.sun_path[0]) /* a path may end with NULs */
        length = (socklen_t)strnlen(name.sun_path, length);
    if (listener) {
        /* Whoever else has it could make accept() wait for ever: a bootstrap name does not move to another process. */
        if (!own || port->bootstrap || !(port->bootstrap = bootstrap_name_adopt(name.sun_path, (int)length))) {
            close_later(fd);
            return 0;
        }
    }
    end = ipc_end_new(fd, listener ? KIND_LISTENER : kind == KIND_TOLD ? KIND_SEND : kind);
    error = -ENOMEM;
    if (!end)
        goto refused;
    end->told = kind == KIND_TOLD;
    end->foreign = true;
    end->stamped = true; /* by packet_renew(); what waits may have no stamp, and then its sender's word counts */
    end->late = listener ? 0 : packet_waiting(fd);
    if (end->late < 0)
        end->late = 0;
    end->address_length = (int)length;
    memcpy(end->address, name.sun_path, length);
    error = ipc_port_add_end(port, end);
    if (!error)
        return 0;
    free(end);
refused:
    close_later(fd);
    return error == -EINVAL || error == -ENOPROTOOPT ? -EBADMSG : error;
}

/* The ends of one packet, from its `first` descriptor on. */
static int adopt_ends(struct ipc_port *port, struct packet *packet, int first, const char *kinds, size_t count, bool own)
{
    int error = (size_t)(packet->nfds - first) == count ? 0 : -EBADMSG;
    for (size_t i = 0; i < count && !error; i++) {
        int fd = packet->fds[first + (int)i];
        packet->fds[first + (int)i] = -1;
        error = adopt_end(port, fd, (unsigned char)kinds[i], own);
    }
    packet_discard(packet);
    return error;
}

static int adopt_head(struct ipc_task *task, struct packet *packet, bool own, struct ipc_port **port, uint32_t *left)
{
    struct bundle_head head;
    uint32_t wanted[] = {HAS_NSREQUEST, HAS_PDREQUEST};
    size_t kinds;
    int first = 0, error = 0;
    if ((size_t)packet->length < sizeof head)
        goto refused;
    memcpy(&head, packet->body, sizeof head);
    kinds = (size_t)packet->length - sizeof head;
    if (memcmp(head.magic, "mrvb", 4) != 0 || head.flags > 7 || head.qlimit > MACH_PORT_QLIMIT_MAX || head.ends > MAX_ENDS ||
        kinds > head.ends)
        goto refused;
    /* One that claims the id of a port that is here is another port, whatever it says. */
    *port = ipc_port_new(ipc_port_find(task, head.id) ? NULL : head.id);
    if (!*port) {
        packet_discard(packet);
        return -ENOMEM;
    }
    ipc_port_arrived(head.id);
    (*port)->qlimit = head.qlimit;
    (*port)->ns_counted = !(head.flags & NS_DUE);
    for (int i = 0; i < 2 && !error; i++)
        if (head.flags & wanted[i]) {
            int fd = first < packet->nfds ? packet->fds[first] : -1;
            if (fd >= 0)
                packet->fds[first++] = -1;
            error = fd < 0 ? -EBADMSG : adopt_request(fd, i ? &(*port)->pdrequest : &(*port)->nsrequest);
        }
    *left = head.ends - (uint32_t)kinds;
    if (!error)
        return adopt_ends(*port, packet, first, packet->body + sizeof head, kinds, own);
    packet_discard(packet);
    return error;
refused:
    packet_discard(packet);
    return -EBADMSG;
}

static struct ipc_port *unpack(struct ipc_task *task, int fd, bool own, int *error)
{
    struct packet *packet = malloc(sizeof *packet);
    struct ipc_port *port = NULL;
    uint32_t left = 0;
    *error = packet ? read_packet(fd, packet) : -ENOMEM;
    if (!*error)
        *error = adopt_head(task, packet, own, &port, &left);
    while (!*error && left > 0) {
        *error = read_packet(fd, packet);
        if (!*error && packet->length > left) {
            packet_discard(packet);
            *error = -EBADMSG;
        }
        if (!*error) {
            left -= (uint32_t)packet->length;
            *error = adopt_ends(port, packet, 0, packet->body, (size_t)packet->length, own);
        }
    }
    free(packet);
    close_right(fd);
    if (!*error)
        return port;
    if (port) { /* it never had a name here */
        if (port->nsrequest.socket)
            ipc_socket_release(port->nsrequest.socket);
        if (port->pdrequest.socket)
            ipc_socket_release(port->pdrequest.socket);
        bootstrap_name_forget(port->bootstrap);
        port->bootstrap = NULL;
        ipc_port_release(port);
    }
    return NULL;
}
