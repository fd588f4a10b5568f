/*
 * What the Mach calls on Linux (<machrv/mach.h>) need besides, and Mach has no call for: each with its reason. Everything
 * here is machrv's own, in machrv/native/linux.
 *
 * A task is a port space of this process, told by a handle: mach_task_self() is the first. The handle stands for the task's
 * bootstrap port too. A call of <machrv/mach.h> that takes a task takes any of them; for those that take none there is one
 * here that does. Functions that return a kern_return_t have changed nothing when they fail. Those that return a descriptor
 * return a negative errno when they fail.
 */

#ifndef MACHRV_LINUX_H
#define MACHRV_LINUX_H

#include "mach.h"

/* One more port space in this process: Mach makes tasks with processes, and a test wants two of them in one. */
kern_return_t machrv_task_create(mach_port_t *task);
/* What the end of a task does: every name is destroyed. The task can be used again, empty. */
kern_return_t machrv_task_terminate(mach_port_t task);
/* Ends the task, and gives its handle back; not for the first one. */
kern_return_t machrv_task_deallocate(mach_port_t task);

/* mach_msg(), mach_msg_destroy(), fileport_makeport() and _makefd() for any task. */
mach_msg_return_t machrv_msg(mach_port_t task, mach_msg_header_t *msg, mach_msg_option_t option,
                             mach_msg_size_t send_size, mach_msg_size_t rcv_size, mach_port_name_t rcv_name,
                             mach_msg_timeout_t timeout, mach_port_name_t notify);
void machrv_msg_destroy(mach_port_t task, mach_msg_header_t *msg);
int machrv_fileport_makeport(mach_port_t task, int fd, mach_port_t *port);
int machrv_fileport_makefd(mach_port_t task, mach_port_t port);
/* A send right as a descriptor that a child can inherit, and back: for a child that looks no name up. Both copy; the descriptor is
   close-on-exec and the caller's. KERN_INVALID_RIGHT for what is no send right to a port, or no descriptor of one. */
kern_return_t machrv_right_makefd(mach_port_t task, mach_port_name_t name, int *fd);
kern_return_t machrv_right_makeport(mach_port_t task, int fd, mach_port_name_t *name);

/* bootstrap_look_up() that waits at most so long for a place among those who look up a busy server's name (launchd's
   answers at once): then KERN_OPERATION_TIMED_OUT. */
kern_return_t machrv_bootstrap_look_up(mach_port_t task, const char *service_name, mach_msg_timeout_t timeout,
                                       mach_port_t *sp);
/* Where names are checked in by this process's environment, and what is wrong with it, "" if nothing: both for a person.
   Makes the directory if it is missing. 0, or -ENAMETOOLONG where there is no room for them. */
int machrv_bootstrap_directory(char *path, int path_size, char *problem, int problem_size);
/* Removes the names of processes that were killed: how many, or a negative errno. launchd knows when a process ends. */
int machrv_bootstrap_sweep(void);

/* For event loops: a descriptor that is readable while a receive from the port or set may not have to wait, and for ever
   once the name has gone. The caller's to close: it is a copy, so take it out of every epoll before that. (macOS has kqueue.)
   MACH_PORT_NULL: readable while a notification may be due, which the next call on the task sends. */
kern_return_t machrv_port_readable(mach_port_t task, mach_port_name_t name, int *fd);
/* The same for sending: a copy of the socket that a message goes into, writable while there may be room, or nobody to send to. */
kern_return_t machrv_port_writable(mach_port_t task, mach_port_name_t name, int *fd);
/* The messages to this port have no order among each other: its senders take turns, so that one that floods it is not in
   front of everybody, and whoever looked its name up is heard once. For servers. */
kern_return_t machrv_port_take_turns(mach_port_t task, mach_port_name_t name);

/* Whether who made a send or send-once right's port is outside this process's pid namespace, so that no message of its can ever be
   believed here: it would be nobody's. 0 or 1; -1 if the name stands for no such right. */
