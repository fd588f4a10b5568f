/*
 * The in-flight form of messages: packets in SOCK_SEQPACKET sockets.
 *
 * A packet is a header (the Mach header without names), the rest of the Mach message with every port name replaced by a
 * slot, then the slots of out-of-line port arrays. A slot is SLOT_NULL, SLOT_DEAD, or the number of a descriptor of the
 * packet, from 1, with SLOT_FILE where that is a fileport's file. A body that the socket has no room for travels in a
 * sealed memfd, the packet's last descriptor.
 */

#ifndef MACHRV_PACKET_H
#define MACHRV_PACKET_H

#include "system.h"

#include <sys/uio.h>

#pragma GCC visibility push(hidden)

#define WIRE_NOTIFICATION 1 /* flags: a kernel's notification, if the system attests that it is from the receiver's process */
#define WIRE_LARGE 2        /* the body is in a memfd */
#define WIRE_DESTROYED 4    /* no message: an unused send-once right was given up */
#define WIRE_MAGIC 0x6d727678u /* the form that this version writes: 'mrvx' */

#define SLOT_NULL 0
#define SLOT_DEAD 0xffffffffu
#define SLOT_FILE 0x40000000u

/* 64 KiB of somebody's data with the headers before it: below the smallest SO_SNDBUF default, with room for its bookkeeping. */
#define MAX_INLINE (65536 + 1024)

struct wire_header {
    uint32_t bits;  /* of the Mach header: complex; dispositions as received */
    uint32_t size;  /* msgh_size */
    uint16_t flags; /* WIRE_* */
    uint16_t space; /* which of the sender's tasks: its own word */
    uint32_t reply; /* slot */
    int32_t id;
    uint32_t magic;
    int64_t sent; /* CLOCK_REALTIME, ns: the sender's word, used where the system has no stamp */
};

/* A process whose messages on one socket are known: for as long as it runs, whoever has its pid is it. */
struct attested_process {
    pid_t pid; /* 0: nobody yet */
    int pidfd; /* -1: nobody is known for sure */
    uint64_t process;
    uint32_t euid, egid;
};

/* The system's word on who sent a packet. */
struct sender {
    pid_t pid; /* 0: nobody */
    uint32_t uid, gid;
    bool pinned;      /* a pidfd came, or is known */
    bool reaped;      /* there is none any more: the sender has been waited for (Linux 6.5 to 6.16) */
    bool ids;         /* euid and egid are known too */
    uint64_t process; /* as machrv_process() tells it; 0: cannot be told */
    uint32_t euid, egid;
};

enum packet_state {
    PACKET_WHOLE,
    PACKET_ODD,  /* not one of ours */
    PACKET_LOST, /* descriptors were lost for want of room for them */
};

/* One packet as it came. Whoever reads it owns `fds`. */
struct packet {
    int64_t length; /* in bytes, with its header; 0 at end-of-file */
    int64_t stamp;  /* the system's, ns since the epoch; 0: none */
    enum packet_state state;
    struct sender sender;
    int nfds;
    int fds[MACHRV_MAX_FDS];
    struct wire_header header;
    char body[MAX_INLINE + 8];
};

struct packet_head {
    int64_t length; /* of the packet that waits; 0 at end-of-file */
    int64_t stamp;
    int64_t before; /* the time just before the look */
    pid_t pid;      /* the system's word on who sent it; 0: unknown */
    uint32_t uid, gid;
    struct wire_header header; /* all zero if it is none of ours */
};

/* Sends header and body (in at most three parts) with descriptors, of which there must be room for one more in `fds`.
   *memory: a memfd with the body, once one was made (else -1), which is the caller's and serves for the next try too.
   0 or a negative errno: -EAGAIN if there is no room, -EMSGSIZE for too many descriptors. */
int packet_send(int fd, struct wire_header *header, const struct iovec *parts, int count, int *fds, int nfds, int *memory);
/* Makes room in a socket that is full, if its port is to take more than usual: false if not, or if there is as much already. */
bool packet_widen(int fd);
/* Whether one packet takes so many descriptors. */
bool packet_carries(size_t nfds);
/* Sends bytes as they are, as bundles do. */
int packet_send_raw(int fd, const void *bytes, size_t size, const int *fds, int nfds);

/* Receives a packet: 0 or a negative errno. `known` is updated (NULL: the process need not be known for sure), `often`:
   there will be more, so that it is worth while to know. `head`: what packet_peek() has just told of it, or NULL. */
int packet_receive(int fd, struct packet *into, bool stamped, struct attested_process *known, bool often,
                   const struct packet_head *head);
/* The same for a packet of a bundle, which has no header: the bytes go to into->body. */
int packet_receive_raw(int fd, struct packet *into);
/* The descriptors of a packet are given up. */
void packet_discard(struct packet *packet);
/* Looks at the head of a queue, and leaves it there. */
int packet_peek(int fd, bool stamped, struct packet_head *into);
/* How many bytes wait; negative errno. */
int packet_waiting(int fd);

/* Has the system attest every packet, and stamp it with the time. */
int packet_attest(int fd);
int packet_stamp(int fd);
/* Sets anew all that a previous holder of a socket may have switched. */
int packet_renew(int fd);
void attested_process_forget(struct attested_process *known);
/* A descriptor has just been made: there may be few left. True if descriptors are short: look before you receive. */
void packet_note_fd(int fd);
bool packet_has_room(void);

#pragma GCC visibility pop

#endif
