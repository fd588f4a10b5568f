/*
 * The port space: what its rooms share. Each room is a file, named as in XNU's osfmk/ipc, and says what it is for.
 *
 * Who owns what: a task owns its entries; an entry owns what it stands for. A descriptor has one owner: an ipc_socket
 * (counted; the sending side of a right to somebody's port), an ipc_end (the receiving side of one right), a packet (what
 * has arrived and nobody has taken), or a variable of the function that has just made it. A struct ipc_right is owned by
 * whoever holds it, and ends in ipc_right_release(), in a message, or under a name.
 *
 * Locks: each task has one, which is never held while anything waits. ipc_ports_lock (ipc_port.c) is a leaf: it guards
 * what is known of the ports of all tasks of this process. "Locked" in a comment means the task's lock.
 */

#ifndef MACHRV_IPC_H
#define MACHRV_IPC_H

#include "system.h"

#include "closing.h"
#include "packet.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#pragma GCC visibility push(hidden)

#define KIND_RECEIVE MACH_MSG_TYPE_PORT_RECEIVE
#define KIND_SEND MACH_MSG_TYPE_PORT_SEND
#define KIND_ONCE MACH_MSG_TYPE_PORT_SEND_ONCE
#define KIND_MEMORY 1   /* in a message: out-of-line memory */
#define KIND_LISTENER 2 /* of an end: where those who look a bootstrap name up connect */

struct ipc_task;
struct ipc_port;
struct ipc_pset;
struct ipc_message;

/* The sending side of a right whose port is elsewhere; or the file of a fileport; or a memfd on its way. */
struct ipc_socket {
    unsigned refs; /* guarded by the task's lock: one never passes from task to task */
    int fd;
    bool file;  /* it came as a file, which may be anything */
    bool ours;  /* its other end is, or was, this process's: nothing of a peer's lies in its queue */
    bool alone; /* this process has connected it, and given nobody a copy */
    bool named; /* its other end claims the port `id` */
    bool maker_known;
    uint64_t maker; /* socket_maker(), once somebody wanted to know */
    char id[PORT_ID];
};

/* A right between two names. Neither port nor socket: to a port that has died; kind 0: none at all. */
struct ipc_right {
    unsigned kind;             /* KIND_* */
    struct ipc_port *port;     /* the port is this task's, or is on its way from it: counted */
    struct ipc_socket *socket; /* it is somebody else's: counted */
};
#define NO_RIGHT ((struct ipc_right){0, NULL, NULL})
static inline bool ipc_right_is_dead(const struct ipc_right *right) { return right->kind && !right->port && !right->socket; }

/* Rights that are under no name, but in a message: where they are found when the port that they lead to leaves. */
struct ipc_held {
    struct ipc_held *next, **place;
    struct ipc_right *rights;
    size_t count;
    struct ipc_message *message; /* whose they are; NULL: its sender waits */
};

/* Who asked to be told of a name: DEAD_NAME, and SEND_POSSIBLE once a send has found no room. */
struct ipc_request {
    struct ipc_right notify; /* a send-once right; kind 0: nobody asked */
    bool possible;           /* SEND_POSSIBLE was asked for */
    bool armed;              /* and is to be sent as soon as there is room */
};

/* One name. */
struct ipc_entry {
    mach_port_name_t name; /* as it is, or will be when it is next given out */
    mach_port_type_t type; /* MACH_PORT_TYPE_*; 0: free */
    mach_port_urefs_t urefs;
    uint32_t next_free;    /* index */
    struct ipc_port *port; /* of a receive right, and of send and send-once rights to it: counted */
    struct ipc_pset *pset;
    struct ipc_socket *socket; /* of a send or send-once right to a port that is elsewhere */
    struct ipc_request request;
    bool watched;                /* its socket is in the task's watcher */
    struct ipc_entry *same_hash; /* the next with a send right whose port id hashes alike */
};

#define ID_BUCKETS 256

struct ipc_task {
    pthread_mutex_t lock;
    atomic_uint refs;
    mach_port_t handle;
    uint16_t number; /* asid in the tokens of its messages */

