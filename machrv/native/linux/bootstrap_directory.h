/*
 * The directory of bootstrap names, and what lies in it: a name is a symbolic link to a listening socket in the same directory,
 * whose file name is a dot and the id of the port.
 */

#ifndef MACHRV_BOOTSTRAP_DIRECTORY_H
#define MACHRV_BOOTSTRAP_DIRECTORY_H

#include "system.h"

#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>

#pragma GCC visibility push(hidden)

#define SOCKET_NAME (1 + PORT_ID) /* characters of the file name of a port's socket */
#define FILE_NAME 200             /* of the longest file name for a service name */

/* Guards what this process remembers of names and directories. Nothing is waited for with it. */
extern pthread_mutex_t bootstrap_lock;

/* The directory, opened and looked at: whatever is done in it is done by the descriptor, so that it cannot be exchanged. */
struct directory {
    int fd;
    dev_t device;
    ino_t inode;
    char path[PATH_MAX]; /* absolute */
};

/* -- bootstrap_directory.c: where it is, and whether it is safe */

/* Opens the directory of this process's environment, and makes it if it is missing. BOOTSTRAP_NOT_PRIVILEGED if it is not
   safe, KERN_RESOURCE_SHORTAGE; then `problem` says why, for a person, in at most `room` bytes. */
kern_return_t directory_open(struct directory *directory, char *problem, size_t room);
void directory_close(struct directory *directory);
/* Whether the path still leads to it. */
bool directory_is_there(const struct directory *directory);
/* Held while a name is claimed, so that of two who find a stale one only one replaces it; *lock is closed to let it go. */
kern_return_t directory_lock(const struct directory *directory, int *lock);
/* The return code for an errno of a call in the directory. */
kern_return_t directory_error(int error);

/* -- bootstrap_entry.c: what lies in it */

/* The file name for a service name: itself where that can be one, else a digest. */
void entry_of(const char *service, char file[FILE_NAME + 1]);
/* Whether a file name could be the socket of a port; whatever else lies here is not ours. */
bool entry_names_socket(const char *file);
/* Whether it is one. */
bool entry_is_socket(const struct directory *directory, const char *file);
/* The socket behind a name: 0, -ENOENT if nobody has the name, or another negative errno if it is no link to one. */
int entry_link(const struct directory *directory, const char *file, char target[SOCKET_NAME + 1]);
/* The address of a socket; -ENAMETOOLONG if there is none. Its length is that of the path, without a NUL. */
int entry_address(const struct directory *directory, const char *target, struct sockaddr_un *address);
/* Removes a name and its socket, unless the name is another's by now. With an empty `file`: whatever name leads to it. */
void entry_remove(const struct directory *directory, const char *file, const char *target);
/* Whether nobody listens behind a name; a stale one is removed. What is no name of ours is left alone. */
bool entry_make_free(const struct directory *directory, const char *file);
/* Removes what processes that were killed have left behind, among the first `most` entries: how many, or a negative errno. */
int entry_sweep(const struct directory *directory, int most);

#pragma GCC visibility pop

#endif
