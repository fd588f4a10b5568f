/*
 * What the C files of the Linux port space share; include/machrv/linux.h is what they promise to Python.
 *
 * What belongs here: names that older C libraries lack, and the few functions that one file needs of another. What must
 * never happen here: anything that Python calls.
 */

#ifndef MACHRV_NATIVE_H
#define MACHRV_NATIVE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "machrv/linux.h"

/* Values of <asm-generic/socket.h>, <linux/socket.h> and <linux/pidfd.h> that older C libraries do not name. */
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76 /* Linux 6.5 */
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif
#ifndef SCM_CREDENTIALS
#define SCM_CREDENTIALS 2
#endif
#define PORT_SEND 17          /* MACH_MSG_TYPE_PORT_SEND */
#define PORT_SEND_ONCE 18     /* MACH_MSG_TYPE_PORT_SEND_ONCE */
#define COPY_SEND 19          /* MACH_MSG_TYPE_COPY_SEND */
#define HEADER 24             /* sizeof(mach_msg_header_t) */
#define AUDIT_TRAILER 52      /* sizeof(mach_msg_audit_trailer_t) */
#define COMPLEX 0x80000000u   /* MACH_MSGH_BITS_COMPLEX */
#define WIRE_MAGIC 0x6d727678u /* the form of packets that this version writes: 'mrvx' */

#pragma GCC visibility push(hidden)

/* MACHRV_WITHOUT_*: the features that are switched off, for tests. */
extern int machrv_missing;

/* No descriptor was free, or soon none will be: there is a look before each message is received (packet.c). */
extern int machrv_scarce;

/* A memfd that can be sealed, or a negative errno. */
int machrv_memfd(const char *name);

/* The time as packets tell it: CLOCK_REALTIME in nanoseconds. */
int64_t machrv_now(void);

/* Close `fd`, and answer with the error that was there before. */
int machrv_fail_closing(int fd);

/* Sends a message of nothing but an id and `size` bytes, at most MACHRV_SMALL. */
int machrv_send_bare(int fd, int32_t id, const char *body, size_t size, int space);

/* machrv_receive; or, with `wait`, the same for a socket with a receive timeout, until there is something or a signal. */
int machrv_receive_packet(int fd, machrv_received *into, int wait);

/* Lays out what has been received: the second half of machrv_receive_plain. */
int machrv_lay_out(machrv_received *into, machrv_arrived *rights, const machrv_identity *own, uint32_t kind, int trusted,
                   uint32_t name, uint32_t seqno, uint32_t trailer_size, uint64_t context, uint32_t limit);

/* What a message says that is laid out, so long with its audit trailer: from what->ports on. */
void machrv_read_usual(machrv_exchange *what, int length);

#pragma GCC visibility pop

#endif
