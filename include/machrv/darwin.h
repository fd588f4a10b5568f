/* The functions of libSystem that machrv calls, as Apple declares them (xnu-11417: libsyscall/mach, bsd/sys/fileport.h;
   launchd-842: liblaunch/bootstrap.h). Only in the module for macOS; a declaration that differs from Apple's does not
   compile. None of them is private. */

#ifndef MACHRV_DARWIN_H
#define MACHRV_DARWIN_H

#include "libsystem.h"

/* Apple's is a macro too; the function is exported beside it. */
#undef mach_task_self
mach_port_t mach_task_self(void);
extern mach_port_t bootstrap_port;

kern_return_t mach_port_allocate(mach_port_t task, mach_port_right_t right, mach_port_name_t *name);
kern_return_t mach_port_allocate_name(mach_port_t task, mach_port_right_t right, mach_port_name_t name);
kern_return_t mach_port_construct(mach_port_t task, mach_port_options_t *options, mach_port_context_t context,
                                  mach_port_name_t *name);
kern_return_t mach_port_destruct(mach_port_t task, mach_port_name_t name, mach_port_delta_t srdelta,
                                 mach_port_context_t guard);
kern_return_t mach_port_insert_right(mach_port_t task, mach_port_name_t name, mach_port_t poly,
                                     mach_msg_type_name_t polyPoly);
kern_return_t mach_port_extract_right(mach_port_t task, mach_port_name_t name, mach_msg_type_name_t msgt_name,
                                      mach_port_t *poly, mach_msg_type_name_t *polyPoly);
kern_return_t mach_port_deallocate(mach_port_t task, mach_port_name_t name);
kern_return_t mach_port_destroy(mach_port_t task, mach_port_name_t name);
kern_return_t mach_port_mod_refs(mach_port_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_delta_t delta);
kern_return_t mach_port_get_refs(mach_port_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_urefs_t *refs);
kern_return_t mach_port_type(mach_port_t task, mach_port_name_t name, mach_port_type_t *ptype);
kern_return_t mach_port_names(mach_port_t task, mach_port_name_t **names, mach_msg_type_number_t *namesCnt,
                              mach_port_type_t **types, mach_msg_type_number_t *typesCnt);
kern_return_t mach_port_get_attributes(mach_port_t task, mach_port_name_t name, mach_port_flavor_t flavor,
                                       integer_t *port_info_out, mach_msg_type_number_t *port_info_outCnt);
kern_return_t mach_port_set_attributes(mach_port_t task, mach_port_name_t name, mach_port_flavor_t flavor,
                                       integer_t *port_info, mach_msg_type_number_t port_infoCnt);
kern_return_t mach_port_get_context(mach_port_t task, mach_port_name_t name, mach_port_context_t *context);
kern_return_t mach_port_set_context(mach_port_t task, mach_port_name_t name, mach_port_context_t context);
kern_return_t mach_port_move_member(mach_port_t task, mach_port_name_t member, mach_port_name_t after);
kern_return_t mach_port_insert_member(mach_port_t task, mach_port_name_t name, mach_port_name_t pset);
kern_return_t mach_port_extract_member(mach_port_t task, mach_port_name_t name, mach_port_name_t pset);
kern_return_t mach_port_request_notification(mach_port_t task, mach_port_name_t name, mach_msg_id_t msgid,
                                             mach_port_mscount_t sync, mach_port_t notify,
                                             mach_msg_type_name_t notifyPoly, mach_port_t *previous);

mach_msg_return_t mach_msg(mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t send_size,
                           mach_msg_size_t rcv_size, mach_port_name_t rcv_name, mach_msg_timeout_t timeout,
                           mach_port_name_t notify);
void mach_msg_destroy(mach_msg_header_t *msg);
kern_return_t vm_deallocate(mach_port_t task, vm_offset_t address, vm_offset_t size);
kern_return_t vm_map(mach_port_t task, vm_address_t *address, vm_size_t size, vm_address_t mask, int flags,
                     mach_port_t object, vm_offset_t offset, boolean_t copy, vm_prot_t cur_protection,
                     vm_prot_t max_protection, vm_inherit_t inheritance);
kern_return_t vm_region_64(mach_port_t task, vm_address_t *address, vm_size_t *size, int flavor, int *info,
                           mach_msg_type_number_t *infoCnt, mach_port_t *object_name);
kern_return_t mach_make_memory_entry_64(mach_port_t task, memory_object_size_t *size, memory_object_offset_t offset,
                                        vm_prot_t permission, mach_port_t *object_handle, mach_port_t parent_entry);
kern_return_t task_name_for_pid(mach_port_t target_tport, int pid, mach_port_name_t *tn);
kern_return_t task_info(mach_port_t task, natural_t flavor, integer_t *task_info_out,
                        mach_msg_type_number_t *task_info_outCnt);

kern_return_t bootstrap_check_in(mach_port_t bp, const char *service_name, mach_port_t *sp);
kern_return_t bootstrap_look_up(mach_port_t bp, const char *service_name, mach_port_t *sp);

int fileport_makeport(int fd, mach_port_t *port);
int fileport_makefd(mach_port_t port);

int kqueue(void);
int kevent(int kq, const kevent_t *changelist, int nchanges, kevent_t *eventlist, int nevents,
           const timespec_t *timeout);
int close(int fd);

/* Apple's context has 64 bits on every target, but not the same C type: CFFI passes a pointer to another one. */
#define mach_port_get_context(task, name, context) mach_port_get_context(task, name, (mach_port_context_t *)(context))

#endif