    struct ipc_entry **table; /* by index; those that were never used are NULL */
    uint32_t table_size, next_index, free_head, free_tail, nfree;
    struct ipc_entry *by_id[ID_BUCKETS];

    int watcher;      /* epoll: readable when a notification may be due, or whoever waits must look again; -1: not yet */
    int kick;         /* eventfd in it */
    int retry;        /* timerfd in it: look-ups that found no descriptor are tried again; -1: not yet */
    unsigned watched; /* how much is in it, but for the kick */
    unsigned waiting, kicks, kicked; /* threads that wait; how often they were woken; how many have not noticed yet */
    unsigned starving;               /* ports that found no descriptor to accept with */

    struct ipc_held *held;                    /* rights of messages that wait, or whose senders do */
    struct packet *packet;                    /* what was received last */
    struct ipc_doomed *doomed, **doomed_last; /* rights of messages that are being destroyed */
    bool destroying;
};

/* The receiving side of one right. */
struct ipc_end {
    struct ipc_end *next, *previous;
    struct ipc_port *port;
    int fd;
    unsigned kind;                  /* KIND_SEND, KIND_ONCE, KIND_LISTENER */
    unsigned pins;                  /* threads that poll it: its descriptor is not closed meanwhile */
    bool told;                      /* send and send-once rights share it: each packet tells its kind */
    bool copied;                    /* it has what waits in the local end, for a move that may still fail */
    bool moved;                     /* it goes on living elsewhere */
    bool hung;                      /* the other side has gone */
    bool drained;                   /* nothing waits there, and nothing can come */
    bool foreign;                   /* it came from elsewhere: whoever had it may have a copy */
    bool hidden;                    /* something waits that was not shown */
    bool unpolled;                  /* the local one: there was no descriptor to tell the port's epoll of it by */
    bool stamped;                   /* the system stamps its messages with the time */
    bool queued;                    /* it stands in its port's heap */
    bool watched;                   /* it is in its task's watcher */
    unsigned spoke;                 /* how many messages have come */
    bool gone;                      /* it is closed as soon as nobody polls it */
    int32_t late;                   /* how many of the bytes that wait were sent before there were stamps */
    int64_t stamp;                  /* of its head, while it is queued */
    pid_t peer;                     /* who connected, where senders take turns; -1: nobody that is known here */
    struct attested_process sender; /* who sent here last, so long as that is known for sure */
    int address_length;
    char address[ADDRESS_MAX]; /* that it is bound to */

    bool local; /* the task's own messages to its port: no socket, they wait here (ipc_local.c); fd: an eventfd, or -1 */
    struct ipc_message *first, **last;
    unsigned count;   /* of them */
    unsigned blocked; /* threads that wait for room */
    unsigned lit;     /* what the eventfd tells */
};

struct ipc_port {
    unsigned refs;
    char id[PORT_ID];
    struct ipc_task *home;           /* whose memory this is; NULL: it has never had a name */
    struct ipc_task *task;           /* that receives from it; NULL: on its way, or dead */
    mach_port_name_t name;           /* while it is on its way: of a send right to it, if there is one */
    struct ipc_port *along, *before; /* of those that leave the task together (ipc_transit.c) */
    bool alive;
    struct ipc_port *same_hash; /* in the table of ports (ipc_port.c) */

    struct ipc_end *ends, *last_end, *listener;
    unsigned nends, crowded; /* with so many, look which are of no use any more */
    struct ipc_end **heap;   /* ends whose heads were looked at and left, oldest first */
    unsigned nqueued, heap_size;
    int64_t scanned;            /* what became readable since then is younger */
    struct ipc_socket *epoll;   /* over the ends and the task's watcher; NULL: nobody has waited for several */
    struct epoll_event *events; /* what it told last */
    unsigned nevents;           /* so many there is room for */
    bool ordered;               /* all its messages bear stamps */
    bool turns;                 /* no order: senders take turns */
    bool spread;                /* rights of this task to it have had sockets */
    uint8_t vain;               /* how often in a row nothing was found here */
    bool out_of_room;           /* accept() found no free descriptor */
    pid_t served;               /* whose turn it was last */
    struct ipc_end *local;      /* where the task's own messages wait */
    unsigned most;              /* so many connections leave some descriptors for others; 0: not known */
    unsigned watchers;          /* threads that wait for its only socket, and have to be told of those */

