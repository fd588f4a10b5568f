/*
 * The packets that nearly all messages are, received and laid out as the Mach messages that they stand for.
 *
 * What belongs here: one call in place of the many that Python would make. What must never happen here: an answer that
 * machrv/kernel/linux/incoming.py would not have given. Whatever is not as plain as can be is left to it.
 */

#include "native.h"

#include <sched.h>

#include "machrv/rendezvous.h"

struct descriptor { /* mach_msg_port_descriptor_t, a slot in place of the name */
    uint32_t slot, pad;
    uint16_t unused;
    uint8_t disposition, type;
};

static int is_sent_right(uint32_t kind) { return kind == PORT_SEND || kind == PORT_SEND_ONCE; }

/* The kinds of the rights by slot: the reply right first, then those of the body in their order. -1: something else. */
static int plan(const machrv_received *packet, machrv_arrived *rights)
{
    uint32_t bits = packet->header.bits, reply = bits >> 8 & 0x1F, size = packet->header.size, count = 0;
    int next = 0;
    if (bits & ~(COMPLEX | 0x1F1Fu) || packet->header.reply > 1 || !!packet->header.reply != !!reply)
        return -1;
    if (reply) {
        if (!is_sent_right(reply))
            return -1;
        rights[next++].kind = reply;
    }
    if (bits & COMPLEX) {
        if (size < 28)
            return -1;
        memcpy(&count, packet->body, sizeof count);
        if (count > MACHRV_MAX_FDS || size < 28 + 12 * count)
            return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct descriptor one;
        memcpy(&one, packet->body + 4 + 12 * i, sizeof one);
        if (next >= MACHRV_MAX_FDS || one.type || one.slot != (uint32_t)next + 1 || !is_sent_right(one.disposition) ||
            one.pad || one.unused)
            return -1;
        rights[next++].kind = one.disposition;
    }
    return next == packet->nfds ? 0 : -1;
}

/* The port id in the address of a right's other end, where it is one that this version gives out. -1: another one. */
static int read_id(const struct sockaddr_un *name, socklen_t length, machrv_arrived *right)
{
    static const char prefix[8] = "\0machrv/";
    const char *id = name->sun_path;
    right->named = 0;
    if (length <= offsetof(struct sockaddr_un, sun_path))
        return 0; /* the reply right of a claim, say, which nobody needs to recognise */
    length -= offsetof(struct sockaddr_un, sun_path);
    if (length < sizeof prefix + sizeof right->id + 1 || memcmp(id, prefix, sizeof prefix) ||
        id[sizeof prefix + sizeof right->id] != '/')
        return -1;
    memcpy(right->id, id + sizeof prefix, sizeof right->id);
    right->named = 1;
    return memchr(right->id, '/', sizeof right->id) ? -1 : 0;
}

int machrv_port_id(int fd, char *into)
{
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    machrv_arrived right;
    if (getpeername(fd, (struct sockaddr *)&name, &length) || name.sun_family != AF_UNIX ||
        read_id(&name, length, &right) || !right.named)
        return 0;
    memcpy(into, right.id, sizeof right.id);
    return 1;
}

/* What the sockets tell. -1: one of them is no right of ours, or its port has died. */
static int describe(machrv_received *packet, machrv_arrived *rights)
{
    struct pollfd states[MACHRV_MAX_FDS];
    for (int i = 0; i < packet->nfds; i++) {
        struct sockaddr_un name;
        int fd = packet->fds[i], type = 0;
        socklen_t length = sizeof type;
        rights[i].fd = fd;
        states[i] = (struct pollfd){.fd = fd};
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) || type != SOCK_SEQPACKET)
            return -1;
        length = sizeof name;
        if (getpeername(fd, (struct sockaddr *)&name, &length) || name.sun_family != AF_UNIX ||
            read_id(&name, length, &rights[i]))
            return -1;
        rights[i].references = 1;
        rights[i].creator = (machrv_creator){0};
    }
    if (packet->nfds && poll(states, (nfds_t)packet->nfds, 0) != 0)
        return -1; /* nothing was asked for: only a hang-up is reported */
    return 0;
}

