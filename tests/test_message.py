"""The codec on known bytes: what they mean, cut at every byte, with bytes behind them, and with lies in them.

The vectors are built here with `struct` and numbers, not with the library's layouts. Round trips over all messages are
in test_message_properties.py.
"""

from __future__ import annotations

import copy
import pickle
import struct
import subprocess
import sys
import time
from typing import Any

import pytest

from machrv import message as message_module
from machrv.errors import MessageFormatError
from machrv.message import (
    AuditToken,
    Disposition,
    GuardedPortDescriptor,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    Trailer,
    trailer_request,
)

COMPLEX = 0x80000000


def header(bits: int = 0, size: int = 24, remote: int = 0, local: int = 0, voucher: int = 0, id: int = 0) -> bytes:
    return struct.pack("=IIIIIi", bits, size, remote, local, voucher, id)


def port(name: int = 0x203, disposition: int = 17, pad1: int = 0, pad2: int = 0, type: int = 0) -> bytes:
    return struct.pack("=IIHBB", name, pad1, pad2, disposition, type)


def out_of_line(address: int = 0x7000, size: int = 5, type: int = 1) -> bytes:
    return struct.pack("=QBBBBI", address, 1, 1, 0, type, size)


def complex_message(descriptors: bytes, count: int, body: bytes = b"", **fields: int) -> bytes:
    fields = {"bits": COMPLEX | 17, "size": 28 + len(descriptors) + len(body), **fields}
    return header(**fields) + struct.pack("=I", count) + descriptors + body


def trailer(size: int = 8, type: int = 0) -> bytes:
    return struct.pack("=II", type, size) + bytes(range(1, size - 7))


OUT_OF_LINE_PORTS = struct.pack("=QBBBBI", 0x7000, 0, 1, 19, 2, 3)
GUARDED = struct.pack("=QHBBI", 0x1122334455667788, 1, 16, 4, 0x203)
ALL_KINDS = port() + out_of_line() + OUT_OF_LINE_PORTS + out_of_line(type=3) + GUARDED
REPLY = complex_message(
    port(0x103) + port(0x107, 16), 2, struct.pack("=IIQ", 7, 9, 0), bits=COMPLEX | 18, remote=0x903, id=0x4D525A56
)
AUDIT_WORDS = (1, 501, 20, 501, 20, 4242, 5, 6)
AUDIT_TRAILER = struct.pack("=III2I8I", 0, 52, 3, 501, 20, *AUDIT_WORDS)
AUDIT = AuditToken(*AUDIT_WORDS)

