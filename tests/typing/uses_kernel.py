"""The seam: Mach's calls, for whoever wants them bare."""

from __future__ import annotations

from typing_extensions import assert_type

from machrv import AuditToken, Kernel, current
from machrv.kernel import EventQueue, PortStatus, Process, Readiness
from machrv.kernel.darwin import DarwinKernel
from machrv.kernel.linux import LinuxKernel
from machrv.message import MACH_PORT_RIGHT_RECEIVE, MACH_RCV_MSG, Disposition


def names(kernel: Kernel) -> None:
    """Names and rights."""
    name = kernel.mach_port_allocate(MACH_PORT_RIGHT_RECEIVE)
    assert_type(name, int)
    assert_type(kernel.mach_reply_port(), int)
    kernel.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    assert_type(kernel.mach_port_extract_right(name, Disposition.MAKE_SEND_ONCE), "tuple[int, int]")
    kernel.mach_port_mod_refs(name, MACH_PORT_RIGHT_RECEIVE, -1)
    assert_type(kernel.mach_port_get_refs(name, MACH_PORT_RIGHT_RECEIVE), int)
    assert_type(kernel.mach_port_type(name), int)
    assert_type(kernel.mach_port_names(), "list[tuple[int, int]]")
    kernel.mach_port_deallocate(name)
    kernel.mach_port_destroy(name)
    assert_type(kernel.name, str)


def attributes(kernel: Kernel, name: int, pset: int) -> None:
    """What a port is and where it belongs."""
    status = kernel.mach_port_get_attributes(name, 2)
    assert_type(status, "PortStatus | int")
    if isinstance(status, PortStatus):
        assert_type(status.pset + status.seqno + status.mscount + status.qlimit + status.msgcount, int)
        assert_type(status.sorights + status.srights + status.pdrequest + status.nsrequest + status.flags, int)
    kernel.mach_port_set_attributes(name, 1, 16)
    assert_type(kernel.mach_port_get_context(name), int)
    kernel.mach_port_set_context(name, 7)
    kernel.mach_port_move_member(name, pset)
    kernel.mach_port_insert_member(name, pset)
    kernel.mach_port_extract_member(name, pset)
    assert_type(kernel.mach_port_get_set_status(pset), "list[int]")
    kernel.mach_port_set_mscount(name, 0)
    kernel.mach_port_set_seqno(name, 0)
    kernel.mach_port_guard(name, 7, strict=True)
    kernel.mach_port_unguard(name, 7)
    assert_type(kernel.mach_port_peek(name), "tuple[int, int, int, bytes]")
    port = kernel.mach_port_construct(1, context=2, queue_limit=3)
    kernel.mach_port_destruct(port, srdelta=0, guard=2)
    kernel.mach_port_allocate_name(3, port)
    assert_type(kernel.mach_port_request_notification(name, 72, 0, name, Disposition.MAKE_SEND_ONCE), int)


def messages(kernel: Kernel, name: int) -> None:
    """Messages, memory, the bootstrap, files."""
    assert_type(kernel.mach_msg(None, MACH_RCV_MSG, None, name, timeout=1.0), "bytes | None")
    assert_type(kernel.vm_read(0, 4), bytes)
    kernel.vm_deallocate(0, 4)
    assert_type(kernel.bootstrap_check_in("org.example"), int)
    assert_type(kernel.bootstrap_look_up("org.example"), int)
    address = kernel.vm_allocate(4096)
    assert_type(address, int)
    kernel.vm_write(address, b"four")
    assert_type(kernel.mach_make_memory_entry_64(4096, 0x020003), int)
    kernel.vm_deallocate(address, 4096)
    kernel.mach_msg_destroy(bytes(24))
    kernel.take_turns(name)
    assert_type(kernel.fileport_makeport(0), int)
    assert_type(kernel.fileport_makefd(name), int)
    assert_type(kernel.is_beyond(name), bool)
    assert_type(kernel.most_rights(), "int | None")
    assert_type(kernel.right_makefd(name), int)
    assert_type(kernel.right_makeport(0), int)
    assert_type(kernel.audit_token(), AuditToken)


def waiting(kernel: Kernel, name: int, pid: int) -> None:
    """Processes, and what one thread waits on."""
    process = kernel.open_process(pid)
    assert_type(process, Process)
    assert_type(process.pid + process.fileno(), int)
    assert_type(process.is_running(), bool)
    assert_type(process.matches(kernel.audit_token()), bool)
    for readiness in (kernel.readiness(name), kernel.room(name)):
        assert_type(readiness, Readiness)
        assert_type(readiness.fileno(), int)
        readiness.close()
    assert_type(kernel.port_identity(name), "tuple[str, int]")
    queue = kernel.event_queue()
    assert_type(queue, EventQueue)
    queue.add_port(name)
    queue.add_process(process)
    assert_type(queue.wait(1.0), "tuple[list[int], list[Process]]")
    queue.wake()
    queue.remove_port(name)
    queue.remove_process(process)
    queue.close()
    process.close()


def lending(kernel: Kernel, name: int, data: bytes) -> int:
    """Rights as descriptors, and memory that a descriptor of a message points to."""
    assert_type(kernel.right_makeport(kernel.right_makefd(name)), int)
    held, address = kernel.lent(data)
    assert_type(address, int)
    return id(held)


def kernels(library: object) -> list[Kernel]:
    """Several may live in one process."""
    with_library = DarwinKernel(library, None)
    own = LinuxKernel()
    own.close()
    return [current(), own, with_library]
