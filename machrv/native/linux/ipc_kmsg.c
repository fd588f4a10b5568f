/*
 * Messages that are on no queue any more: delivered to a right, or destroyed (osfmk/ipc/ipc_kmsg.c).
 *
 * Destroying a message destroys its rights, one after the other; a receive right among them brings its own messages, which
 * come behind (ipc_kmsg_reap_delayed): so nothing here recurses over what a peer sent. All of it: locked.
 */

#include "ipc.h"

struct ipc_doomed {
    struct ipc_doomed *next;
    unsigned count;
    struct ipc_right rights[];
};

/* packet_send(), and once more where a full socket can be made to take more. */
static int send_to(int fd, struct wire_header *header, const struct iovec *parts, int count, int *fds, int nfds, int *memory)
{
    int error = packet_send(fd, header, parts, count, fds, nfds, memory);
    return error == -EAGAIN && packet_widen(fd) ? packet_send(fd, header, parts, count, fds, nfds, memory) : error;
}

int ipc_kmsg_deliver(struct ipc_task *task, const struct ipc_right *to, struct wire_header *header,
                     const struct iovec *parts, int count, int *fds, int nfds, int *memory)
{
    struct ipc_socket *loop;
    int error = 0, sender;
    header->space = task->number;
    header->bits |= to->kind;
    if (to->socket)
        return send_to(to->socket->fd, header, parts, count, fds, nfds, memory);
    if (!to->port || !to->port->alive)
        return -EPIPE;
    loop = to->kind == KIND_ONCE ? to->port->loop : ipc_port_loop(to->port, &error);
    if (loop)
        error = send_to(loop->fd, header, parts, count, fds, nfds, memory);
    if (to->kind != KIND_ONCE || (loop && error != -EAGAIN))
        return error;
    /* A send-once right always has room for its message, and most are used for one and no more. */
    error = ipc_port_make_end(to->port, KIND_ONCE, false, &sender, NULL);
    if (error)
        return error;
    error = packet_send(sender, header, parts, count, fds, nfds, memory);
    close(sender);
    return error;
}

void ipc_kmsg_doom(struct ipc_task *task, struct ipc_right *rights, unsigned count)
{
    struct ipc_doomed *doomed = malloc(sizeof *doomed + count * sizeof *rights);
    if (!doomed) { /* one after the other, then: those that wait inside are destroyed in between */
        for (unsigned i = 0; i < count; i++)
            ipc_right_release(task, &rights[i]);
        return;
    }
    doomed->next = NULL;
    doomed->count = count;
    memcpy(doomed->rights, rights, count * sizeof *rights);
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
        for (unsigned i = 0; i < doomed->count; i++)
            ipc_right_release(task, &doomed->rights[i]);
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
