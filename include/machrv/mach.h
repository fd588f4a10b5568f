/* The Mach calls, with Apple's prototypes (xnu-11417: osfmk/mach, libsyscall/mach, bsd/sys/fileport.h; launchd-842:
   liblaunch/bootstrap.h). On macOS they are libSystem's, and a declaration that differs from Apple's does not compile; on
   Linux they are those of machrv/native/linux, for the process's own task (<machrv/linux.h>). None of them is private. */

#ifndef MACHRV_MACH_H
#define MACHRV_MACH_H

#include "bootstrap.h"
#include "libsystem.h"
#include "notify.h"

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
kern_return_t mach_port_set_mscount(mach_port_t task, mach_port_name_t name, mach_port_mscount_t mscount);
kern_return_t mach_port_set_seqno(mach_port_t task, mach_port_name_t name, mach_port_seqno_t seqno);
kern_return_t mach_port_guard(mach_port_t task, mach_port_name_t name, mach_port_context_t guard, boolean_t strict);
kern_return_t mach_port_unguard(mach_port_t task, mach_port_name_t name, mach_port_context_t guard);
kern_return_t mach_port_move_member(mach_port_t task, mach_port_name_t member, mach_port_name_t after);
kern_return_t mach_port_insert_member(mach_port_t task, mach_port_name_t name, mach_port_name_t pset);
kern_return_t mach_port_extract_member(mach_port_t task, mach_port_name_t name, mach_port_name_t pset);
kern_return_t mach_port_get_set_status(mach_port_t task, mach_port_name_t name, mach_port_name_t **members,
                                       mach_msg_type_number_t *membersCnt);
kern_return_t mach_port_peek(mach_port_t task, mach_port_name_t name, mach_msg_trailer_type_t trailer_type,
                             mach_port_seqno_t *request_seqnop, mach_msg_size_t *msg_sizep, mach_msg_id_t *msg_idp,
                             char *trailer_infop, mach_msg_type_number_t *trailer_infopCnt);
kern_return_t mach_port_request_notification(mach_port_t task, mach_port_name_t name, mach_msg_id_t msgid,
                                             mach_port_mscount_t sync, mach_port_t notify,
                                             mach_msg_type_name_t notifyPoly, mach_port_t *previous);
mach_port_t mach_reply_port(void);

mach_msg_return_t mach_msg(mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t send_size,
                           mach_msg_size_t rcv_size, mach_port_name_t rcv_name, mach_msg_timeout_t timeout,
                           mach_port_name_t notify);
void mach_msg_destroy(mach_msg_header_t *msg);

kern_return_t vm_allocate(mach_port_t task, vm_address_t *address, vm_size_t size, int flags);
kern_return_t vm_deallocate(mach_port_t task, vm_address_t address, vm_size_t size);
kern_return_t vm_read(mach_port_t task, vm_address_t address, vm_size_t size, vm_offset_t *data,
                      mach_msg_type_number_t *dataCnt);
kern_return_t vm_write(mach_port_t task, vm_address_t address, vm_offset_t data, mach_msg_type_number_t dataCnt);
kern_return_t mach_make_memory_entry_64(mach_port_t task, memory_object_size_t *size, memory_object_offset_t offset,
                                        vm_prot_t permission, mach_port_t *object_handle, mach_port_t parent_entry);

kern_return_t bootstrap_check_in(mach_port_t bp, const char *service_name, mach_port_t *sp);
kern_return_t bootstrap_look_up(mach_port_t bp, const char *service_name, mach_port_t *sp);

int fileport_makeport(int fd, mach_port_t *port);
int fileport_makefd(mach_port_t port);

/* Apple's context has 64 bits on every target, but not the same C type: CFFI passes a pointer to another one. */
#define mach_port_get_context(task, name, context) mach_port_get_context(task, name, (mach_port_context_t *)(context))

#endif