static int same_port(machrv_arrived *one, machrv_arrived *other)
{
    if (!one->named || !other->named || one->kind != PORT_SEND || other->kind != PORT_SEND ||
        memcmp(one->id, other->id, sizeof one->id) != 0)
        return 0;
    if ((!one->creator.pid && machrv_made_by(one->fd, &one->creator)) ||
        (!other->creator.pid && machrv_made_by(other->fd, &other->creator)))
        return 0;
    return one->creator.pid && memcmp(&one->creator, &other->creator, sizeof one->creator) == 0;
}

/*
 * Several rights to one port become one, the last of them, with as many references; the slots in the body say which it
 * is. Who made a socket is asked only of those that claim to be for one port.
 */
static void merge(machrv_received *packet, machrv_arrived *rights, int first)
{
    int count = packet->nfds, kept = first, with[MACHRV_MAX_FDS], place[MACHRV_MAX_FDS], spent[MACHRV_MAX_FDS], nspent = 0;
    for (int i = count - 1; i >= first; i--) {
        with[i] = i;
        for (int j = i + 1; j < count && with[i] == i; j++)
            if (with[j] == j && same_port(&rights[i], &rights[j])) {
                with[i] = j;
                rights[j].references++;
            }
    }
    for (int i = first; i < count; i++)
        if (with[i] == i) {
            place[i] = kept;
            rights[kept] = rights[i];
            packet->fds[kept++] = rights[i].fd;
        } else
            spent[nspent++] = rights[i].fd;
    for (int i = first; i < count; i++) {
        uint32_t slot = (uint32_t)place[with[i]] + 1;
        memcpy(packet->body + 4 + 12 * (i - first), &slot, sizeof slot);
    }
    packet->nfds = kept;
    machrv_close_all(spent, nspent);
}

/* The audit token of the sender, as identity.py makes it. 0 if only Python can tell. */
static int attested(const machrv_received *packet, const machrv_identity *own, int trusted, uint32_t *token)
{
    if (packet->pid == own->pid && packet->pidfd >= 0) { /* who is gone was another one, that had this pid before */
        if (packet->uid != own->uid || packet->gid != own->gid || geteuid() != own->token[1])
            return 0;
        memcpy(token, own->token, sizeof own->token);
        token[6] = packet->header.space;
        return 1;
    }
    if (trusted || !packet->pid || !packet->pidfd)
        return 0;
    token[0] = 0xFFFFFFFF;
    token[1] = packet->pidfd == 2 ? (uint32_t)packet->euid : packet->uid;
    token[2] = packet->pidfd == 2 ? (uint32_t)packet->egid : packet->gid;
    token[3] = packet->uid;
    token[4] = packet->gid;
    token[5] = (uint32_t)packet->pid;
    token[6] = packet->header.space;
    token[7] = (uint32_t)packet->process;
    return 1;
}

int machrv_lay_out(machrv_received *into, machrv_arrived *rights, const machrv_identity *own, uint32_t kind, int trusted,
                   uint32_t name, uint32_t seqno, uint32_t trailer_size, uint64_t context, uint32_t limit)
{
    uint32_t size = into->header.size;
    uint32_t header[6] = {(into->header.bits & COMPLEX) | kind << 8 | (into->header.bits >> 8 & 0x1F), size, 0, name, 0,
                          (uint32_t)into->header.id};
    uint32_t trailer[17] = {0, trailer_size, seqno};

    if (into->cut || into->length < (int64_t)sizeof into->header || into->header.flags || size < sizeof header ||
        size & 3 || (into->header.bits & 0x1F) != kind || size + trailer_size > limit ||
        (int64_t)size - (int64_t)sizeof header != into->length - (int64_t)sizeof into->header ||
        !attested(into, own, trusted, trailer + 5))
        return 0;
    if (into->header.bits == kind ? into->nfds || into->header.reply : plan(into, rights) || describe(into, rights))
        return 0;
    if (into->nfds > 1)
        merge(into, rights, into->header.reply != 0);
    memcpy(into->body - sizeof header, header, sizeof header);
    memcpy(trailer + 3, trailer + 6, 8);
    memcpy(trailer + 13, &context, sizeof context);
    memcpy(into->body - sizeof header + size, trailer, trailer_size);
    return (int)(size + trailer_size);
}

int machrv_receive_plain(int fd, machrv_received *into, machrv_arrived *rights, const machrv_identity *own, uint32_t kind,
                         int trusted, uint32_t name, uint32_t seqno, uint32_t trailer_size, uint64_t context,
                         uint32_t limit)
{
    int error = machrv_receive_packet(fd, into, 0);
    return error ? error : machrv_lay_out(into, rights, own, kind, trusted, name, seqno, trailer_size, context, limit);
}

