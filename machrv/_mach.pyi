"""The compiled module: what include/machrv/*.h declare. Made by `python build_ffi.py`; do not edit."""

from typing import Any

class _Lib:
    KERN_SUCCESS: int
    KERN_INVALID_ADDRESS: int
    KERN_PROTECTION_FAILURE: int
    KERN_NO_SPACE: int
    KERN_INVALID_ARGUMENT: int
    KERN_FAILURE: int
    KERN_RESOURCE_SHORTAGE: int
    KERN_NOT_RECEIVER: int
    KERN_NO_ACCESS: int
    KERN_MEMORY_FAILURE: int
    KERN_MEMORY_ERROR: int
    KERN_ALREADY_IN_SET: int
    KERN_NOT_IN_SET: int
    KERN_NAME_EXISTS: int
    KERN_ABORTED: int
    KERN_INVALID_NAME: int
    KERN_INVALID_TASK: int
    KERN_INVALID_RIGHT: int
    KERN_INVALID_VALUE: int
    KERN_UREFS_OVERFLOW: int
    KERN_INVALID_CAPABILITY: int
    KERN_RIGHT_EXISTS: int
    KERN_INVALID_HOST: int
    KERN_MEMORY_PRESENT: int
    KERN_MEMORY_DATA_MOVED: int
    KERN_MEMORY_RESTART_COPY: int
    KERN_INVALID_PROCESSOR_SET: int
    KERN_POLICY_LIMIT: int
    KERN_INVALID_POLICY: int
    KERN_INVALID_OBJECT: int
    KERN_ALREADY_WAITING: int
    KERN_DEFAULT_SET: int
    KERN_EXCEPTION_PROTECTED: int
    KERN_INVALID_LEDGER: int
    KERN_INVALID_MEMORY_CONTROL: int
    KERN_INVALID_SECURITY: int
    KERN_NOT_DEPRESSED: int
    KERN_TERMINATED: int
    KERN_LOCK_SET_DESTROYED: int
    KERN_LOCK_UNSTABLE: int
    KERN_LOCK_OWNED: int
    KERN_LOCK_OWNED_SELF: int
    KERN_SEMAPHORE_DESTROYED: int
    KERN_RPC_SERVER_TERMINATED: int
    KERN_RPC_TERMINATE_ORPHAN: int
    KERN_RPC_CONTINUE_ORPHAN: int
    KERN_NOT_SUPPORTED: int
    KERN_NODE_DOWN: int
    KERN_NOT_WAITING: int
    KERN_OPERATION_TIMED_OUT: int
    KERN_CODESIGN_ERROR: int
    KERN_POLICY_STATIC: int
    KERN_INSUFFICIENT_BUFFER_SIZE: int
    KERN_DENIED: int
    KERN_MISSING_KC: int
    KERN_INVALID_KC: int
    KERN_NOT_FOUND: int
    KERN_RETURN_MAX: int
    MACH_PORT_NULL: int
    MACH_PORT_DEAD: int
    MACH_PORT_RIGHT_SEND: int
    MACH_PORT_RIGHT_RECEIVE: int
    MACH_PORT_RIGHT_SEND_ONCE: int
    MACH_PORT_RIGHT_PORT_SET: int
    MACH_PORT_RIGHT_DEAD_NAME: int
    MACH_PORT_RIGHT_LABELH: int
    MACH_PORT_RIGHT_NUMBER: int
    MACH_PORT_TYPE_NONE: int
    MACH_PORT_TYPE_SEND: int
    MACH_PORT_TYPE_RECEIVE: int
    MACH_PORT_TYPE_SEND_ONCE: int
    MACH_PORT_TYPE_PORT_SET: int
    MACH_PORT_TYPE_DEAD_NAME: int
    MACH_PORT_TYPE_LABELH: int
    MACH_PORT_TYPE_DNREQUEST: int
    MACH_PORT_TYPE_SPREQUEST: int
    MACH_PORT_TYPE_SPREQUEST_DELAYED: int
    MACH_PORT_TYPE_SEND_RECEIVE: int
    MACH_PORT_TYPE_SEND_RIGHTS: int
    MACH_PORT_TYPE_PORT_RIGHTS: int
    MACH_PORT_TYPE_PORT_OR_DEAD: int
    MACH_PORT_TYPE_ALL_RIGHTS: int
    MACH_PORT_QLIMIT_ZERO: int
    MACH_PORT_QLIMIT_BASIC: int
    MACH_PORT_QLIMIT_SMALL: int
    MACH_PORT_QLIMIT_LARGE: int
    MACH_PORT_QLIMIT_KERNEL: int
    MACH_PORT_QLIMIT_MIN: int
    MACH_PORT_QLIMIT_DEFAULT: int
    MACH_PORT_QLIMIT_MAX: int
    MACH_PORT_SRIGHTS_NONE: int
    MACH_PORT_SRIGHTS_PRESENT: int
    MACH_PORT_STATUS_FLAG_TEMPOWNER: int
    MACH_PORT_STATUS_FLAG_GUARDED: int
    MACH_PORT_STATUS_FLAG_STRICT_GUARD: int
    MACH_PORT_STATUS_FLAG_IMP_DONATION: int
    MACH_PORT_STATUS_FLAG_REVIVE: int
    MACH_PORT_STATUS_FLAG_TASKPTR: int
    MACH_PORT_STATUS_FLAG_GUARD_IMMOVABLE_RECEIVE: int
    MACH_PORT_STATUS_FLAG_NO_GRANT: int
    MACH_PORT_LIMITS_INFO: int
    MACH_PORT_RECEIVE_STATUS: int
    MACH_PORT_DNREQUESTS_SIZE: int
    MACH_PORT_TEMPOWNER: int
    MACH_PORT_IMPORTANCE_RECEIVER: int
    MACH_PORT_DENAP_RECEIVER: int
    MACH_PORT_INFO_EXT: int
    MACH_PORT_GUARD_INFO: int
    MACH_PORT_LIMITS_INFO_COUNT: int
    MACH_PORT_RECEIVE_STATUS_COUNT: int
    MACH_PORT_DNREQUESTS_SIZE_COUNT: int
    MACH_PORT_INFO_EXT_COUNT: int
    MPO_CONTEXT_AS_GUARD: int
    MPO_QLIMIT: int
    MPO_TEMPOWNER: int
    MPO_IMPORTANCE_RECEIVER: int
    MPO_INSERT_SEND_RIGHT: int
    MPO_STRICT: int
    MPO_DENAP_RECEIVER: int
    MPO_IMMOVABLE_RECEIVE: int
    MPO_FILTER_MSG: int
    MPO_TG_BLOCK_TRACKING: int
    MPO_SERVICE_PORT: int
    MPO_CONNECTION_PORT: int
    MPO_REPLY_PORT: int
    MPO_ENFORCE_REPLY_PORT_SEMANTICS: int
    MPO_PROVISIONAL_REPLY_PORT: int
    MPO_EXCEPTION_PORT: int
    MACH_PORT_UREFS_MAX: int
    MACH_MSGH_BITS_ZERO: int
    MACH_MSGH_BITS_REMOTE_MASK: int
    MACH_MSGH_BITS_LOCAL_MASK: int
    MACH_MSGH_BITS_VOUCHER_MASK: int
    MACH_MSGH_BITS_PORTS_MASK: int
    MACH_MSGH_BITS_COMPLEX: int
    MACH_MSGH_BITS_USER: int
    MACH_MSGH_BITS_RAISEIMP: int
    MACH_MSGH_BITS_IMPHOLDASRT: int
    MACH_MSGH_BITS_CIRCULAR: int
    MACH_MSGH_BITS_USED: int
    MACH_MSG_TYPE_MOVE_RECEIVE: int
    MACH_MSG_TYPE_MOVE_SEND: int
    MACH_MSG_TYPE_MOVE_SEND_ONCE: int
    MACH_MSG_TYPE_COPY_SEND: int
    MACH_MSG_TYPE_MAKE_SEND: int
    MACH_MSG_TYPE_MAKE_SEND_ONCE: int
    MACH_MSG_TYPE_COPY_RECEIVE: int
    MACH_MSG_TYPE_DISPOSE_RECEIVE: int
    MACH_MSG_TYPE_DISPOSE_SEND: int
    MACH_MSG_TYPE_DISPOSE_SEND_ONCE: int
    MACH_MSG_TYPE_PORT_NONE: int
    MACH_MSG_TYPE_PORT_NAME: int
    MACH_MSG_TYPE_PORT_RECEIVE: int
    MACH_MSG_TYPE_PORT_SEND: int
    MACH_MSG_TYPE_PORT_SEND_ONCE: int
    MACH_MSG_TYPE_LAST: int
    MACH_MSG_PORT_DESCRIPTOR: int
    MACH_MSG_OOL_DESCRIPTOR: int
    MACH_MSG_OOL_PORTS_DESCRIPTOR: int
    MACH_MSG_OOL_VOLATILE_DESCRIPTOR: int
    MACH_MSG_GUARDED_PORT_DESCRIPTOR: int
    MACH_MSG_DESCRIPTOR_MAX: int
    MACH_MSG_PHYSICAL_COPY: int
    MACH_MSG_VIRTUAL_COPY: int
    MACH_MSG_ALLOCATE: int
    MACH_MSG_OVERWRITE: int
    MACH_MSG_GUARD_FLAGS_NONE: int
    MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE: int
    MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND: int
    MACH_MSG_GUARD_FLAGS_MASK: int
    MACH_MSG_TRAILER_FORMAT_0: int
    MACH_MSG_TRAILER_MINIMUM_SIZE: int
    MAX_TRAILER_SIZE: int
    MACH_RCV_TRAILER_NULL: int
    MACH_RCV_TRAILER_SEQNO: int
    MACH_RCV_TRAILER_SENDER: int
    MACH_RCV_TRAILER_AUDIT: int
    MACH_RCV_TRAILER_CTX: int
    MACH_RCV_TRAILER_AV: int
    MACH_RCV_TRAILER_LABELS: int
    MACH_RCV_TRAILER_MASK: int
    MACH_MSG_OPTION_NONE: int
    MACH_SEND_MSG: int
    MACH_RCV_MSG: int
    MACH_RCV_LARGE: int
    MACH_RCV_LARGE_IDENTITY: int
    MACH_SEND_TIMEOUT: int
    MACH_SEND_OVERRIDE: int
    MACH_SEND_INTERRUPT: int
    MACH_SEND_NOTIFY: int
    MACH_RCV_TIMEOUT: int
    MACH_MSG_STRICT_REPLY: int
    MACH_RCV_INTERRUPT: int
    MACH_RCV_VOUCHER: int
    MACH_RCV_GUARDED_DESC: int
    MACH_RCV_SYNC_WAIT: int
    MACH_RCV_SYNC_PEEK: int
    MACH_SEND_FILTER_NONFATAL: int
    MACH_SEND_TRAILER: int
    MACH_SEND_NOIMPORTANCE: int
    MACH_SEND_SYNC_OVERRIDE: int
    MACH_SEND_PROPAGATE_QOS: int
    MACH_SEND_SYNC_BOOTSTRAP_CHECKIN: int
    MACH_MSG_TIMEOUT_NONE: int
    MACH_MSG_SIZE_MAX: int
    MACH_MSG_SUCCESS: int
    MACH_MSG_MASK: int
    MACH_MSG_IPC_SPACE: int
    MACH_MSG_VM_SPACE: int
    MACH_MSG_IPC_KERNEL: int
    MACH_MSG_VM_KERNEL: int
    MACH_SEND_IN_PROGRESS: int
    MACH_SEND_INVALID_DATA: int
    MACH_SEND_INVALID_DEST: int
    MACH_SEND_TIMED_OUT: int
    MACH_SEND_INVALID_VOUCHER: int
    MACH_SEND_INTERRUPTED: int
    MACH_SEND_MSG_TOO_SMALL: int
    MACH_SEND_INVALID_REPLY: int
    MACH_SEND_INVALID_RIGHT: int
    MACH_SEND_INVALID_NOTIFY: int
    MACH_SEND_INVALID_MEMORY: int
    MACH_SEND_NO_BUFFER: int
    MACH_SEND_TOO_LARGE: int
    MACH_SEND_INVALID_TYPE: int
    MACH_SEND_INVALID_HEADER: int
    MACH_SEND_INVALID_TRAILER: int
    MACH_SEND_INVALID_CONTEXT: int
    MACH_SEND_INVALID_OPTIONS: int
    MACH_SEND_INVALID_RT_OOL_SIZE: int
    MACH_SEND_NO_GRANT_DEST: int
    MACH_SEND_MSG_FILTERED: int
    MACH_SEND_AUX_TOO_SMALL: int
    MACH_SEND_AUX_TOO_LARGE: int
    MACH_RCV_IN_PROGRESS: int
    MACH_RCV_INVALID_NAME: int
    MACH_RCV_TIMED_OUT: int
    MACH_RCV_TOO_LARGE: int
    MACH_RCV_INTERRUPTED: int
    MACH_RCV_PORT_CHANGED: int
    MACH_RCV_INVALID_NOTIFY: int
    MACH_RCV_INVALID_DATA: int
    MACH_RCV_PORT_DIED: int
    MACH_RCV_IN_SET: int
    MACH_RCV_HEADER_ERROR: int
    MACH_RCV_BODY_ERROR: int
    MACH_RCV_INVALID_TYPE: int
    MACH_RCV_SCATTER_SMALL: int
    MACH_RCV_INVALID_TRAILER: int
    MACH_RCV_IN_PROGRESS_TIMED: int
    MACH_RCV_INVALID_REPLY: int
    MACH_RCV_INVALID_ARGUMENTS: int
    MACH_NOTIFY_FIRST: int
    MACH_NOTIFY_PORT_DELETED: int
    MACH_NOTIFY_SEND_POSSIBLE: int
    MACH_NOTIFY_PORT_DESTROYED: int
    MACH_NOTIFY_NO_SENDERS: int
    MACH_NOTIFY_SEND_ONCE: int
    MACH_NOTIFY_DEAD_NAME: int
    MACH_NOTIFY_LAST: int
    BOOTSTRAP_MAX_NAME_LEN: int
    BOOTSTRAP_SUCCESS: int
    BOOTSTRAP_NOT_PRIVILEGED: int
    BOOTSTRAP_NAME_IN_USE: int
    BOOTSTRAP_UNKNOWN_SERVICE: int
    BOOTSTRAP_SERVICE_ACTIVE: int
    BOOTSTRAP_BAD_COUNT: int
    BOOTSTRAP_NO_MEMORY: int
    BOOTSTRAP_NO_CHILDREN: int
    MACHRV_REQUEST_ID: int
    MACHRV_REQUEST_WITH_INFO_PLIST_ID: int
    MACHRV_REPLY_ID: int
    MACHRV_CHROMIUM_MAX_PORTS: int
    MACHRV_CHROMIUM_MAX_INFO_PLIST_SIZE: int
    EVFILT_READ: int
    EVFILT_PROC: int
    EVFILT_MACHPORT: int
    EVFILT_USER: int
    EV_ADD: int
    EV_DELETE: int
    EV_ONESHOT: int
    EV_CLEAR: int
    EV_ERROR: int
    EV_EOF: int
    NOTE_EXIT: int
    NOTE_TRIGGER: int
    TASK_AUDIT_TOKEN: int
    TASK_AUDIT_TOKEN_COUNT: int
    VM_PROT_READ: int
    VM_PROT_WRITE: int
    VM_INHERIT_SHARE: int
    VM_FLAGS_FIXED: int
    VM_FLAGS_ANYWHERE: int
    VM_FLAGS_OVERWRITE: int
    MAP_MEM_NAMED_CREATE: int
    VM_REGION_EXTENDED_INFO: int
    VM_REGION_EXTENDED_INFO_COUNT: int
    bootstrap_port: int
    def mach_task_self(self, *arguments: Any) -> int: ...
    def mach_port_allocate(self, *arguments: Any) -> int: ...
    def mach_port_allocate_name(self, *arguments: Any) -> int: ...
    def mach_port_construct(self, *arguments: Any) -> int: ...
    def mach_port_destruct(self, *arguments: Any) -> int: ...
    def mach_port_insert_right(self, *arguments: Any) -> int: ...
    def mach_port_extract_right(self, *arguments: Any) -> int: ...
    def mach_port_deallocate(self, *arguments: Any) -> int: ...
    def mach_port_destroy(self, *arguments: Any) -> int: ...
    def mach_port_mod_refs(self, *arguments: Any) -> int: ...
    def mach_port_get_refs(self, *arguments: Any) -> int: ...
    def mach_port_type(self, *arguments: Any) -> int: ...
    def mach_port_names(self, *arguments: Any) -> int: ...
    def mach_port_get_attributes(self, *arguments: Any) -> int: ...
    def mach_port_set_attributes(self, *arguments: Any) -> int: ...
    def mach_port_get_context(self, *arguments: Any) -> int: ...
    def mach_port_set_context(self, *arguments: Any) -> int: ...
    def mach_port_set_mscount(self, *arguments: Any) -> int: ...
    def mach_port_set_seqno(self, *arguments: Any) -> int: ...
    def mach_port_guard(self, *arguments: Any) -> int: ...
    def mach_port_unguard(self, *arguments: Any) -> int: ...
    def mach_port_move_member(self, *arguments: Any) -> int: ...
    def mach_port_insert_member(self, *arguments: Any) -> int: ...
    def mach_port_extract_member(self, *arguments: Any) -> int: ...
    def mach_port_get_set_status(self, *arguments: Any) -> int: ...
    def mach_port_peek(self, *arguments: Any) -> int: ...
    def mach_port_request_notification(self, *arguments: Any) -> int: ...
    def mach_reply_port(self, *arguments: Any) -> int: ...
    def mach_msg(self, *arguments: Any) -> int: ...
    def mach_msg_destroy(self, *arguments: Any) -> None: ...
    def vm_allocate(self, *arguments: Any) -> int: ...
    def vm_deallocate(self, *arguments: Any) -> int: ...
    def vm_read(self, *arguments: Any) -> int: ...
    def vm_write(self, *arguments: Any) -> int: ...
    def mach_make_memory_entry_64(self, *arguments: Any) -> int: ...
    def bootstrap_check_in(self, *arguments: Any) -> int: ...
    def bootstrap_look_up(self, *arguments: Any) -> int: ...
    def fileport_makeport(self, *arguments: Any) -> int: ...
    def fileport_makefd(self, *arguments: Any) -> int: ...
    def vm_map(self, *arguments: Any) -> int: ...
    def vm_region_64(self, *arguments: Any) -> int: ...
    def task_name_for_pid(self, *arguments: Any) -> int: ...
    def task_info(self, *arguments: Any) -> int: ...
    def kqueue(self, *arguments: Any) -> int: ...
    def kevent(self, *arguments: Any) -> int: ...
    def close(self, *arguments: Any) -> int: ...
    MACHRV_WITHOUT_PASSPIDFD: int
    MACHRV_WITHOUT_PIDFS: int
    MACHRV_WITHOUT_PIDFD_INFO: int
    MACHRV_WITHOUT_NETNS_COOKIE: int
    MACHRV_WITHOUT_NOEXEC_SEAL: int
    MACHRV_WITHOUT_PIDFD_OF_GONE: int
    MACHRV_WITHOUT_PEERPIDFD: int
    MACHRV_WITHOUT_LARGE_CONTROL: int
    MACHRV_MAX_FDS: int
    MACHRV_MAX_MESSAGE: int
    MACHRV_SEAL_FUTURE_WRITE: int
    machrv_starved: int
    def machrv_task_create(self, *arguments: Any) -> int: ...
    def machrv_task_terminate(self, *arguments: Any) -> int: ...
    def machrv_task_deallocate(self, *arguments: Any) -> int: ...
    def machrv_msg(self, *arguments: Any) -> int: ...
    def machrv_msg_destroy(self, *arguments: Any) -> None: ...
    def machrv_fileport_makeport(self, *arguments: Any) -> int: ...
    def machrv_fileport_makefd(self, *arguments: Any) -> int: ...
    def machrv_right_makefd(self, *arguments: Any) -> int: ...
    def machrv_right_makeport(self, *arguments: Any) -> int: ...
    def machrv_bootstrap_look_up(self, *arguments: Any) -> int: ...
    def machrv_bootstrap_directory(self, *arguments: Any) -> int: ...
    def machrv_bootstrap_sweep(self, *arguments: Any) -> int: ...
    def machrv_port_readable(self, *arguments: Any) -> int: ...
    def machrv_port_writable(self, *arguments: Any) -> int: ...
    def machrv_port_take_turns(self, *arguments: Any) -> int: ...
    def machrv_port_beyond(self, *arguments: Any) -> int: ...
    def machrv_task_token(self, *arguments: Any) -> int: ...
    def machrv_pidfd_open(self, *arguments: Any) -> int: ...
    def machrv_has_exited(self, *arguments: Any) -> int: ...
    def machrv_process(self, *arguments: Any) -> int: ...
    def machrv_port_identity(self, *arguments: Any) -> int: ...
    def machrv_account(self, *arguments: Any) -> int: ...
    def machrv_account_ends(self, *arguments: Any) -> int: ...
    def machrv_without(self, *arguments: Any) -> None: ...
    def machrv_features(self, *arguments: Any) -> int: ...
    def machrv_settle(self, *arguments: Any) -> int: ...
    def machrv_max_fds(self, *arguments: Any) -> int: ...
    machrv_layouts: Any

ffi: Any
lib: _Lib