    uint32_t mscount, seqno, qlimit;
    uint64_t made;     /* as mscount, but never set back */
    uint64_t ns_since; /* NO_SENDERS is due once there are no senders and `made` is another number */
    bool ns_counted;   /* ns_since counts; else there were senders when it was asked for */
    unsigned onces;    /* send-once rights of this task that have no socket */
    unsigned
        carried; /* send rights in messages of this task that nobody has received yet, and those that they were sent with */
    uint64_t context;
    bool guarded, strict, immovable;
    uint8_t importance;    /* MACH_PORT_STATUS_FLAG_*: kept, and of no consequence */
    struct ipc_left *left; /* what it left behind with its name, as long as it may come back */
    struct ipc_right nsrequest, pdrequest;
    struct ipc_pset **sets;
    unsigned nsets, sets_size;
    struct bootstrap_name *bootstrap;
};

struct ipc_pset {
    unsigned refs;
    struct ipc_task *task;
    mach_port_name_t name;
    struct ipc_port **members;
    unsigned nmembers, members_size;
    struct ipc_port **order;  /* members that have had something to receive, in the order in which they began to */
    unsigned norder;          /* never more than members_size */
    struct ipc_socket *epoll; /* over the members' epolls and the task's watcher */
};

/* The id of the port that a right leads to; NULL if nobody knows. */
static inline const char *ipc_right_id(const struct ipc_right *right)
{
    return right->port ? right->port->id : right->socket && right->socket->named ? right->socket->id : NULL;
}

/* -- task.c ------------------------------------------------------------------------------------------------------------ */

/* A task by its handle, counted, or NULL; and given back. */
struct ipc_task *task_find(mach_port_t handle);
void task_release(struct ipc_task *task);
/* task_find(), and its lock; for a call that tells what there is: notifications that have become due have been sent. */
struct ipc_task *task_enter(mach_port_t handle);
struct ipc_task *task_look(mach_port_t handle);
void task_leave(struct ipc_task *task);
/* Where the task receives into; NULL without memory. */
struct packet *ipc_task_packet(struct ipc_task *task);
/* This process: pid and pidversion, asked for once in each process. */
pid_t self_pid(void);
uint64_t self_process(void);
void self_token(uint16_t space, uint32_t euid, uint32_t egid, uint32_t ruid, uint32_t rgid, audit_token_t *token);

/* -- ipc_entry.c: names -------------------------------------------------------------------------------------------------- */

struct ipc_entry *ipc_entry_lookup(struct ipc_task *task, mach_port_name_t name);
/* A free entry, whose type the caller sets; NULL without memory. */
struct ipc_entry *ipc_entry_alloc(struct ipc_task *task);
/* So many of the next ipc_entry_alloc() will not fail. */
bool ipc_entry_reserve(struct ipc_task *task, unsigned count);
/* The entry of a name that the caller chose, out of the free ones: *entry may be in use, for that very name. KERN_FAILURE: index 0, or in use
   under another generation. KERN_NO_SPACE, KERN_INVALID_VALUE, KERN_RESOURCE_SHORTAGE. */
kern_return_t ipc_entry_alloc_name(struct ipc_task *task, mach_port_name_t name, struct ipc_entry **entry);
void ipc_entry_dealloc(struct ipc_task *task, struct ipc_entry *entry);
/* The send rights of a task by the port that their socket claims. */
void ipc_entry_remember(struct ipc_task *task, struct ipc_entry *entry);
void ipc_entry_forget(struct ipc_task *task, struct ipc_entry *entry);
unsigned id_hash(const char id[PORT_ID]);
void ipc_entry_free_table(struct ipc_task *task);

