"""What single values mean: header bits, dispositions, copy options, names."""

# What belongs here: a value in, words out. What must never happen here: a look at any other field.

from __future__ import annotations

import machrv.constants as constants
from machrv.anatomy.fields import Reading, Remark, odd, wrong
from machrv.constants import Disposition

#: Dispositions that Mach has names for and no message carries.
_ELSEWHERE = {
    getattr(constants, f"MACH_MSG_TYPE_{name}"): name
    for name in ("PORT_NAME", "COPY_RECEIVE", "DISPOSE_RECEIVE", "DISPOSE_SEND", "DISPOSE_SEND_ONCE")
}
_SENT = {
    Disposition.MOVE_RECEIVE: "the sender's receive right is moved",
    Disposition.MOVE_SEND: "the sender's send right is moved",
    Disposition.MOVE_SEND_ONCE: "the sender's send-once right is moved",
    Disposition.COPY_SEND: "the sender's send right is copied",
    Disposition.MAKE_SEND: "a send right is made from the sender's receive right",
    Disposition.MAKE_SEND_ONCE: "a send-once right is made from the sender's receive right",
}
_ARRIVED = {
    Disposition.PORT_RECEIVE: ("PORT_RECEIVE", "the receiver has the receive right"),
    Disposition.PORT_SEND: ("PORT_SEND", "the receiver has a send right"),
    Disposition.PORT_SEND_ONCE: ("PORT_SEND_ONCE", "the receiver has a send-once right"),
}
_COPY = {constants.MACH_MSG_PHYSICAL_COPY: "physical copy", constants.MACH_MSG_VIRTUAL_COPY: "virtual copy"}
_COPY_ARRIVED = {constants.MACH_MSG_ALLOCATE: "allocated", constants.MACH_MSG_OVERWRITE: "overwritten"}
_FLAGS = {
    constants.MACH_MSGH_BITS_COMPLEX: "complex",
    constants.MACH_MSGH_BITS_RAISEIMP: "importance is raised",
    constants.MACH_MSGH_BITS_IMPHOLDASRT: "importance is held",
}
GUARD_FLAGS = {
    constants.MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE: "IMMOVABLE_RECEIVE",
    constants.MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND: "UNGUARDED_ON_SEND",
}


def _name(value: int, received: bool) -> str:
    if received and value in _ARRIVED:
        return _ARRIVED[Disposition(value)][0]
    if value in _SENT:
        return Disposition(value).name
    return _ELSEWHERE.get(value, str(value))


def bits(value: int, received: bool) -> Reading:
    """What msgh_bits says."""
    said = [name for bit, name in _FLAGS.items() if value & bit]
    remarks: list[Remark] = []
    for which, shift in (("remote", 0), ("local", 8), ("voucher", 16)):
        kind = value >> shift & 0x1F
        if kind:
            said.append(f"{which} {_name(kind, received)}")
            remarks += _header_disposition(which, kind)
    unknown = value & ~(constants.MACH_MSGH_BITS_USED & 0xFFFFFFFF)
    if unknown:
        remarks += wrong(f"bits {unknown:#x} have no meaning")
    if value & constants.MACH_MSGH_BITS_USED & ~constants.MACH_MSGH_BITS_USER:
        remarks += odd("importance bits are the kernel's own")
    return f"{value:#010x}: {', '.join(said) or 'no rights'}", remarks


def _header_disposition(which: str, value: int) -> list[Remark]:
    """What a kernel says to a disposition in the header: send and send-once rights only, a voucher moved or copied."""
    if which == "voucher":
        fits = value in (Disposition.MOVE_SEND, Disposition.COPY_SEND)
        return [] if fits else wrong(f"the voucher's disposition is {value}: expected MOVE_SEND or COPY_SEND")
    if value not in _SENT:
        return wrong(f"the {which} disposition is {value}, and there is none such: expected 0, or 17 to 21")
    if value == Disposition.MOVE_RECEIVE:
        return wrong(f"the {which} disposition is MOVE_RECEIVE: receive rights travel in descriptors")
    return []


def disposition(value: int, received: bool, guarded: bool) -> Reading:
    """What a descriptor's disposition says."""
    if value not in _SENT:
        return f"{value} {_ELSEWHERE.get(value, '')}".rstrip(), wrong("no such disposition: expected 16 to 21")
    remarks: list[Remark] = []
    if guarded and value != Disposition.MOVE_RECEIVE:
        remarks += wrong("only a receive right can be guarded: expected MOVE_RECEIVE")
    if received:
        if value not in _ARRIVED:
            return f"{value} {Disposition(value).name}", odd("received messages say PORT_RECEIVE, _SEND or _SEND_ONCE")
        name, text = _ARRIVED[Disposition(value)]
        return f"{value} {name}: {text}", remarks
    return f"{value} {Disposition(value).name}: {_SENT[Disposition(value)]}", remarks


def copy_option(value: int) -> Reading:
    """How out-of-line memory gets to the receiver."""
    if value in _COPY:
        return f"{value}: {_COPY[value]}", []
    if value in _COPY_ARRIVED:
        return f"{value}: {_COPY_ARRIVED[value]}", []
    return str(value), odd("no such copy option: expected 0 to 3")


def port_name(value: int) -> str:
    """A port name."""
    if value == constants.MACH_PORT_NULL:
        return "none"
    if value == constants.MACH_PORT_DEAD & 0xFFFFFFFF:
        return f"{value:#x}, a dead name"
    return f"{value:#x}"


def counted(value: int, what: str) -> str:
    """A number of things."""
    return f"{value} {what}{'' if value == 1 else 's'}"


def key(value: int) -> str:
    """A key of a rendezvous, as people write it."""
    characters = value.to_bytes(4, "big")
    if all(0x20 <= character <= 0x7E for character in characters):
        return f"'{characters.decode()}' ({value:#x})"
    return f"{value} ({value:#x})"
