"""Bodies that are known by the message's id: rendezvous requests and replies, and the kernel's notifications."""

# What belongs here: what such a body holds, and whether the message has the form that its id promises. What must never
# happen here: a body that is taken for a known one though it does not have its form: then it is plain bytes.

from __future__ import annotations

from struct import calcsize
from typing import TYPE_CHECKING

import machrv.constants as constants
from machrv.anatomy.fields import Field, Problem, Reading, Walk, odd, wrong
from machrv.anatomy.meanings import counted, key, port_name
from machrv.constants import Disposition
from machrv.message.layout import layout, offset_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HEADER = calcsize("=" + layout("mach_msg_header_t"))
_ID = offset_of("mach_msg_header_t", "msgh_id")
_COMPLEX: int = constants.MACH_MSGH_BITS_COMPLEX
_REPLY: int = constants.MACHRV_REPLY_ID
_REQUESTS: tuple[int, ...] = (constants.MACHRV_REQUEST_ID, constants.MACHRV_REQUEST_WITH_INFO_PLIST_ID)
#: What mach/ndr.h says of a machine like this one, and of one with the other byte order.
_NDR = {0: "big-endian", 1: "little-endian"}
_NDR_SIZE = 8

#: The notifications: name, and what is in the body behind the NDR record; "" for none.
_NOTIFICATIONS = {
    constants.MACH_NOTIFY_PORT_DELETED: ("PORT_DELETED", "not_port"),
    constants.MACH_NOTIFY_SEND_POSSIBLE: ("SEND_POSSIBLE", "not_port"),
    constants.MACH_NOTIFY_PORT_DESTROYED: ("PORT_DESTROYED", ""),
    constants.MACH_NOTIFY_NO_SENDERS: ("NO_SENDERS", "not_count"),
    constants.MACH_NOTIFY_SEND_ONCE: ("SEND_ONCE", ""),
    constants.MACH_NOTIFY_DEAD_NAME: ("DEAD_NAME", "not_port"),
}
_NAMES = {
    constants.MACHRV_REQUEST_ID: "a rendezvous request",
    constants.MACHRV_REQUEST_WITH_INFO_PLIST_ID: "a rendezvous request that wants Info.plist data too",
    _REPLY: "a rendezvous reply",
    **{id: f"the notification {name}" for id, (name, _) in _NOTIFICATIONS.items()},
}
#: What stands in the place of msgh_id in the packets of machrv.kernel.linux: 'mrv' and the version of their form.
_PACKET = 0x6D7276


class Outline:
    """What the parts of a message must know of each other. `size` is msgh_size, None if that is missing."""

    def __init__(self) -> None:
        self.bits = 0
        self.size: int | None = None
        self.id = 0
        self.received = False
        self.from_kernel: bool | None = None
        self.kinds: list[int] = []


def id_name(id: int) -> str:
    """What messages with this id are; "" if it is not known."""
    if id >> 8 == _PACKET:
        return "not a Mach message but a packet of machrv's Linux kernel (docs/linux.md)"
    return _NAMES.get(id, "")


def body_fields(walk: Walk, outline: Outline, size: int) -> Iterator[Field]:
    """What the id tells of the body that begins here; what is left of it then is plain bytes.

    `size` is msgh_size. What is wrong with the form of the whole message comes first, on a field "form" without bytes.
    """
    walk.section = "body"
    if outline.id in _REQUESTS:
        yield from _form(walk, [Problem(walk.base + _ID, True, text) for text in _request_problems(outline, size)])
    elif outline.id == _REPLY:
        yield from _reply(walk, outline, size)
    elif outline.id in _NOTIFICATIONS:
        yield from _notification(walk, outline, size)


def _form(walk: Walk, problems: list[Problem]) -> Iterator[Field]:
    if problems:
        offset = walk.base + walk.at
        yield Field("form", "", offset, 0, walk.image[:0], None, "", tuple(problems))


