/* Structs and constants of the calls into libSystem that are not Mach messages: kqueue, task_info, mach_port_construct,
   memory entries. They are known on every platform, so that the macOS kernel adapter can be driven where there is no
   libSystem. Values as in XNU (xnu-11417: bsd/sys/event.h; osfmk/mach: task_info.h, port.h, memory_object_types.h,
   vm_prot.h, vm_inherit.h, vm_statistics.h, vm_region.h). */

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

typedef unsigned long vm_address_t;
typedef unsigned long vm_size_t;
typedef int vm_prot_t;
typedef unsigned int vm_inherit_t;
typedef unsigned long long memory_object_offset_t;
typedef unsigned long long memory_object_size_t;

#define VM_PROT_READ 0x01
#define VM_PROT_WRITE 0x02
#define VM_INHERIT_SHARE 0
#define VM_FLAGS_FIXED 0x0000
#define VM_FLAGS_ANYWHERE 0x0001
#define VM_FLAGS_OVERWRITE 0x4000
#define MAP_MEM_NAMED_CREATE 0x020000

#define VM_REGION_EXTENDED_INFO 13
#define VM_REGION_EXTENDED_INFO_COUNT (sizeof(vm_region_extended_info_data_t) / sizeof(natural_t))

#pragma pack(push, 4)

typedef struct {
    vm_prot_t protection;
    unsigned int user_tag;
    unsigned int pages_resident;
    unsigned int pages_shared_now_private;
    unsigned int pages_swapped_out;
    unsigned int pages_dirtied;
    unsigned int ref_count;
    unsigned short shadow_depth;
    unsigned char external_pager;
    unsigned char share_mode;
    unsigned int pages_reusable;
} vm_region_extended_info_data_t;

#pragma pack(pop)

#endif /* __APPLE__ */
#endif
