/* The functions of libSystem that machrv calls on macOS alone, as Apple declares them (xnu-11417: osfmk/mach, libsyscall;
   bsd/sys/event.h). A declaration that differs from Apple's does not compile. None of them is private. */

#ifndef MACHRV_DARWIN_H
#define MACHRV_DARWIN_H

#include "mach.h"

kern_return_t vm_map(mach_port_t task, vm_address_t *address, vm_size_t size, vm_address_t mask, int flags,
                     mach_port_t object, vm_offset_t offset, boolean_t copy, vm_prot_t cur_protection,
                     vm_prot_t max_protection, vm_inherit_t inheritance);
kern_return_t vm_region_64(mach_port_t task, vm_address_t *address, vm_size_t *size, int flavor, int *info,
                           mach_msg_type_number_t *infoCnt, mach_port_t *object_name);
kern_return_t task_name_for_pid(mach_port_t target_tport, int pid, mach_port_name_t *tn);
kern_return_t task_info(mach_port_t task, natural_t flavor, integer_t *task_info_out,
                        mach_msg_type_number_t *task_info_outCnt);

int kqueue(void);
int kevent(int kq, const kevent_t *changelist, int nchanges, kevent_t *eventlist, int nevents,
           const timespec_t *timeout);
int close(int fd);

#endif