def _request_problems(outline: Outline, size: int) -> list[str]:
    problems = []
    if size != _HEADER or outline.bits & _COMPLEX:
        problems.append("a request is a header of 24 bytes and nothing else: servers destroy this one")
    kinds = {outline.bits & 0x1F, outline.bits >> 8 & 0x1F}  # Received, the reply right stands in the other place.
    if not kinds & {Disposition.MAKE_SEND_ONCE, Disposition.MOVE_SEND_ONCE}:
        problems.append("a request brings a send-once right for the reply: servers destroy this one")
    return problems


def _reply(walk: Walk, outline: Outline, size: int) -> Iterator[Field]:
    problems = []
    if any(kind != constants.MACH_MSG_PORT_DESCRIPTOR for kind in outline.kinds):
        problems.append(Problem(walk.base + _HEADER, True, "a reply carries port descriptors only"))
    if outline.from_kernel:
        problems.append(Problem(walk.base + _ID, True, "a reply comes from a process, not from the kernel"))
    yield from _form(walk, problems)
    if not outline.bits & _COMPLEX:

        def none(value: int) -> Reading:
            return str(value), wrong("without the complex bit there are no descriptors") if value else []

        yield walk.number("descriptor count", "I", none)
    last = -1
    for index in range(len(outline.kinds)):

        def ascending(value: int) -> Reading:
            return f"{key(value)}: the key of descriptor {index}", (
                wrong("keys ascend, each once") if value <= last else []
            )

        field = walk.number(f"key[{index}]", "I", ascending)
        yield field
        if field.value is None:
            return
        last = field.value
    yield from _additional_data(walk, size)


def _additional_data(walk: Walk, size: int) -> Iterator[Field]:
    room = size - walk.at - 8

    def length_of(value: int) -> Reading:
        return f"{counted(value, 'byte')} of additional data", (
            wrong(f"{max(0, room)} bytes are left") if value > room else []
        )

    length = walk.number("length", "Q", length_of)
    yield length
    if length.value is None or length.problems:
        return
    if length.value:
        yield walk.bytes("additional data", length.value)
    padding = size - walk.at
    expected = -length.value % 4

    def zeros(data: memoryview) -> Reading:
        fits = len(data) == expected and not any(data)
        return "up to a multiple of 4", [] if fits else wrong(f"a reply ends with {expected} zero bytes")

    if padding or expected:
        yield walk.bytes("padding", padding, zeros)


def _notification(walk: Walk, outline: Outline, size: int) -> Iterator[Field]:
    name, item = _NOTIFICATIONS[outline.id]
    destroyed = outline.id == constants.MACH_NOTIFY_PORT_DESTROYED
    kinds = [constants.MACH_MSG_PORT_DESCRIPTOR] if destroyed else []
    body = size - walk.at
    fits = outline.kinds == kinds and bool(outline.bits & _COMPLEX) == destroyed
    fits = fits and body == (_NDR_SIZE + 4 if item else 0)
    if not fits:
        text = f"this is not the form of {name}"
        problem = Problem(walk.base + _ID, bool(outline.from_kernel), text)
        yield from _form(walk, [problem])
        return
    if outline.from_kernel is False:
        text = f"a process sent this, not the kernel: {name} is to be believed from the kernel only"
        yield from _form(walk, [Problem(walk.base + _ID, False, text)])
    if not item:
        return
    yield walk.bytes("NDR", _NDR_SIZE, _ndr)
    meanings: dict[str, Callable[[int], Reading]] = {
        "not_port": lambda value: (f"{port_name(value)}: the name that it is about", []),
        "not_count": lambda value: (f"{value} send rights had been made", []),
    }
    yield walk.number(item, "I", meanings[item])


def _ndr(data: memoryview) -> Reading:
    order = _NDR.get(data[4])
    if order is None or any(data[:4]) or any(data[5:]):
        return "", odd("no NDR record that any machine writes")
    return f"numbers are {order}, characters ASCII, floats IEEE", []
