#ifndef MACHRV_LINUX_H
#define MACHRV_LINUX_H

/*
 * The few system-call sequences of the Linux port space that Python cannot do well. Each function does its calls without
 * waiting (but for machrv_connect and machrv_ask), returns a negative errno on failure and leaves no descriptor behind when it fails.
 * Policy lives in machrv/kernel/linux; nothing here decides whom to believe.
 */

#include <stddef.h>
#include <stdint.h>

/* One packet carries at most this many descriptors: SCM_MAX_FD (Linux, include/net/scm.h). */
#define MACHRV_MAX_FDS 253
/* A larger packet travels in a sealed memfd. Below the smallest SO_SNDBUF default, with room for its bookkeeping. */
#define MACHRV_MAX_INLINE 65536
/* The in-flight header that stands in place of mach_msg_header_t. */
#define MACHRV_WIRE_HEADER 32
#define MACHRV_ADDRESS_MAX 108

/* Flags of a packet. */
#define MACHRV_WIRE_NOTIFICATION 1
#define MACHRV_WIRE_LARGE 2
#define MACHRV_WIRE_DESTROYED 4

typedef struct {
    uint32_t bits;
    uint32_t size;   /* msgh_size of the Mach message */
    uint16_t flags;  /* MACHRV_WIRE_* */
    uint16_t space;  /* which of the sender's port spaces: its own word */
    uint32_t reply;  /* slot of the reply right, see wire.py */
    int32_t id;
    uint32_t magic;
    int64_t sent;    /* CLOCK_REALTIME, ns: the sender's word, used where the kernel has no stamp */
} machrv_wire_header;

typedef struct {
    int64_t length;          /* bytes of the packet, header included; 0 at end-of-file */
    int64_t stamp;           /* the kernel's time stamp, ns since the epoch, or 0 */
    int32_t pid;             /* the kernel's word on the sender; 0: none */
    uint32_t uid;
    uint32_t gid;
    uint64_t process;        /* tells the sender from others that had or will have its pid; 0: cannot be told */
    int32_t pidfd;           /* 1: the kernel attached a pidfd (it has been closed); 2: and euid and egid are known too; -1: it
                                has none to give, as the sender is gone and waited for: the message is good, `process` is 0 */
    int32_t euid;            /* of a sender with a pidfd, where the kernel tells (PIDFD_GET_INFO), else -1 */
    int32_t egid;
    int32_t cut;             /* 1: not a packet of ours; 2: descriptors were lost for want of room for them */
    int32_t nfds;
    int32_t fds[253];
    machrv_wire_header header;
    char body[65608]; /* MACHRV_MAX_INLINE, and room for a trailer; the header stands where the Mach header will */
} machrv_received;

typedef struct {
    int64_t length;  /* of the waiting packet; 0 at end-of-file */
    machrv_wire_header header;
    int64_t stamp;
    int64_t before;  /* the time just before the look, ns */
} machrv_head;

typedef struct {
    int32_t family;
    int32_t type;
    int32_t hangup;   /* the other end is gone */
    int32_t length;   /* of the address of the other end, 0 if it has none */
    char address[108];
} machrv_peer;

typedef struct {
    int32_t pid;
    uint32_t uid;
    uint32_t gid;
} machrv_creator;

/*
 * A connected pair: ends[0] receives and is bound to `address`; `passpidfd` if the other is to leave this process,
 * `stamps` if the order against other ends matters.
 */
int machrv_pair(int *ends, const char *address, int length, int passpidfd, int stamps);
/* A plain pair for a bundle. */
int machrv_bundle(int *ends);
/* Switches on what makes the kernel attest every message; for ends that came from elsewhere too. */
int machrv_attest(int fd, int passpidfd);
/* Switches on time stamps; what waits already has none. */
int machrv_stamp(int fd);
/* Sends header + message[24:size] + tail with nfds descriptors. */
int machrv_send(int fd, const char *message, size_t size, uint32_t bits, int id, int flags, int space, uint32_t reply,
                const char *tail, size_t tail_size, const int *fds, int nfds);
/* Sends raw bytes with descriptors, as bundles do. */
int machrv_send_raw(int fd, const char *bytes, size_t size, const int *fds, int nfds);
int machrv_receive(int fd, machrv_received *into);
/* As machrv_receive, for a packet of a bundle, which has no header: the bytes go to into->body. */
int machrv_receive_raw(int fd, machrv_received *into);
/* This process, for machrv_receive_plain. */
typedef struct {
    int32_t pid;
    uint32_t uid;
    uint32_t gid;
    uint32_t token[8];
} machrv_identity;

/* A right in a message that machrv_receive_plain has laid out. */
typedef struct {
    uint32_t kind; /* MACH_MSG_TYPE_PORT_SEND or _SEND_ONCE */
    int32_t fd;
    int32_t named;           /* whether its socket claims to be for the port `id` */
    int32_t references;      /* how many rights to this port came, of which this one is left */
    machrv_creator creator;  /* of a send right, if another one claimed to be for the same port; else of pid 0 */
    char id[32];
} machrv_arrived;

