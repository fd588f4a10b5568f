/*
 * Descriptors that are given up.
 *
 * A close can take as long as a peer likes: a FUSE file whose daemon does not answer FLUSH, a TCP socket that lingers, or a
 * socket in whose queue one of these waits. So what came from a peer is closed by a thread of the library's own.
 */

#ifndef MACHRV_CLOSING_H
#define MACHRV_CLOSING_H

/* Closed by the library's thread, at once if that can be; the caller has given it up. -1 is ignored. Never fails: where no
   thread can be made it is closed here. Async-signal-unsafe; needs no lock of the caller's. */
void close_later(int fd);
void close_all_later(const int *fds, int count);
/* An AF_UNIX socket that nobody reads from any more: closed here where nothing waits in its queue, later otherwise. Nothing
   more can be received from it by whoever has a copy. */
void close_socket(int fd);

/* Around a fork: the child has no such thread, and closes nothing that was waiting for it but its own copies. */
void closing_before_fork(void);
void closing_after_fork_in_parent(void);
void closing_after_fork_in_child(void);

#endif
