/* Apple's own headers for what is declared here, typedefs for the structs that they have only under a tag, and what
   older ones lack. Nothing in here is a cdef. <servers/bootstrap.h> and <sys/fileport.h> are not in every SDK: darwin.h
   declares what is in them. */

#ifndef MACHRV_APPLE_H
#define MACHRV_APPLE_H

#include <mach/mach.h>
#include <sys/event.h>
#include <time.h>
#include <unistd.h>

typedef struct kevent kevent_t;
typedef struct timespec timespec_t;

/* What came with the SDKs of macOS 12 to 15: an older one has the kernel's values from here. */
#ifndef KERN_NOT_FOUND
#define KERN_NOT_FOUND 56
#endif
#ifndef MACH_MSG_DESCRIPTOR_MAX
#define MACH_MSG_DESCRIPTOR_MAX MACH_MSG_GUARDED_PORT_DESCRIPTOR
#endif
#ifndef MACH_PORT_GUARD_INFO
#define MACH_PORT_GUARD_INFO 8
#endif
#ifndef MACH_RCV_INVALID_ARGUMENTS
#define MACH_RCV_INVALID_ARGUMENTS 0x10004013
#endif
#ifndef MACH_SEND_AUX_TOO_LARGE
#define MACH_SEND_AUX_TOO_LARGE 0x10000019
#endif
#ifndef MACH_SEND_AUX_TOO_SMALL
#define MACH_SEND_AUX_TOO_SMALL 0x10000018
#endif
#ifndef MACH_SEND_FILTER_NONFATAL
#define MACH_SEND_FILTER_NONFATAL 0x00010000
#endif
#ifndef MACH_SEND_INVALID_OPTIONS
#define MACH_SEND_INVALID_OPTIONS 0x10000013
#endif
#ifndef MPO_CONNECTION_PORT
#define MPO_CONNECTION_PORT 0x800
#endif
#ifndef MPO_ENFORCE_REPLY_PORT_SEMANTICS
#define MPO_ENFORCE_REPLY_PORT_SEMANTICS 0x2000
#endif
#ifndef MPO_EXCEPTION_PORT
#define MPO_EXCEPTION_PORT 0x8000
#endif
#ifndef MPO_PROVISIONAL_REPLY_PORT
#define MPO_PROVISIONAL_REPLY_PORT 0x4000
#endif
#ifndef MPO_REPLY_PORT
#define MPO_REPLY_PORT 0x1000
#endif
#ifndef MPO_SERVICE_PORT
#define MPO_SERVICE_PORT 0x400
#endif

#endif
