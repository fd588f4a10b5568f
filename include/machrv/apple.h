/* Apple's own headers for what is declared here, and typedefs for the structs that they have only under a tag.
   Nothing in here is a cdef. <servers/bootstrap.h> and <sys/fileport.h> are not in every SDK: darwin.h declares theirs. */

#ifndef MACHRV_APPLE_H
#define MACHRV_APPLE_H

#include <mach/mach.h>
#include <sys/event.h>
#include <time.h>
#include <unistd.h>

typedef struct kevent kevent_t;
typedef struct timespec timespec_t;

#endif