VECTORS = {
    "bare header": (header(id=-5), Message(-5)),
    "request": (
        header(17 | 21 << 8, 24, 0x903, 0xA03, 0, 0x6D727A76),
        Message(0x6D727A76, remote_port=0x903, remote_disposition=17, local_port=0xA03, local_disposition=21),
    ),
    "voucher": (
        header(19 | 17 << 16, 24, 1, 0, 0xB03),
        Message(remote_port=1, remote_disposition=19, voucher_port=0xB03, voucher_disposition=17),
    ),
    "bits that no sender may set": (header(0x7FE0E0E0), Message(bits=0x7FE0E0E0)),
    "body": (header(size=28) + b"good", Message(body=b"good")),
    "body of five bytes": (header(size=29) + b"hello", Message(body=b"hello")),
    "complex without descriptors": (complex_message(b"", 0), Message(bits=COMPLEX, remote_disposition=17)),
    "reply": (
        REPLY,
        Message(
            0x4D525A56,
            struct.pack("=IIQ", 7, 9, 0),
            [PortDescriptor(0x103, Disposition.MOVE_SEND), PortDescriptor(0x107, Disposition.MOVE_RECEIVE)],
            remote_port=0x903,
            remote_disposition=Disposition.MOVE_SEND_ONCE,
        ),
    ),
    "pads that are not zero": (
        complex_message(port(1, 255, 0xDEADBEEF, 0xCAFE), 1),
        Message(descriptors=[PortDescriptor(1, 255, pad1=0xDEADBEEF, pad2=0xCAFE)], remote_disposition=17),
    ),
    "every kind of descriptor": (
        complex_message(ALL_KINDS, 5, b"tail"),
        Message(
            0,
            b"tail",
            [
                PortDescriptor(0x203, Disposition.MOVE_SEND),
                OutOfLineDescriptor(address=0x7000, size=5, deallocate=True),
                OutOfLinePortsDescriptor(None, Disposition.COPY_SEND, address=0x7000, count=3),
                OutOfLineDescriptor(address=0x7000, size=5, deallocate=True, type=3),
                GuardedPortDescriptor(0x203, Disposition.MOVE_RECEIVE, context=0x1122334455667788, flags=1),
            ],
            remote_disposition=17,
        ),
    ),
    "plain trailer": (header() + trailer(8), Message(trailer=Trailer())),
    "seqno trailer": (header() + struct.pack("=III", 0, 12, 9), Message(trailer=Trailer(9))),
    "security trailer": (header() + struct.pack("=IIIII", 0, 20, 9, 501, 20), Message(trailer=Trailer(9, (501, 20)))),
    "audit trailer": (header() + AUDIT_TRAILER, Message(trailer=Trailer(3, (501, 20), AUDIT))),
    "context trailer": (
        header() + struct.pack("=III2I8IQ", 0, 60, 3, 501, 20, *AUDIT_WORDS, 1 << 63),
        Message(trailer=Trailer(3, (501, 20), AUDIT, 1 << 63)),
    ),
    "mac trailer": (
        header() + struct.pack("=III2I8IQiI", 0, 68, 3, 501, 20, *AUDIT_WORDS, 0, -1, 0xC03),
        Message(trailer=Trailer(3, (501, 20), AUDIT, 0, -1, 0xC03)),
    ),
    "trailer behind a body of five bytes": (
        header(size=29) + b"hello" + bytes(3) + AUDIT_TRAILER,
        Message(body=b"hello", trailer=Trailer(3, (501, 20), AUDIT)),
    ),
    "reply with a trailer": (REPLY + AUDIT_TRAILER, Message.decode(REPLY + AUDIT_TRAILER)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_known_bytes_are_the_known_message(name: str) -> None:
    """Bytes decode to the message, and the message encodes to the bytes, whatever buffer they are in."""
    image, message = VECTORS[name]
    assert message == Message.decode(image)
    assert image == message.encode()
    assert message == Message.decode(bytearray(image)) == Message.decode(memoryview(image))
    assert message == Message.decode(memoryview(bytes(value for byte in image for value in (byte, 0)))[::2])


@pytest.mark.parametrize("name", VECTORS)
def test_a_message_cut_at_any_byte_is_refused(name: str) -> None:
    """Every prefix is an error, but for the one that is the same message without its trailer."""
    image, message = VECTORS[name]
    for size in range(len(image)):
        if message.trailer is not None and size == struct.unpack_from("=I", image, 4)[0]:
            continue
        with pytest.raises(MessageFormatError) as caught:
            Message.decode(image[:size])
        assert caught.value.offset is not None
        assert 0 <= caught.value.offset <= size


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("tail", [b"\0", b"\0\0\0\0", b"x" * 8, bytes(52), trailer(12)[:11], bytes(1000)])
def test_bytes_behind_a_message_are_refused(name: str, tail: bytes) -> None:
    """What is neither message nor a trailer that fits is an error."""
    with pytest.raises(MessageFormatError):
        Message.decode(VECTORS[name][0] + tail)


LIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 0, "expected a header of 24 bytes: the buffer has 0"),
    "size below a header": (header(size=23), 4, "found 23"),
    "size zero": (header(size=0), 4, "found 0"),
    "size beyond the buffer": (header(size=25), 4, "expected a msgh_size from 24 to 24"),
    "size of 2**32 - 1": (header(size=0xFFFFFFFF) + bytes(100), 4, "found 4294967295"),
    "size below the count": (header(COMPLEX, 24) + bytes(4), 24, "expected a descriptor count"),
    "size inside the count": (header(COMPLEX, 27) + bytes(4), 24, "expected a descriptor count"),
    "size below the descriptors": (complex_message(port(), 1, size=39), 24, "at most 0 descriptors in 39 bytes"),
    "one descriptor too many": (complex_message(port(), 2), 24, "expected at most 1 descriptors in 40 bytes: found 2"),
    "count of 2**32 - 1": (complex_message(port(), 0xFFFFFFFF), 24, "found 4294967295"),
    "count in the body": (complex_message(port(), 3, b"x" * 20), 24, "at most 2"),
    "unknown type 5": (complex_message(port(type=5), 1), 39, "found 5"),
    "unknown type 255": (complex_message(port() + port(type=255), 2), 51, "found 255"),
    "out-of-line in 12 bytes": (complex_message(port(type=1), 1), 28, "16 bytes of descriptor 0 (OutOfLineDescriptor)"),
    "guarded in 12 bytes": (complex_message(port() + port(type=4), 2), 40, "(GuardedPortDescriptor)"),
    "descriptors longer than counted": (complex_message(out_of_line() * 2 + b"x" * 4, 3), 60, "descriptor 2 of 3"),
    "padding before the trailer": (header(size=25) + b"a\0\1\0" + trailer(8), 25, "expected zeros"),
    "trailer of an unknown type": (header() + trailer(8, type=1), 24, "found type 1"),
    "audit passed as the type": (header() + struct.pack("=II", 3, 52) + bytes(44), 24, "found type 3"),
    "trailer size zero": (header() + struct.pack("=II", 0, 0), 28, "found 0"),
    "trailer size beyond the buffer": (header() + struct.pack("=II", 0, 52), 28, "expected a trailer size of 8"),
    "trailer size below what is there": (header() + struct.pack("=II", 0, 8) + bytes(44), 28, "found 8"),
    "trailer size of 2**32 - 1": (header() + struct.pack("=II", 0, 0xFFFFFFFF) + bytes(44), 28, "found 4294967295"),
    "trailer of no known kind": (header() + trailer(16), 24, "16 bytes are left"),
    "trailer at an odd offset": (header(size=29) + b"hello" + AUDIT_TRAILER, 32, "49 bytes are left"),
    "two trailers": (header() + trailer(8) + trailer(8), 24, "16 bytes are left"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found_and_said_where(name: str) -> None:
    """The error has the offset of the lie and what was expected there."""
    image, offset, words = LIES[name]
    with pytest.raises(MessageFormatError) as caught:
        Message.decode(image)
    assert offset == caught.value.offset
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"offset {offset}: expected")


@pytest.mark.parametrize("count", [2, 1000, 1 << 20, 0xFFFFFFFF])
def test_a_lying_count_costs_no_time(count: int) -> None:
    """Refusing a count takes microseconds however large it is, and however large the buffer."""
    for body in (b"", bytes(1 << 16), b"\5" * (1 << 16)):
        image = complex_message(b"", max(count, len(body) // 12 + 1), body)
        best = 1.0
        for _ in range(5):
            begun = time.perf_counter()
            with pytest.raises(MessageFormatError):
                Message.decode(image)
            best = min(best, time.perf_counter() - begun)
        assert best < 0.002


@pytest.mark.parametrize(
    ("descriptors", "count", "words"),
    [
        (port()[:8], 1, "at most 0 descriptors in 36 bytes"),
        (out_of_line()[:12], 1, "16 bytes of descriptor 0"),
        (out_of_line() + GUARDED + port()[:8], 3, "descriptor 2 of 3: the message ends at 68"),
    ],
)
def test_a_message_is_not_read_past_its_size(descriptors: bytes, count: int, words: str) -> None:
    """Descriptors that would reach into the trailer are refused, though the buffer has the bytes."""
    with pytest.raises(MessageFormatError, match=words):
        Message.decode(complex_message(descriptors, count) + AUDIT_TRAILER)


@pytest.mark.parametrize("junk", [7, None, "text", [1, 2]])
def test_what_is_no_buffer_is_a_type_error(junk: object) -> None:
    """An integer is not taken for a number of zero bytes."""
    with pytest.raises(TypeError):
        Message.decode(junk)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Message(body=junk)  # type: ignore[arg-type]


def with_id(id: Any) -> Message:
    """A message whose id was set by hand: one that is no number is refused when a message is made."""
    message = Message()
    message.id = id
    return message


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (Message(1 << 31), "msgh_id is 2147483648: expected a signed 32-bit integer"),
        (with_id("id"), "msgh_id is 'id'"),
        (Message(bits=1 << 32), "msgh_bits"),
        (Message(bits=-1), "msgh_bits"),
        (Message(remote_port=-1), "msgh_remote_port is -1: expected an unsigned 32-bit integer"),
        (Message(local_port=1 << 32), "msgh_local_port"),
        (Message(voucher_port=1.0), "msgh_voucher_port"),  # type: ignore[arg-type]
        (Message(descriptors=[PortDescriptor(-1, 17)]), "offset 28: mach_msg_port_descriptor_t.name is -1"),
        (Message(descriptors=[PortDescriptor(1, 256)]), "offset 38: mach_msg_port_descriptor_t.disposition is 256"),
        (Message(descriptors=[PortDescriptor(1, 17)] * 2 + [PortDescriptor(1, 17, pad2=1 << 16)]), "offset 60"),
        (Message(descriptors=[OutOfLineDescriptor(size=1 << 32)]), "mach_msg_ool_descriptor_t.size"),
        (Message(descriptors=[OutOfLineDescriptor(address=-1)]), "expected an unsigned 64-bit integer"),
        (Message(descriptors=[GuardedPortDescriptor(1, 16, flags=1 << 16)]), "guarded_port_descriptor_t.flags"),
        (Message(descriptors=[object()]), "descriptor 0 is a object"),
        (Message(descriptors=[PortDescriptor(1, 17), (1, 0, 0, 17)]), "descriptor 1 is a tuple"),
        (Message(descriptors=[b"abcd"]), "descriptor 0 is a bytes"),
        (Message(descriptors=[PortDescriptor(1, 17)] * 100 + [3]), "descriptor 100 is a int"),
        (Message(trailer=Trailer(-1)), "does not fit into 12 bytes"),
        (Message(trailer=Trailer(1, (1 << 32, 0))), "does not fit into 20 bytes"),
    ],
)
def test_a_field_that_does_not_fit_is_named(message: Message, where: str) -> None:
    """Encoding raises MessageFormatError, never struct.error, and says which field and what it may be."""
    with pytest.raises(MessageFormatError) as caught:
        message.encode()
    assert where in str(caught.value)


def test_descriptors_need_the_complex_bit() -> None:
    """The constructor sets it; a message from which it was taken is refused, not sent with its rights left out."""
    message = Message(descriptors=[PortDescriptor(1, 17)])
    assert message.is_complex
    message.bits = 0
    with pytest.raises(MessageFormatError, match="COMPLEX"):
        message.encode()


@pytest.mark.parametrize("disposition", [-1, 32, 1 << 20])
def test_a_disposition_that_spills_out_of_its_bits_is_refused(disposition: int) -> None:
    """A disposition cannot set another one's bits, nor the complex bit."""
    for place in ("remote", "local", "voucher"):
        with pytest.raises(MessageFormatError, match="does not fit"):
            Message(**{f"{place}_disposition": disposition})  # type: ignore[arg-type]
    with pytest.raises(MessageFormatError, match="does not fit"):
        Message().encode_to(1, disposition)


@pytest.mark.parametrize(("place", "shift"), [("remote", 0), ("local", 8), ("voucher", 16)])
def test_a_disposition_is_read_from_the_bits_and_replaces_them(place: str, shift: int) -> None:
    """Each has its own five bits; one that is given replaces what `bits` said, all other bits stay."""
    bits = 0xFFFFFFFF
    message = Message(bits=bits, **{f"{place}_disposition": 20})  # type: ignore[arg-type]
    assert 20 == getattr(message, f"{place}_disposition")
    assert bits & ~(0x1F << shift) | 20 << shift == message.bits
    assert 31 == getattr(Message(bits=bits), f"{place}_disposition")


def test_a_message_to_send_has_its_destination_and_no_trailer() -> None:
    """What a kernel is handed: the destination given, a multiple of four bytes, nothing behind; the rest as it was."""
    message = Message(7, b"hello", [PortDescriptor(1, 17)], local_port=3, local_disposition=21, trailer=Trailer(1))
    before = message.encode()
    sent = Message.decode(message.encode_to(0x903, Disposition.COPY_SEND))
    assert (0x903, 19, 3, 21) == (sent.remote_port, sent.remote_disposition, sent.local_port, sent.local_disposition)
    assert b"hello\0\0\0" == sent.body
    assert message.descriptors == sent.descriptors
    assert sent.trailer is None
    assert before == message.encode()


def test_many_descriptors_round_trip() -> None:
    """The way that is fast for a few ports and the way that is fast for many give the same bytes."""
    for count in (63, 64, 65, 1000):
        descriptors = [PortDescriptor(name, 17) for name in range(count)]
        image = Message(descriptors=descriptors).encode()
        assert complex_message(b"".join(port(name) for name in range(count)), count, bits=COMPLEX) == image
        assert tuple(descriptors) == Message.decode(image).descriptors


def test_out_of_line_data_is_beside_the_message() -> None:
    """`data` and `names` give the size and the count, and are not part of the wire nor of equality."""
    memory, ports = OutOfLineDescriptor(b"payload"), OutOfLinePortsDescriptor([1, 2, 3], Disposition.COPY_SEND)
    assert (7, 3) == (memory.size, ports.count)
    again = Message.decode(Message(descriptors=[memory, ports]).encode())
    assert (memory, ports) == again.descriptors
    assert again.descriptors[0].data is None
    assert again.descriptors[1].names is None
    again.descriptors[0].data = b"filled in"
    assert memory == again.descriptors[0]


def test_an_out_of_line_descriptor_is_of_no_other_type() -> None:
    """A type that another kind of descriptor has would come back as that kind."""
    with pytest.raises(MessageFormatError, match="type 0"):
        OutOfLineDescriptor(b"", type=0)


@pytest.mark.parametrize(
    "fields", [{"security_token": (0, 0)}, {"seqno": 1, "audit_token": AUDIT}, {"label": 1}, {"context": 0}]
)
def test_a_trailer_has_no_holes(fields: dict[str, object]) -> None:
    """Each kind holds all that the smaller ones hold."""
    with pytest.raises(MessageFormatError, match="there is no trailer with"):
        Trailer(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [(1, (1, 2, 3)), (1, (1, 2), (1,) * 7), (1, (1,), (1,) * 9), ((1, 2, 3),)])
def test_a_trailer_takes_no_token_of_another_length(fields: tuple[Any, ...]) -> None:
    """Each word has its place: one too many would shift those behind it."""
    with pytest.raises(MessageFormatError, match="does not fit into"):
        Trailer(*fields)


def test_a_filter_id_comes_with_a_label() -> None:
    """The largest trailer adds two fields at once."""
    with pytest.raises(MessageFormatError, match="without label"):
        Trailer(1, (2, 3), AUDIT, 4, 5)


def test_the_size_of_each_trailer() -> None:
    """The sizes that a receiver has to leave room for."""
    fields: tuple[Any, ...] = (1, (2, 3), AUDIT, 4, 5, 6)
    assert [8, 12, 20, 52, 60, 68] == [Trailer(*fields[:count]).size for count in (0, 1, 2, 3, 4, 6)]


def test_a_trailer_request_is_in_the_top_byte() -> None:
    """Type in bits 28 to 31, elements in bits 24 to 27."""
    assert 0x03000000 == trailer_request(3)
    assert 0x08000000 == trailer_request(8)


def test_a_message_tells_who_sent_it() -> None:
    """The audit token is at hand where the trailer has one, and None where nobody says."""
    assert AUDIT == Message.decode(REPLY + AUDIT_TRAILER).audit_token
    assert Message.decode(REPLY).audit_token is None
    assert Message.decode(header() + trailer(12)).audit_token is None


def test_a_message_reads_like_a_message() -> None:
    """The repr shows names in hexadecimal, dispositions and four-character ids by name."""
    shown = repr(Message.decode(REPLY + AUDIT_TRAILER))
    for words in ("0x4d525a56 'MRZV'", "remote=0x903 MOVE_SEND_ONCE", "PortDescriptor(0x103, MOVE_SEND)", "pid=4242"):
        assert words in shown
    shown = repr(Message.decode(complex_message(ALL_KINDS, 5, b"x" * 100)))
    for words in ("context=0x1122334455667788", "address=0x7000", "count=3", "body=100 bytes b'xxx", "..."):
        assert words in shown
    assert "<Message id=70>" == repr(Message(70))
    assert "bits=0x20000000" in repr(Message(bits=0x20000000))
    assert "pad1=0x1" in repr(PortDescriptor(1, 99, pad1=1))
    assert "PortDescriptor(0x1, 99)" == repr(PortDescriptor(1, 99))
    assert "b'abc'" in repr(OutOfLineDescriptor(b"abc"))
    assert "[0x1, 0x2]" in repr(OutOfLinePortsDescriptor([1, 2], 17))


def test_a_message_can_be_copied_and_pickled() -> None:
    """It crosses to another process of the same program, data beside it included."""
    message = Message.decode(complex_message(ALL_KINDS, 5) + AUDIT_TRAILER)
    message.descriptors[1].data = b"beside"
    for again in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert message == again
        assert [type(descriptor) for descriptor in message.descriptors] == list(map(type, again.descriptors))
        assert b"beside" == again.descriptors[1].data


def test_messages_differ_in_any_field() -> None:
    """Two messages are equal if and only if all that they hold is; other things are never equal to one."""
    assert Message(1) == Message(1)
    assert Message(1) != 1
    for fields in ({"id": 1}, {"body": b"x"}, {"bits": 1}, {"local_port": 1}, {"trailer": Trailer()}):
        assert Message() != Message(**fields)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Message())