/* Of a message that is laid out, the 32 bits at a place. */
static uint32_t word(const machrv_received *packet, size_t at)
{
    uint32_t value;
    memcpy(&value, packet->body - HEADER + at, sizeof value);
    return value;
}

/* Whether what is laid out is a reply that brings send rights and nothing else; them, if so. */
static int read_ports(machrv_exchange *what, size_t size)
{
    const machrv_received *packet = what->into;
    uint32_t count = word(packet, HEADER);
    size_t slots = HEADER + 4, keys = slots + 12 * (size_t)count;
    if (word(packet, 0) != (COMPLEX | PORT_SEND_ONCE << 8) || word(packet, 20) != MACHRV_REPLY_ID || !count ||
        count > MACHRV_MAX_FDS || size != keys + 4 * (size_t)count + 8)
        return 0;
    what->nrights = (uint32_t)packet->nfds;
    for (uint32_t i = 0; i < count; i++) {
        machrv_keyed *one = &what->keyed[i];
        one->key = word(packet, keys + 4 * i);
        one->right = word(packet, slots + 12 * i);
        if (word(packet, slots + 12 * i + 8) != PORT_SEND << 16 || (i && one->key <= one[-1].key))
            return 0;
        if (what->nrights == count)
            one->right = (uint32_t)what->rights[one->right - 1].fd;
    }
    what->ports = count;
    return !word(packet, keys + 4 * count) && !word(packet, keys + 4 * count + 4);
}

void machrv_read_usual(machrv_exchange *what, int length)
{
    const machrv_received *packet = what->into;
    size_t size = (size_t)length - AUDIT_TRAILER;
    int usual;
    what->ports = UINT32_MAX;
    if (length < HEADER + AUDIT_TRAILER || word(packet, 4) != size || word(packet, size + 4) != AUDIT_TRAILER)
        return;
    for (size_t i = 0; i < 8; i++)
        what->token[i] = word(packet, size + 20 + 4 * i);
    what->id = word(packet, 20);
    if (size != HEADER) {
        usual = read_ports(what, size);
    } else {
        what->ports = 0;
        what->nrights = (uint32_t)packet->nfds;
        what->keyed[0].right = (uint32_t)what->rights[0].fd;
        usual = what->nrights == 1 && word(packet, 0) == (PORT_SEND << 8 | PORT_SEND_ONCE);
    }
    if (!usual || !what->token[5]) /* the kernel's own words are neither */
        what->ports = UINT32_MAX;
}

/* 1: a connection has something to receive; 0: it has not; -1: something waits elsewhere too, if that matters. */
static int is_next(int fd, int others)
{
    /* In this order: what is found there, and nothing after it elsewhere, was sent before anything that comes elsewhere. */
    struct pollfd both[2] = {{.fd = fd, .events = POLLIN}, {.fd = others, .events = POLLIN}};
    if (others < 0)
        return 1; /* receiving tells */
    return poll(both, 2, 0) < 1 ? 0 : both[0].revents && !both[1].revents ? 1 : -1;
}

int machrv_serve(machrv_exchange *what, machrv_port *port, int listener, int others, uint32_t name, uint32_t trailer_size,
                 uint64_t context, uint32_t limit)
{
    int result = -EAGAIN;
    char spent;
    what->ports = UINT32_MAX;
    what->fd = machrv_accept(listener);
    if (what->fd < 0) {
        machrv_settle(what);
        return what->fd;
    }
    for (int turn = 0, next = 0; turn < 2 && next >= 0 && result == -EAGAIN; turn++) {
        if (turn)
            sched_yield(); /* On one CPU, we may have interrupted who has connected before it could send: let it. */
        next = is_next(what->fd, others);
        if (next > 0)
            result = machrv_receive_plain(what->fd, what->into, what->rights, what->own, PORT_SEND, 0, name, port->seqno,
                                          trailer_size, context, limit);
    }
    machrv_settle(what);
    if (result > 0) {
        port->seqno++;
        if (trailer_size == AUDIT_TRAILER)
            machrv_read_usual(what, result);
        if (!machrv_spent(&what->fd, 1, &spent) && spent) {
            close(what->fd); /* the right was spent on this one message */
            what->fd = -1;
        }
    }
    return result;
}
