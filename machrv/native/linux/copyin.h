/*
 * A message on its way out, between ipc_copyin.c and ipc_send.c.
 */

#ifndef MACHRV_COPYIN_H
#define MACHRV_COPYIN_H

#include "ipc.h"

#pragma GCC visibility push(hidden)

#define FEW_RIGHTS 20
#define FEW_BYTES 256

union ipc_descriptor {
    mach_msg_port_descriptor_t port;
    mach_msg_ool_descriptor_t ool;
    mach_msg_ool_ports_descriptor_t ool_ports;
    mach_msg_guarded_port_descriptor_t guarded;
};

struct ipc_kmsg {
    struct ipc_task *task;
    mach_msg_header_t *user; /* the caller's buffer */
    size_t size;             /* so long is the message there */
    mach_msg_bits_t bits;
    mach_port_name_t remote, local, voucher;
    mach_msg_id_t id;
    mach_msg_return_t refused; /* what the first pass has found, told in its turn */

    struct ipc_right dest;
    unsigned reply_kind;
    uint32_t reply_slot;
    struct ipc_right *rights; /* all others, in the order of their slots: the reply right first */
    size_t nrights, max_rights;
    bool circular;

    uint32_t count; /* descriptors */
    uint32_t
        taken;   /* so many of them are copied in: memory that was given away with them is gone, whatever comes of the rest */
    char *image; /* their count and they themselves, with slots in place of names */
    size_t area; /* so long */
    uint32_t *tail; /* names of out-of-line ports, then their slots */
    size_t ntail;
    uint32_t no_names; /* the descriptor whose names are not there */
    int *memory_fds;   /* copies of out-of-line memory, until they are rights */
    size_t nmemory;
    int body_memory; /* where the body travels, if not inline */

    struct ipc_right few_rights[FEW_RIGHTS];
    char few_bytes[FEW_BYTES];
};

size_t ipc_descriptor_size(unsigned type);
/* No right but a copied send right to its destination: nothing is taken, so nothing need be given back. */
static inline bool ipc_kmsg_is_plain(const struct ipc_kmsg *kmsg) { return kmsg->bits == MACH_MSG_TYPE_COPY_SEND; }

void ipc_kmsg_init(struct ipc_kmsg *kmsg, struct ipc_task *task, mach_msg_header_t *msg, mach_msg_size_t size);
/* Makes what needs room: 0 or a negative errno. Not locked. */
int ipc_kmsg_prepare(struct ipc_kmsg *kmsg);
/* On an error of the header nothing is taken; on one of the body, what was taken so far is in `rights`. Locked. */
mach_msg_return_t ipc_kmsg_copyin_header(struct ipc_kmsg *kmsg);
mach_msg_return_t ipc_kmsg_copyin_body(struct ipc_kmsg *kmsg);
/* Gives back what does not belong to a task; the rights are the caller's business. */
void ipc_kmsg_free(struct ipc_kmsg *kmsg);

#pragma GCC visibility pop

#endif
