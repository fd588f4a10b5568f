/*
 * What Linux has, by names that older C libraries lack, and what is asked of it in one place: processes, time, memory,
 * bootstrap names. Nothing here knows a port.
 */

#ifndef MACHRV_SYSTEM_H
#define MACHRV_SYSTEM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <machrv/linux.h>

_Static_assert(
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
    "machrv needs a little-endian machine: its messages are laid out as macOS lays them out, and packets as this machine does");

/* Values of <asm-generic/socket.h> and <linux/socket.h>. */
#ifndef SO_PEEK_OFF
#define SO_PEEK_OFF 42
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76 /* Linux 6.5 */
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif
#ifndef SCM_CREDENTIALS
#define SCM_CREDENTIALS 2
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* <linux/memfd.h>, Linux 6.3 */
#endif

#define PORT_ID 32      /* characters of a port's id: 128 bits in hexadecimal */
#define ADDRESS_MAX 108 /* of a socket's address: sizeof(sun_path) */

#pragma GCC visibility push(hidden)

/* -- process.c ------------------------------------------------------------------------------------------------------- */

/* MACHRV_WITHOUT_*: what is switched off, for tests. */
extern int machrv_missing;
#define HAVE(feature) (!(machrv_missing & MACHRV_WITHOUT_##feature))

/* Who this process is has to be found out again (task.c). */
void task_forget_self(void);

/* CLOCK_REALTIME in nanoseconds: what time stamps are compared with. */
int64_t now_real(void);
/* CLOCK_MONOTONIC in nanoseconds: what deadlines are told in. */
int64_t now_monotonic(void);
/* Fills in random bytes that nobody can guess: 0 or a negative errno. */
int random_bytes(void *into, size_t size);

/* poll() that does not wait, and whose interruptions and lack of memory nobody has to think of: what could not be looked at is
   as if nothing were there. How many are ready; a negative errno if only one was asked for and could not be looked at. */
int poll_surely(struct pollfd *polled, size_t count);

/* The ids that PIDFD_GET_INFO tells (Linux 6.13) of a process that is running: true if so. */
bool pidfd_ids(int pidfd, uint32_t *euid, uint32_t *egid);
/* Which process made the other end of a connected socket: as machrv_process() tells it, by SO_PEERPIDFD, else by the start
   time of the process with SO_PEERCRED's pid (before Linux 6.5). 0: it cannot be told, and is the same as no other. */
uint64_t socket_maker(int fd);

/* -- vm.c ------------------------------------------------------------------------------------------------------------- */

/* A new memfd that can be sealed, not executable where the kernel knows that; or a negative errno. */
int memory_file(const char *name);
/* A sealed copy of this process's memory: a descriptor, or a negative errno; -EFAULT if it is not there. */
int memory_copy(vm_address_t address, size_t size);
/* Copies this process's memory, which may not be there: 0 or -EFAULT. */
int memory_read(void *into, vm_address_t address, size_t size);
/* Looks at a descriptor that a peer sent: the size of a memfd that nobody can write to or cut short, or a negative errno.
   Never waits. */
int64_t memory_sealed_size(int fd);
/* Maps such a memfd of `size` bytes, privately: 0 or a negative errno (-EINVAL for no bytes). */
int memory_map(int fd, size_t size, vm_address_t *address);
/* task.c: a handle of a port space of this process that lives. vm_allocate() and its like ask nothing else of a task. */
bool task_is_valid(mach_port_t task);

/* -- bootstrap_name.c: names for processes ------------------------------------------------------------------------------- */

/* A name that is taken: what is to be removed with its port. Those that still are when the process exits are removed then. */
struct bootstrap_name;

/*
 * Listens under a name. *listener is a listening SOCK_SEQPACKET socket, non-blocking, whose accepted sockets attest their
 * senders (SO_PASSCRED, SO_PASSPIDFD set before listen(); SO_TIMESTAMPNS is not inherited, and is to be set on what is
 * accepted: what was sent before bears the time when it is first looked at); `address` what it is bound to (*length bytes, no
 * NUL). The caller owns all three. BOOTSTRAP_NAME_IN_USE, BOOTSTRAP_UNKNOWN_SERVICE (an empty name), BOOTSTRAP_NOT_PRIVILEGED
 * (the directory is not safe, or cannot be written to), BOOTSTRAP_NO_MEMORY (somebody holds its lock), KERN_RESOURCE_SHORTAGE.
 * Waits, some 10 s at most, for the directory's lock: not with a lock of a task's.
 */
kern_return_t bootstrap_name_claim(const char *service, const char id[PORT_ID], int *listener, char address[ADDRESS_MAX],
                                   int *length, struct bootstrap_name **name);
/* Gives a name up, unless it is somebody else's by now, and frees it. NULL is ignored. Before its listener is closed: as long
   as somebody listens, nobody takes the name for stale, and so it cannot become another's while it is looked at. */
void bootstrap_name_remove(struct bootstrap_name *name);
/* In the child of a fork: the name is the parent's; frees it only. */
void bootstrap_name_forget(struct bootstrap_name *name);
/* The name of a listener that came with a moved receive right, by the address it is bound to; NULL unless it is in this
   process's own directory. */
struct bootstrap_name *bootstrap_name_adopt(const char *address, int length);
/*
 * Connects to who listens under a name: *fd, non-blocking, and the id of the port that it claims to be.
 * BOOTSTRAP_UNKNOWN_SERVICE, BOOTSTRAP_NOT_PRIVILEGED (the directory is not safe, or another user answers),
 * KERN_OPERATION_TIMED_OUT after `timeout` ms (0 does not wait), KERN_ABORTED (a signal came while it waited: call again with
 * the time that is left), KERN_RESOURCE_SHORTAGE.
 */
kern_return_t bootstrap_name_connect(const char *service, mach_msg_timeout_t timeout, int *fd, char id[PORT_ID]);

/* Around a fork, inside all other locks but that of closing.h: no name is the child's. */
void bootstrap_before_fork(void);
void bootstrap_after_fork_in_parent(void);
void bootstrap_after_fork_in_child(void);

#pragma GCC visibility pop

#endif
