/*
 * Descriptors that are given up.
 *
 * A close can take as long as a peer likes: a FUSE file whose daemon does not answer FLUSH, a TCP socket that lingers, or a
 * socket in whose queue one of these waits. So what came from a peer is closed by a thread of the library's own.
 */

#ifndef MACHRV_CLOSING_H
#define MACHRV_CLOSING_H

#pragma GCC visibility push(hidden)

/* Closed by the library's thread, at once if that can be; the caller has given it up. -1 is ignored. Never fails: where no
   thread can be made it is closed here. Async-signal-unsafe; needs no lock of the caller's, and takes none but its own, so
   that any may be held. */
void close_later(int fd);
void close_all_later(const int *fds, int count);
/* An AF_UNIX socket of our own making that nobody reads from any more: closed here where nothing waits in its queue, later
   otherwise. Nothing more can be received from it by whoever has a copy. (A socket that a peer sent is for close_later: a
   copy of it that is kept can be told to hide the queue, SO_PEEK_OFF, at the very moment.) */
void close_socket(int fd);
/* An AF_UNIX socket that a peer sent, as a right: closed here if nothing waits in its queue and nothing can any more. */
void close_right(int fd);

/* Once no lock is held: if this thread has given something up, gives the other one the moment that an ordinary close takes. So what
   a call has given up is closed when it returns, and a descriptor is free; for a close that takes longer nobody waits. */
void closing_pause(void);

/* Around a fork, inside all other locks: the child has no such thread. What waited for it is closed there, in the child's
   copies, by a thread of its own, as soon as it has one. Before: waits, some 20 ms at most, for a close that has just begun. */
void closing_before_fork(void);
void closing_after_fork_in_parent(void);
void closing_after_fork_in_child(void);

#pragma GCC visibility pop

#endif