/* -- ipc_right.c: what a name stands for ----------------------------------------------------------------------------------- */

/* Whether the port of a send or send-once right has died: then the entry is a dead name from now on. */
bool ipc_right_check(struct ipc_task *task, struct ipc_entry *entry);
void ipc_right_check_all(struct ipc_task *task);
/* The entry's port has died: a dead name, and who asked is told. */
void ipc_right_bury(struct ipc_task *task, struct ipc_entry *entry);
/* What the name of a right becomes on the way, 0 for what is none (ipc_object_copyin_type). */
unsigned ipc_right_kind(mach_msg_type_name_t disposition);
/* Takes a right out of a name, by the rules of ipc_right_copyin. dead_ok: a dead name gives a dead right. KERN_INVALID_RIGHT.
   The entry may be gone afterwards; who asked about it is told then. */
kern_return_t ipc_right_copyin(struct ipc_task *task, struct ipc_entry *entry, mach_msg_type_name_t disposition, bool dead_ok,
                               struct ipc_right *right);
/* Puts a right under a name: the one that its port has here, or a new one (`name`, where that is not null and is free). The
   right is used up. MACH_PORT_DEAD for a dead one, MACH_PORT_NULL (and the right is destroyed) without memory. */
mach_port_name_t ipc_right_copyout(struct ipc_task *task, struct ipc_right *right, mach_port_name_t name);
/* The entry of the port of a send or receive right, NULL if there is none. */
struct ipc_entry *ipc_right_reverse(struct ipc_task *task, const struct ipc_right *right);
/* Destroys a right that was on its way, and tells whom it concerns. */
void ipc_right_release(struct ipc_task *task, struct ipc_right *right);
/* Gives up one user reference, or so many; the whole name. */
kern_return_t ipc_right_dealloc(struct ipc_task *task, struct ipc_entry *entry);
kern_return_t ipc_right_delta(struct ipc_task *task, struct ipc_entry *entry, mach_port_right_t right, mach_port_delta_t delta);
kern_return_t ipc_right_destroy(struct ipc_task *task, struct ipc_entry *entry, bool check_guard);
void ipc_right_add_urefs(struct ipc_entry *entry);
mach_port_type_t ipc_right_type(const struct ipc_entry *entry);
/* The last receive reference goes: what mod_refs(-1) and destruct do. */
void ipc_right_end_receive(struct ipc_task *task, struct ipc_entry *entry);

/* -- ipc_socket: counted descriptors (ipc_right.c) ------------------------------------------------------------------------ */

/* Takes the descriptor over, unless it returns NULL. */
struct ipc_socket *ipc_socket_new(int fd, bool file);
struct ipc_socket *ipc_socket_hold(struct ipc_socket *socket);
/* Its descriptor, for a message: borrowed. */
int ipc_socket_give(struct ipc_socket *socket);
void ipc_socket_release(struct ipc_socket *socket);
bool ipc_socket_hung_up(const struct ipc_socket *socket);

/* -- ipc_port.c: ports and their ends ---------------------------------------------------------------------------------------- */

extern pthread_mutex_t ipc_ports_lock;
/* It is found by its id no more. */
void ipc_port_unlist(struct ipc_port *port);
/* In the child of a fork: nobody's ports are known. */
void ipc_ports_forget(void);

/* A new port under `id`, or one that nobody can guess. One reference, the caller's. NULL without memory. */
struct ipc_port *ipc_port_new(const char *id);
struct ipc_port *ipc_port_hold(struct ipc_port *port);
void ipc_port_release(struct ipc_port *port);
/* It is received from by this name: others find it by its id. */
void ipc_port_enter(struct ipc_port *port, struct ipc_task *task, mach_port_name_t name);
/* It leaves its name and its sets, and counts anew (ipc_port_clear_receiver). Who waits there is woken. */
void ipc_port_detach(struct ipc_port *port);
/* It has come back from a message that could not be sent: into its sets, with its counts. */
void ipc_port_restore(struct ipc_port *port);
/* The port of this task with the id, which may be on its way within it; not counted; NULL. */
struct ipc_port *ipc_port_find(struct ipc_task *task, const char id[PORT_ID]);
/* Makes a right: *sender is the descriptor to give away. `told`: one for messages that tell their kind, and of which nobody has
   to know whose it is. 0 or a negative errno. */