/*
 * Receives, and lays the Mach message out, its body in into->body and its header before that, if it is as plain as most
 * are: no notification, at most `limit` bytes with its trailer, its sender attested, its rights send and send-once rights
 * to ports that live, in port descriptors and as the right to reply to. Then the result is its length with the trailer,
 * and `rights` (room for MACHRV_MAX_FDS) tells of the into->nfds rights that are left of those to the same port, the reply
 * right first: in place of a name, a descriptor has the number of its right, from 1. Otherwise 0, and all is as after machrv_receive.
 */
int machrv_receive_plain(int fd, machrv_received *into, machrv_arrived *rights, const machrv_identity *own, uint32_t kind,
                         int trusted, uint32_t name, uint32_t seqno, uint32_t trailer_size, uint64_t context,
                         uint32_t limit);
/* A port, as sending to it and receiving from it see it. */
typedef struct {
    int32_t fd;       /* the end that it receives from */
    int32_t trusted;  /* as for machrv_receive_plain, and so are the next three */
    uint32_t kind;
    uint32_t name;
    uint64_t context;
    uint32_t seqno;   /* counts the messages that machrv_receive_next and machrv_receive_again have laid out */
    int32_t loop;     /* where this space's own messages to it go in */
    uint32_t again;   /* MACHRV_AGAIN_*: what may be done again */
} machrv_port;
#define MACHRV_AGAIN_SEND 1
#define MACHRV_AGAIN_RECEIVE 2
/* For so many ports at once. */
#define MACHRV_AGAIN 16
/* What may be done to ports without the lock of their space, as nothing has happened in it since it was done last. */
typedef struct {
    int64_t lock[8];
    int32_t space;
    machrv_port *ports[16];
} machrv_gate;
/* A port of a reply. */
typedef struct {
    uint32_t key;
    uint32_t right; /* its socket if no two rights were to the same port, else its number among the rights, from 1 on */
} machrv_keyed;
/* One half of a rendezvous: where a message is received into, and what it says if it looks as nearly all of them do. */
typedef struct {
    const machrv_identity *own;
    machrv_received *into;
    machrv_arrived *rights;
    machrv_gate *gate;       /* that of the space, for what is received again */
    int64_t held;            /* somebody is looking at what was received again */
    double waited;           /* by machrv_ask, in seconds, where the result is not that of a message */
    int32_t fd;              /* the connection, or the socket that the answer comes to; -1: it is closed */
    int32_t nspent;          /* descriptors that an answer has used up, still to be closed: see machrv_settle */
    int32_t spent[254];
    uint32_t token[8];       /* who sent it */
    uint32_t id;
    uint32_t ports;          /* of a reply that brings send rights and nothing else; 0: a request; UINT32_MAX: neither */
    uint32_t nrights;        /* how many are left of those to the same port */
    machrv_keyed keyed[253]; /* the keys ascend */
} machrv_exchange;
/*
 * Closes what an answer has used up. The close that ends a socket makes the kernel look for cycles, if descriptors are in
 * flight anywhere (Linux 6.18, net/unix/af_unix.c, unix_release_sock), which costs as much as the answer: so that is put
 * off until the next request has been received, or there is none. machrv_serve does this.
 */
void machrv_settle(machrv_exchange *what);
/*
 * The usual reply of a rendezvous: makes a send right to each of n ports, and sends them under their keys (which ascend),
 * with `size` bytes of data behind them, to the send-once right `fd`; that is among what->spent then. `ids` are those of
 * the ports, 32 characters each, on end; `prefix` (8 characters) and the number `serial` on are nobody else's; `epolls`
 * watches for each port (NULL, or -1: nobody does). receiving[n] are the ends of the new rights. On failure nothing has
 * changed; -EINVAL: it is too large for this.
 */
int machrv_answer(machrv_exchange *what, int fd, int space, int n, const uint32_t *keys, const char *ids,
                  const char *prefix, uint64_t serial, const int *epolls, const char *data, size_t size, int *receiving);
/* Sends a message without rights: machrv_send with the least that varies. */
int machrv_send_plain(int fd, const char *message, size_t size, int space);
/* machrv_send_plain copies no more than this. */
#define MACHRV_SMALL 2048
/* `what` may be done again to this port, until the gate is closed. */
void machrv_open_gate(machrv_gate *gate, machrv_port *port, uint32_t what);
/* Nothing may be done again; and when this returns, nobody is still doing it. */
void machrv_close_gate(machrv_gate *gate);
/*
 * Sends a message with a copied send right and no other rights, if the gate is open for its destination. 0: it is sent.
 * Otherwise nothing has happened.
 */
int machrv_send_again(machrv_gate *gate, const char *message, size_t size);
/* The same for a message of nothing but an id and `size` bytes, to the port of this name. */
int machrv_send_bare_again(machrv_gate *gate, uint32_t name, int32_t id, const char *body, size_t size);
/*
 * As machrv_receive_plain, from `port`, with the trailer that the options of mach_msg() ask for. The length of a message
 * that brought rights, which is even, is told as one more than it is.
 */
