/*
 * Messages that are under nobody's hands: delivered to a right, or destroyed (osfmk/ipc/ipc_kmsg.c).
 *
 * Destroying a message destroys its rights, one after the other; a receive right among them brings its own messages, which
 * come behind (ipc_kmsg_reap_delayed): so nothing here recurses over what a peer sent. All of it: locked.
 */

#include "ipc.h"

/* Gives every right of a message a descriptor. Bundles are new ones, the caller's. */
static int make_descriptors(struct ipc_task *task, struct ipc_right *rights, size_t nrights, int fds[])
{
    int error = packet_carries(nrights) ? 0 : -EMSGSIZE;
    /* A receive right takes the ends of all rights to it along: those are made first. */
    for (size_t i = 0; i < nrights && !error; i++)
        error = rights[i].kind == KIND_RECEIVE ? ipc_port_externalize(task, rights[i].port) : ipc_right_externalize(&rights[i]);
    for (size_t i = 0; i < nrights && !error; i++) {
        fds[i] = rights[i].kind == KIND_RECEIVE ? ipc_transit_pack(task, rights[i].port) : ipc_socket_give(rights[i].socket);
        if (fds[i] < 0)
            error = fds[i];
    }
    return error;
}

static int send_away(struct ipc_task *task, struct ipc_socket *to, struct wire_header *header, const struct iovec *parts,
                     int count, struct ipc_right *rights, size_t nrights, int *memory)
{
    int fds[MACHRV_MAX_FDS + 1], error;
    bool away = false; /* the receiver may have the ends of our sockets by now, and have put something into their queues */
    memset(fds, -1, sizeof fds);
    error = make_descriptors(task, rights, nrights, fds);
    for (size_t i = 0; i < nrights; i++)
        away = away || rights[i].kind == KIND_RECEIVE;
    if (!error) {
        error = packet_send(to->fd, header, parts, count, fds, (int)nrights, memory);
        if (error == -EAGAIN && packet_widen(to->fd))
            error = packet_send(to->fd, header, parts, count, fds, (int)nrights, memory);
    }
    for (size_t i = 0; i < nrights && i < MACHRV_MAX_FDS; i++) {
        if (rights[i].kind == KIND_RECEIVE && fds[i] >= 0)
            close(fds[i]); /* a copy is in flight, or nobody's ends were ever anywhere else */
        if (rights[i].kind == KIND_RECEIVE && error)
            ipc_transit_unpack(rights[i].port);
        if (error)
            continue;
        if (away && rights[i].socket)
            rights[i].socket->ours = false;
        if (rights[i].kind == KIND_RECEIVE)
            ipc_transit_sent(rights[i].port, to->named ? to->id : NULL);
        else
            ipc_socket_release(rights[i].socket);
        rights[i] = NO_RIGHT;
    }
    return error;
}

int ipc_kmsg_deliver(struct ipc_task *task, const struct ipc_right *to, struct wire_header *header, const struct iovec *parts,
                     int count, struct ipc_right *rights, size_t nrights, int *memory)
{
    int error;
    header->space = task->number;
    header->bits |= to->kind;
    header->sent = now_real();
    if (to->socket)
        return send_away(task, to->socket, header, parts, count, rights, nrights, memory);
    if (!to->port || !to->port->alive)
        return -EPIPE;
    error = ipc_local_send(task, to, header, parts, count, rights, nrights);
    for (size_t i = 0; i < nrights && !error; i++)
        rights[i] = NO_RIGHT;
    return error;
}

struct ipc_doomed {
    struct ipc_doomed *next;
    struct ipc_held held;
    struct ipc_right rights[];
};

void ipc_kmsg_doom(struct ipc_task *task, struct ipc_right *rights, unsigned count)
{
    struct ipc_doomed *doomed = count ? malloc(sizeof *doomed + count * sizeof *rights) : NULL;
    if (!doomed) { /* one after the other, then: those that wait inside are destroyed in between */
        for (unsigned i = 0; i < count; i++)
            ipc_right_release(task, &rights[i]);
        return;
    }
    doomed->next = NULL;
    memcpy(doomed->rights, rights, count * sizeof *rights);
    ipc_hold_rights(task, &doomed->held, doomed->rights, count);
    *task->doomed_last = doomed;
    task->doomed_last = &doomed->next;
}

void ipc_kmsg_reap(struct ipc_task *task)
{
    if (task->destroying)
        return;
    task->destroying = true;
    while (task->doomed) {
        struct ipc_doomed *doomed = task->doomed;
        task->doomed = doomed->next;
        if (!task->doomed)
            task->doomed_last = &task->doomed;
        for (size_t i = 0; i < doomed->held.count; i++)
            ipc_right_release(task, &doomed->rights[i]);
        ipc_unhold_rights(&doomed->held);
        free(doomed);
    }
    task->destroying = false;
}

mach_msg_size_t ipc_kmsg_trailer_size(mach_msg_option_t option)
{
    static const mach_msg_size_t sizes[] = {sizeof(mach_msg_trailer_t), sizeof(mach_msg_seqno_trailer_t),
                                            sizeof(mach_msg_security_trailer_t), sizeof(mach_msg_audit_trailer_t),
                                            sizeof(mach_msg_context_trailer_t)};
    unsigned elements = (unsigned)option >> 24 & 15;
    return elements < 5 ? sizes[elements] : MAX_TRAILER_SIZE;
}