int ipc_port_make_end(struct ipc_port *port, unsigned kind, bool told, int *sender, struct ipc_end **end);
/* Takes an end in; the port owns its descriptor from here on, unless it returns a negative errno. */
int ipc_port_add_end(struct ipc_port *port, struct ipc_end *end);
struct ipc_end *ipc_end_new(int fd, unsigned kind);
/* Whether it has so many that only an epoll tells which of them have something; its only socket, but for a listener; NULL. */
bool ipc_port_needs_epoll(const struct ipc_port *port);
struct ipc_end *ipc_port_socket(const struct ipc_port *port);
/* Closes an end: its right is dead, or used up. */
void ipc_end_drop(struct ipc_end *end);
void ipc_end_unpin(struct ipc_end *end);
/* Has the port's epoll tell of an end (`add`), or tell anew what it is to tell: 0 or a negative errno. */
int ipc_end_poll(struct ipc_port *port, struct ipc_end *end, bool add);
void ipc_port_count_made(struct ipc_port *port);
/* Takes in who has looked the port up: how many (ipc_accept.c). */
unsigned ipc_port_accept(struct ipc_port *port);
bool ipc_port_has_senders(struct ipc_port *port);
/* There is an epoll over its ends: 0 or a negative errno. */
int ipc_port_watch(struct ipc_port *port);
/* The messages to this port have to be ordered from now on: 0 or a negative errno. */
int ipc_port_order(struct ipc_port *port);
/* Everything is closed: whoever holds a right sees the port die. The requests are not touched. */
void ipc_port_close(struct ipc_port *port);
/* Whether the socket's other end is one of the port's own. */
bool ipc_port_has_end(struct ipc_port *port, struct ipc_socket *socket);
/* A send right has come home: its socket is given up, and its end too if nobody else has it and nothing waits there. */
void ipc_port_take_home(struct ipc_port *port, struct ipc_socket *socket);
/* And that end is dropped. */
bool ipc_port_drop_end_of(struct ipc_port *port, struct ipc_socket *socket);
/* Gives sockets to the rights that this task holds to a port that leaves, and to one right: 0 or a negative errno. */
int ipc_port_externalize(struct ipc_task *task, struct ipc_port *port);
int ipc_right_externalize(struct ipc_right *right);
/* Destroys a receive right that has no name: its messages and requests with it. Uses up the caller's reference. */
void ipc_port_destroy(struct ipc_task *task, struct ipc_port *port);
/* Whether a receive right that is sent to `destination` could never be received (ipc_port_check_circularity). */
bool ipc_port_is_circular(const char port[PORT_ID], const char destination[PORT_ID]);
/* A receive right is in a message to `destination`: whether that is a task of this process. It has come out of one. It is no
   longer known what waits in it. */
bool ipc_port_departed(const char port[PORT_ID], const char destination[PORT_ID]);
void ipc_port_arrived(const char port[PORT_ID]);
void ipc_port_gone(const char port[PORT_ID]);

/* -- ipc_transit.c: rights as descriptors of a packet ------------------------------------------------------------------------- */

/* Whether a descriptor from a peer may be a right that is no file. Never waits. */
bool ipc_transit_is_right(int fd);
/* What a descriptor from a peer is as a right of this kind (one that may be one, or a file); it is used up. `hung`: its other
   end has gone. `own`: this process has sent it. 0 (a dead right where the port has died), -EBADMSG: it is no such right;
   -EMFILE and the like. */
int ipc_transit_arrived(struct ipc_task *task, int fd, unsigned kind, bool file, bool hung, bool own, struct ipc_right *right);
/* A descriptor that holds a port, with those that wait in its queue, or a negative errno. The port keeps its own descriptors:
   either it has gone then, or it stays. */