int machrv_port_beyond(mach_port_t task, mach_port_name_t name);

/* How often a port has begun to find no descriptor for those who look it up: for a log, which C does not write. A receive with
   MACH_RCV_INTERRUPT is interrupted then. */
extern unsigned int machrv_starved;

/* Who this task is, in the words of its messages' trailers. (macOS has task_info.) */
kern_return_t machrv_task_token(mach_port_t task, audit_token_t *token);
/* pidfd_open(2), which C libraries lack. */
int machrv_pidfd_open(int pid);
/* Whether the process of a pidfd has exited: 1 or 0, or a negative errno. */
int machrv_has_exited(int pidfd);
/* What tells this process from others with its number (the low half is a token's pidversion): its pidfd's inode, or its
   start time before pidfs (Linux 6.9). 0: gone, or it cannot be told. `pidfd` may be -1. */
uint64_t machrv_process(int pid, int pidfd);

/* For `machrv trace`: what every process knows the port by (32 characters and a NUL, "file" for a fileport, "" where it is
   not known), and its type as last seen. Changes nothing. */
kern_return_t machrv_port_identity(mach_port_t task, mach_port_name_t name, char *id, mach_port_type_t *type);

/* For `machrv ports`: one name of a task. */
typedef struct {
    mach_port_name_t name;
    mach_port_type_t type;
    mach_port_urefs_t urefs;
    int32_t file;            /* it is a fileport */
    uint64_t socket;         /* inode of the socket of a send or send-once right, 0: none */
    uint32_t ends;           /* how many receiving ends a port has */
    uint32_t own;            /* rights of the task's own to it, which need no socket */
    uint32_t messages;       /* how many messages wait there */
    uint64_t bytes;          /* of those of the task's own */
    uint32_t members;        /* of a port set */
    char id[33];             /* as for machrv_port_identity */
} machrv_account_t;
/* Fills in at most `room` names, from the `first`th: how many there are in all from there on. */
int machrv_account(mach_port_t task, int first, machrv_account_t *into, int room);
/* The inodes of a port's receiving ends: as above. */
int machrv_account_ends(mach_port_t task, mach_port_name_t name, uint64_t *into, int room);

/* Switches a newer kernel feature off, so that its fallback can be tested: MACHRV_WITHOUT_*. */
#define MACHRV_WITHOUT_PASSPIDFD 1
#define MACHRV_WITHOUT_PIDFS 2
#define MACHRV_WITHOUT_PIDFD_INFO 4
#define MACHRV_WITHOUT_NETNS_COOKIE 8
#define MACHRV_WITHOUT_NOEXEC_SEAL 16
#define MACHRV_WITHOUT_PIDFD_OF_GONE 32
#define MACHRV_WITHOUT_PEERPIDFD 64
#define MACHRV_WITHOUT_LARGE_CONTROL 128 /* a C library as musl was before 1.2.6: see machrv_max_fds */
void machrv_without(int features);
/* Which of these features there are, found by trying, but for those that are switched off: MACHRV_WITHOUT_PASSPIDFD and so on. */
int machrv_features(void);
/* Waits until what was given to the library's closing thread has been closed, at most so long: 0 or -ETIMEDOUT. For tests that
   count. */
int machrv_settle(int milliseconds);

/* Limits of one message: SCM_MAX_FD (Linux, include/net/scm.h) rights and memory, and the largest body. */
#define MACHRV_MAX_FDS 253
/* How many of these one message takes here, found by trying: MACHRV_MAX_FDS, or one less with musl before 1.2.6, whose sendmsg
   refuses more than 1,024 bytes of control messages (src/network/sendmsg.c). What is received may be MACHRV_MAX_FDS always. */
int machrv_max_fds(void);
#define MACHRV_MAX_MESSAGE (64 * 1024 * 1024)
/* What a memfd can be sealed against besides: new ways to write to it. <linux/fcntl.h>, Linux 5.1; Python does not name it. */
#define MACHRV_SEAL_FUTURE_WRITE 0x10

#endif