int machrv_receive_next(machrv_exchange *what, machrv_port *port, int64_t option, uint32_t limit);
/*
 * The same from the port of this name, if the gate is open for it; of any size, and with an audit trailer. If there is a
 * message (the result is not negative), `what` is held, and nobody else receives into it, until machrv_let_go.
 */
int machrv_receive_again(machrv_exchange *what, uint32_t name);
void machrv_let_go(machrv_exchange *what);
/*
 * Takes in whoever has connected to `listener`, and receives from it as machrv_receive_plain does if its message is older
 * than all that the epoll descriptor `others` tells of (-1: whatever there is elsewhere). what->fd is the new connection,
 * -1 if it is at its end (it is closed then), or a negative errno: then so is the result, and nothing has changed. A
 * message counts in port->seqno.
 */
int machrv_serve(machrv_exchange *what, machrv_port *port, int listener, int others, uint32_t name, uint32_t trailer_size,
                 uint64_t context, uint32_t limit);
/* Nothing more can be sent to this end; what waits can still be received. */
int machrv_shut(int fd);
/* The head of the queue without its descriptors. */
int machrv_peek(int fd, machrv_head *into);
/* How many bytes wait. */
int machrv_waiting(int fd);
int machrv_describe(int fd, machrv_peer *into);
/* The 32 characters of the port id that the other end of a made right claims: 1, or 0 if it claims none. */
int machrv_port_id(int fd, char *into);
/* The address that a socket itself is bound to. */
int machrv_own_address(int fd, char *into);
/* The address that its other end is bound to. */
int machrv_peer_address(int fd, char *into);
/* Who made the other end: SO_PEERCRED. */
int machrv_made_by(int fd, machrv_creator *into);
/* SO_NETNS_COOKIE; 0 where the kernel has none (before 5.14). */
uint64_t machrv_netns(int fd);
/* For each of n sockets: 1 if the other end is gone. */
int machrv_hangups(const int *fds, int n, char *into);
/* For each of n sockets: 1 if the other end is gone and nothing waits. */
int machrv_spent(const int *fds, int n, char *into);
/* Closes those of n sockets whose other end is gone and where nothing waits, and moves the others up: how many are left. */
int machrv_reap(int *fds, int n);
void machrv_close_all(const int *fds, int n);
int machrv_dup(int fd);
int machrv_close(int fd);
int machrv_listen(const char *path, int passpidfd);
int machrv_accept(int fd);
/* Waits at most `milliseconds` for a place in the backlog; 0: -EAGAIN if there is none, -1: for ever. */
int machrv_connect(const char *path, int milliseconds);
/*
 * A whole rendezvous: connects to the listener behind a bootstrap name (the path of its symbolic link), sends it a bare
 * message with a right to reply to, gives both up, waits at most `timeout` seconds for the answer, and receives it with an
 * audit trailer as machrv_receive_plain does. As long as what->fd is -1 it is as there, or, with a negative result, nothing
 * was sent. Otherwise the answer comes, or has come, to that socket, and the result is that of machrv_receive_plain.
 */
int machrv_ask(machrv_exchange *what, const char *link, int id, int space, double timeout);
/* -EPROTOTYPE: somebody listens there; -ECONNREFUSED: nobody does (any more). Connects to nobody. */
int machrv_probe(const char *path);
/* A sealed copy of memory of this process; -EFAULT if it is not there. */
int machrv_memory(uint64_t address, uint64_t size);
/* Maps a sealed memfd of exactly `size` bytes (private, writable); 0 and *address, or a negative errno. */
int machrv_map(int fd, uint64_t size, uint64_t *address);
/* A memfd of `size` zeroed bytes, sealed against other sizes. */
int machrv_memory_object(uint64_t size);
/* What else a memfd can be sealed against: new ways to write to it. <linux/fcntl.h>, Linux 5.1; Python does not name it. */
#define MACHRV_SEAL_FUTURE_WRITE 0x10
/* Fresh memory, zeroed. */
int machrv_allocate(uint64_t size, uint64_t *address);
int machrv_unmap(uint64_t address, uint64_t size);
int machrv_pidfd_open(int pid);
/* A timer that is readable once it has run out, and stays so until it is set again. */
int machrv_timer(void);
/* Once, after so many milliseconds; 0: not at all. */
int machrv_timer_set(int fd, int milliseconds);
/* What tells this process from others with its number: the pidfd's inode, or its start time before pidfs (6.9). 0: gone. */
uint64_t machrv_process(int pid, int pidfd);
/* Switches a newer kernel feature off, so that its fallback can be tested: MACHRV_WITHOUT_*. */
#define MACHRV_WITHOUT_PASSPIDFD 1
#define MACHRV_WITHOUT_PIDFS 2
#define MACHRV_WITHOUT_PIDFD_INFO 4
#define MACHRV_WITHOUT_NETNS_COOKIE 8
#define MACHRV_WITHOUT_NOEXEC_SEAL 16
#define MACHRV_WITHOUT_PIDFD_OF_GONE 32
void machrv_without(int features);
/* 1 if the kernel attaches pidfds to messages (SO_PASSPIDFD, Linux 6.5). */
int machrv_has_passpidfd(void);

#endif