int ipc_transit_pack(struct ipc_task *task, struct ipc_port *port);
void ipc_transit_unpack(struct ipc_port *port);
/* What has gone is closed here; nobody sees the port die. Uses the reference up. `destination`: NULL where that is not known. */
void ipc_transit_sent(struct ipc_port *port, const char *destination);

/* -- ipc_local.c: a task's messages to ports of its own ------------------------------------------------------------------------- */

struct ipc_message {
    struct ipc_message *next;
    struct wire_header header;
    uint32_t ruid, euid, rgid, egid;
    struct ipc_held held; /* its rights, by slot */
    size_t length;        /* of the body */
    char *body;
};

/* Where they wait: NULL without memory, or room to watch it. */
struct ipc_end *ipc_local(struct ipc_port *port);
/* A message to a port of this task. The rights are the message's, unless it returns a negative errno: -EAGAIN if too much waits. */
int ipc_local_send(struct ipc_task *task, const struct ipc_right *to, const struct wire_header *header,
                   const struct iovec *parts, int count, struct ipc_right *rights, size_t nrights);
/* Whether one more need not wait (not ip_full). */
bool ipc_local_has_room(const struct ipc_port *port);
/* The next message, which is the caller's; NULL. The rights are still where ipc_held tells, until they are released. */
struct ipc_message *ipc_local_take(struct ipc_end *end);
void ipc_local_free(struct ipc_message *message);
/* Gives the end a descriptor that is readable while something waits, and writable while there is room: it, or a negative errno. */
int ipc_local_fd(struct ipc_end *end);
/* Looks at the head of an end; how many bytes wait there, or, of the local end, messages. As packet_peek() and packet_waiting(). */
int ipc_end_peek(const struct ipc_end *end, struct packet_head *into);
int ipc_end_waiting(const struct ipc_end *end);
void ipc_hold_rights(struct ipc_task *task, struct ipc_held *held, struct ipc_right *rights, size_t count);
void ipc_unhold_rights(struct ipc_held *held);

/* -- ipc_mqueue.c, ipc_pset.c: which message is next, and waiting ------------------------------------------------------------- */

/* The end with the port's next message; NULL: nothing waits. *error: a negative errno where that cannot be known. */
struct ipc_end *ipc_mqueue_next(struct ipc_port *port, int *error);
/* The head of an end has been received: see what stands behind it. */
void ipc_mqueue_taken(struct ipc_end *end);
void ipc_mqueue_unqueue(struct ipc_end *end);
/* How many messages the port's queue takes at least; whoever finds a new end full is to know if that is many. */
void ipc_mqueue_set_qlimit(struct ipc_port *port, mach_port_msgcount_t qlimit);
void ipc_mqueue_tell_qlimit(struct ipc_end *end);
mach_msg_return_t ipc_mqueue_receive(struct ipc_task *task, mach_msg_header_t *msg, mach_msg_option_t option,
                                     mach_msg_size_t size, mach_port_name_t name, mach_msg_timeout_t timeout);

struct ipc_pset *ipc_pset_new(void);
void ipc_pset_release(struct ipc_pset *pset);
int ipc_pset_insert(struct ipc_pset *pset, struct ipc_port *port);
void ipc_pset_remove(struct ipc_pset *pset, struct ipc_port *port);
bool ipc_pset_is_member(const struct ipc_pset *pset, const struct ipc_port *port);
int ipc_pset_watch(struct ipc_pset *pset);
void ipc_pset_refresh(struct ipc_pset *pset);
struct ipc_end *ipc_pset_next(struct ipc_pset *pset, int *error);
void ipc_pset_destroy(struct ipc_task *task, struct ipc_pset *pset);

/* -- ipc_wait.c: threads that wait on a task, and event loops ------------------------------------------------------------------- */