def test_dispositions_are_integers_with_names() -> None:
    """They work as numbers everywhere, read as names, and PORT_* are MOVE_* seen from the other side."""
    assert [16, 17, 18, 19, 20, 21] == list(Disposition)
    assert Disposition.PORT_SEND is Disposition.MOVE_SEND is Disposition(17)
    assert "Disposition.MAKE_SEND_ONCE" == repr(Disposition.MAKE_SEND_ONCE) == str(Disposition(21))
    assert ("COPY_SEND", 19) == (Disposition.COPY_SEND.name, Disposition.COPY_SEND.value)
    assert pickle.loads(pickle.dumps(Disposition.MAKE_SEND)) is Disposition.MAKE_SEND
    with pytest.raises(ValueError, match="22 is no disposition"):
        Disposition(22)


def test_constants_can_be_imported_from_here() -> None:
    """Modules that have no business with the compiled one find Mach's constants beside the codec."""
    assert 1 == message_module.MACH_SEND_MSG
    with pytest.raises(AttributeError, match="MACH_NOSUCH"):
        message_module.MACH_NOSUCH
    with pytest.raises(AttributeError, match="strlen"):
        message_module.strlen


def test_importing_the_codec_is_light() -> None:
    """A child pays for every module before it does anything: none of the expensive ones comes with the codec."""
    heavy = "asyncio contextlib ctypes dataclasses enum inspect logging re socket subprocess threading typing"
    script = (
        f"import sys; sys.path = {sys.path!r}; import machrv.message; print(*set({heavy.split()!r}) & {{*sys.modules}})"
    )
    found = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert "" == found.stdout.strip()
