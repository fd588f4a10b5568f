/*
 * A message on its way in, between ipc_incoming.c and ipc_copyout.c.
 */

#ifndef MACHRV_INCOMING_H
#define MACHRV_INCOMING_H

#include "copyin.h"

#pragma GCC visibility push(hidden)

#define FEW_DESCRIPTORS 32

/* A message that was received, before its rights have names. */
struct incoming {
    struct packet *packet;
    struct ipc_message *message; /* in place of a packet: one that never left this task */
    struct wire_header header;
    unsigned kind; /* of the right that it was sent with */
    bool own;      /* this process has sent it */
    audit_token_t token;
    security_token_t security;
    const char *body; /* behind the Mach header; its length, with the slots of out-of-line ports */
    size_t length;
    void *mapping;  /* where that is, if not in the packet */
    uint32_t count; /* descriptors, and where they stand in the body */
    uint32_t *offsets, few[FEW_DESCRIPTORS];
    struct ipc_right *rights; /* by slot */
    int nrights, slots;
    struct ipc_right arrived[MACHRV_MAX_FDS];
};

/* What came: a message; that a send-once right is gone; nothing that means anything, or nothing of ours; a message whose
   descriptors there was no room for. */
enum verdict { A_MESSAGE, A_NOTICE, NO_MESSAGE, LOST };

void ipc_incoming_init(struct incoming *in, struct packet *packet, struct ipc_message *message);
/* Says what came to an end, and who sent it. */
enum verdict ipc_incoming_judge(struct ipc_end *end, struct incoming *in);
/* Takes a packet apart. A negative errno: what it brought is gone; -EBADMSG: no task of ours sends this. `unread`: it is to
   be destroyed anyway. */
int ipc_incoming_parse(struct ipc_task *task, struct incoming *in, bool unread);
/* The rights that are left are destroyed, and what belongs to no task is given back. */
void ipc_incoming_destroy(struct ipc_task *task, struct incoming *in);
void ipc_incoming_forget(struct incoming *in);

#pragma GCC visibility pop

#endif