/* The task's watcher, or a negative errno. What is in it is told from each other by the lowest bits of what epoll keeps. */
#define WATCHED_ENTRY 0
#define WATCHED_END 1
#define WATCHED_KICK 2
#define WATCHED_RETRY 3
int ipc_watcher(struct ipc_task *task);
int ipc_watch_end(struct ipc_end *end);
void ipc_unwatch_end(struct ipc_end *end);
int ipc_watch_entry(struct ipc_task *task, struct ipc_entry *entry);
void ipc_unwatch_entry(struct ipc_task *task, struct ipc_entry *entry);
/* Wakes every thread that waits on the task: what it waits on may have changed. */
void ipc_kick(struct ipc_task *task);
/* Sends the notifications that have become due. */
void ipc_pump(struct ipc_task *task);
/* Lets the lock go and polls fd, the watcher too, until `deadline` (ns of now_monotonic(); 0: for ever): 1 readable, 0 the
   deadline, -EINTR, another negative errno. `events` as for poll(). What has become due meanwhile has been sent. */
int ipc_wait(struct ipc_task *task, int fd, short events, int64_t deadline);
void ipc_retry_later(struct ipc_task *task);
void ipc_wait_close(struct ipc_task *task);
/* What is readable for ever: a descriptor, or a negative errno. */
int ipc_ended(void);
/* A port or set has gone: whoever still has a copy of its epoll finds it readable, for ever. */
void ipc_epoll_end(struct ipc_socket *epoll);

/* -- ipc_notify.c ----------------------------------------------------------------------------------------------------------------- */

/* Each uses the right up, whatever becomes of it. */
void ipc_notify_dead_name(struct ipc_task *task, struct ipc_right *to, mach_port_name_t name);
void ipc_notify_port_deleted(struct ipc_task *task, struct ipc_right *to, mach_port_name_t name);
void ipc_notify_send_possible(struct ipc_task *task, struct ipc_right *to, mach_port_name_t name);
void ipc_notify_no_senders(struct ipc_task *task, struct ipc_right *to, mach_port_mscount_t mscount);
/* PORT_DESTROYED with the right; false, and nothing is used up, if nobody can get it. */
bool ipc_notify_port_destroyed(struct ipc_task *task, struct ipc_right *to, struct ipc_port *port);
/* NO_SENDERS, if it is due. */
void ipc_notify_check_senders(struct ipc_port *port);
/* An unused send-once right goes: its receiver is told, in its turn. */
void ipc_notify_send_once(struct ipc_task *task, struct ipc_right *right);

/* -- ipc_kmsg.c, ipc_copyin.c, ipc_copyout.c: messages ----------------------------------------------------------------------------- */

/* Sends a message to a right, in whichever way it is to be reached: as packet_send(). The rights have gone, unless it returns a
   negative errno; a send right is still the caller's. */
int ipc_kmsg_deliver(struct ipc_task *task, const struct ipc_right *to, struct wire_header *header, const struct iovec *parts,
                     int count, struct ipc_right *rights, size_t nrights, int *memory);
mach_msg_return_t ipc_kmsg_send(struct ipc_task *task, mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t size,
                                mach_msg_timeout_t timeout);
/* What was received last from `end` becomes a message in the caller's buffer. MACH_MSG_SUCCESS, an error, or -1: it was none. */
mach_msg_return_t ipc_kmsg_receive(struct ipc_task *task, struct ipc_end *end, mach_msg_header_t *msg, mach_msg_option_t option,
                                   mach_msg_size_t size);
mach_msg_size_t ipc_kmsg_trailer_size(mach_msg_option_t option);
/* The messages of a port that dies are destroyed. */
void ipc_kmsg_collect(struct ipc_task *task, struct ipc_port *port);
/* Rights of messages that were destroyed: each in its order, one after the other. */
void ipc_kmsg_doom(struct ipc_task *task, struct ipc_right *rights, unsigned count);
void ipc_kmsg_reap(struct ipc_task *task);
/* The largest body that is copied in (ipc_kmsg_max_body_space) with its header. */
#define MAX_MESSAGE_SIZE (MACHRV_MAX_MESSAGE - 68)

#pragma GCC visibility pop

#endif
