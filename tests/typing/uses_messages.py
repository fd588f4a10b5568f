"""Messages: put together, taken apart, looked at."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import assert_type

from machrv import (
    AuditToken,
    Disposition,
    GuardedPortDescriptor,
    MachError,
    MachrvError,
    Message,
    MessageFormatError,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    ReceiveRight,
    Trailer,
    UnsupportedError,
    four_char_code,
)
from machrv.errors import symbol_of
from machrv.message import MACH_MSGH_BITS_COMPLEX, MACH_RCV_TRAILER_AUDIT, Descriptor, trailer_request


def encoding(right: ReceiveRight) -> None:
    """Every way to say what a message holds."""
    assert_type(Message().encode(), bytes)
    message = Message(
        four_char_code("ping"),
        memoryview(b"body"),
        [right, PortDescriptor(0x103, Disposition.COPY_SEND)],
        bits=MACH_MSGH_BITS_COMPLEX,
        remote_port=1,
        local_port=2,
        voucher_port=3,
        remote_disposition=Disposition.COPY_SEND,
        local_disposition=Disposition.MAKE_SEND_ONCE,
        voucher_disposition=0,
        trailer=Trailer(1),
    )
    message.id, message.body, message.bits = 7, b"", 0
    assert_type(message.encode_to(1, Disposition.MOVE_SEND), bytes)
    assert_type(message.remote_port + message.local_port + message.voucher_port, int)
    assert_type(message.remote_disposition + message.local_disposition + message.voucher_disposition, int)
    assert_type(message.is_complex, bool)


def decoding(image: bytearray) -> AuditToken | None:
    """From any buffer; the one exception that bytes can cause."""
    try:
        message = Message.decode(image)
    except MessageFormatError as error:
        assert_type(error.offset, "int | None")
        value: ValueError = error
        raise value
    for descriptor in message.descriptors:
        if isinstance(descriptor, PortDescriptor):
            assert_type(descriptor.name, int)
    assert_type(message.trailer, "Trailer | None")
    return message.audit_token


def descriptors() -> None:
    """The four kinds."""
    port = PortDescriptor(0x103, Disposition.MOVE_SEND, pad1=0, pad2=0)
    assert_type(port.name + port.disposition + port.pad1 + port.pad2 + port.type, int)
    memory = OutOfLineDescriptor(b"data", address=0, size=4, deallocate=0, copy=1, type=1, pad1=0)
    assert_type(memory.data, "bytes | None")
    assert_type(memory.address + memory.size + memory.deallocate + memory.copy + memory.type + memory.pad1, int)
    names = OutOfLinePortsDescriptor([1, 2], Disposition.COPY_SEND, address=0, count=2, deallocate=0, copy=1)
    assert_type(names.names, "Sequence[int] | None")
    assert_type(names.address + names.count + names.deallocate + names.copy + names.disposition + names.type, int)
    guarded = GuardedPortDescriptor(0x103, Disposition.MOVE_RECEIVE, context=1, flags=2)
    assert_type(guarded.name + guarded.disposition + guarded.context + guarded.flags + guarded.type, int)
    for kind in (PortDescriptor, OutOfLineDescriptor, OutOfLinePortsDescriptor, GuardedPortDescriptor):
        assert_type(kind.STRUCT + kind.FORMAT, str)
        assert_type(kind.TYPES, "tuple[int, ...]")
        descriptor: Descriptor = kind.from_members((1, 2, 3, 4))
        print(descriptor)


def dispositions() -> None:
    """Numbers with names."""
    assert_type(Disposition(17), Disposition)
    assert_type(Disposition.MOVE_RECEIVE.name, str)
    assert_type(Disposition.MOVE_SEND_ONCE.value, int)
    assert_type([Disposition.MAKE_SEND, Disposition.PORT_RECEIVE, Disposition.PORT_SEND_ONCE], "list[Disposition]")
    number: int = Disposition.PORT_SEND
    print(number)


def trailers(token: AuditToken) -> None:
    """What the kernel adds, and who it says has sent."""
    trailer = Trailer(1, (0, 0), token, context=2, filter_id=3, label=4)
    assert_type(trailer.seqno, "int | None")
    assert_type(trailer.security_token, "tuple[int, int] | None")
    assert_type(trailer.audit_token, "AuditToken | None")
    assert_type(trailer.context, "int | None")
    assert_type(trailer.filter_id, "int | None")
    assert_type(trailer.label, "int | None")
    assert_type(trailer.size, int)
    assert_type(Trailer.decode(trailer.encode(), 0), Trailer)
    assert_type(trailer_request(MACH_RCV_TRAILER_AUDIT), int)
    assert_type(AuditToken(pid=7, pidversion=1), AuditToken)
    assert_type(AuditToken.from_bytes(bytes(token)), AuditToken)
    assert_type(token.auid + token.euid + token.egid + token.ruid + token.rgid + token.pid, int)
    assert_type(token.asid + token.pidversion + AuditToken.SIZE, int)
    assert_type(token.is_kernel, bool)
    assert_type(token == AuditToken.KERNEL, bool)


def failures(error: MachError) -> MachrvError:
    """What a return code means."""
    assert_type(error.code, int)
    assert_type(symbol_of(error.code), str)
    assert_type(MachError(15, "mach_port_type", size=None).symbol, str)
    assert_type(MessageFormatError("expected a header", 0).problem, str)
    return UnsupportedError("this system lacks it")
