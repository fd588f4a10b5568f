/* Structs and constants of the calls into libSystem that are not Mach messages: kqueue, task_info, mach_port_construct.
   They are known on every platform, so that the macOS kernel adapter can be driven where there is no libSystem.
   Values as in XNU (xnu-11417: bsd/sys/event.h, osfmk/mach/task_info.h, osfmk/mach/port.h). */

#ifndef MACHRV_LIBSYSTEM_H
#define MACHRV_LIBSYSTEM_H

#ifdef __APPLE__
#include "apple.h"
#else

#include "message.h"

#define EVFILT_READ (-1)
#define EVFILT_PROC (-5)
#define EVFILT_MACHPORT (-8)
#define EVFILT_USER (-10)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_EXIT 0x80000000
#define NOTE_TRIGGER 0x01000000

#pragma pack(push, 4)

typedef struct {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
} kevent_t;

#pragma pack(pop)

typedef struct {
    long tv_sec;
    long tv_nsec;
} timespec_t;

#define TASK_AUDIT_TOKEN 15
#define TASK_AUDIT_TOKEN_COUNT (sizeof(audit_token_t) / sizeof(natural_t))

/* In XNU the last member is one of several in a union; this one covers them. */
typedef struct mach_port_options {
    uint32_t flags;
    mach_port_limits_t mpl;
    uint64_t reserved[2];
} mach_port_options_t;

#endif /* __APPLE__ */
#endif
