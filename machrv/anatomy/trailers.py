"""What the kernel added behind a message, taken apart, whatever its size."""

# What belongs here: trailers. What must never happen here: a guess whether bytes are one (stream.py).

from __future__ import annotations

from struct import calcsize, unpack_from
from typing import TYPE_CHECKING

import machrv.constants as constants
from machrv.anatomy.fields import Field, Problem, Reading, Walk, odd, wrong
from machrv.message.layout import layout, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KINDS = {
    "mach_msg_trailer_t": "plain",
    "mach_msg_seqno_trailer_t": "sequence number",
    "mach_msg_security_trailer_t": "security token",
    "mach_msg_audit_trailer_t": "audit token",
    "mach_msg_context_trailer_t": "context",
    "mach_msg_mac_trailer_t": "labels",
}
#: Every kind by its size.
TRAILERS = {calcsize("=" + layout(struct)): struct for struct in _KINDS}
FORMAT_0: int = constants.MACH_MSG_TRAILER_FORMAT_0
SMALLEST = min(TRAILERS)
_AUDIT = next(size for size, struct in TRAILERS.items() if struct == "mach_msg_audit_trailer_t")

_WORDS = {
    "msgh_sender": ("effective user", "effective group"),
    "msgh_audit": (
        "audit user",
        "effective user",
        "effective group",
        "real user",
        "real group",
        "process",
        "audit session",
        "pidversion",
    ),
}
_NOBODY = 0xFFFFFFFF


def _audit_words(image: memoryview) -> tuple[int, ...] | None:
    if len(image) < _AUDIT or unpack_from("=I", image)[0] != FORMAT_0:
        return None
    return unpack_from("=8I", image, 20)


def trailer_is_from_kernel(image: memoryview) -> bool | None:
    """Whether the audit token in a trailer is the kernel's; None where the trailer has none."""
    words = _audit_words(image)
    return None if words is None else not any(words)


def agrees(image: memoryview) -> bool:
    """Whether what an audit trailer says of the sender agrees with itself, as every kernel's does: a process has a pid,
    and the effective ids stand in it twice."""
    words = _audit_words(image)
    if words is None:
        return False
    return unpack_from("=2I", image, 12) == words[1:3] and (words[5] != 0 or not any(words))


def trailer_fields(walk: Walk) -> Iterator[Field]:
    """The fields of the trailer that fills the rest of the walk."""
    room = walk.left
    size = unpack_from("=I", walk.image, walk.at + 4)[0] if room >= SMALLEST else room
    struct = TRAILERS.get(size, "mach_msg_trailer_t")
    walk.section = f"trailer: {_KINDS[struct]}" if size in TRAILERS else "trailer"
    from_kernel = trailer_is_from_kernel(walk.image[walk.at :])
    agreed = agrees(walk.image[walk.at :])

    def trailer_size(value: int) -> Reading:
        if value not in TRAILERS:
            return f"{value} bytes", wrong(f"no trailer has this size: expected one of {', '.join(map(str, TRAILERS))}")
        if value > room:
            walk.told = True
            end = walk.base + walk.end
            return f"{value} bytes", wrong(f"cut short: the input ends at {end}, {value - room} bytes are missing")
        return f"{value} bytes", []

    meanings: dict[str, Callable[[int], Reading]] = {
        "msgh_trailer_type": lambda value: (
            str(value),
            wrong(f"expected type {FORMAT_0}, the only one there is") if value != FORMAT_0 else [],
        ),
        "msgh_trailer_size": trailer_size,
        "msgh_seqno": lambda value: (f"{value}: its place among those received from the port", []),
        "msgh_context": lambda value: (f"{value:#x}: the receiving port's context", []),
        "msgh_ad": lambda value: (f"{value}: the message filter's id", []),
        "msgh_labels": lambda value: (f"{value:#x}: the sender's label", []),
    }
    for _, name, code in members(struct):
        if name in _WORDS:
            for index, what in enumerate(_WORDS[name]):
                field = walk.number(f"{name}.val[{index}]", "I", lambda value, what=what: (_word(what, value), []))  # type: ignore[misc]
                yield _judged(field, name, index, from_kernel, agreed)
        else:
            yield walk.number(name, code, meanings[name])
    if walk.left:
        yield walk.bytes("data", walk.left, "behind what is known of trailers")


def _word(what: str, value: int) -> str:
    return f"{what}: nobody" if value == _NOBODY and "user" in what else f"{what} {value}"


def _judged(field: Field, name: str, index: int, from_kernel: bool | None, agreed: bool) -> Field:
    if name != "msgh_audit" or index or from_kernel is None:
        return field
    if from_kernel:
        return field._replace(meaning=f"{field.meaning}; all eight words are 0: the kernel itself")
    if not agreed:
        (remark,) = odd("no kernel writes this: no pid, or other effective ids than in msgh_sender")
        return field._replace(problems=(*field.problems, Problem(field.offset, *remark)))
    return field
