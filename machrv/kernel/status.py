"""What a kernel tells of a receive right: `PortStatus`. What must never happen here: an import that a child would pay for."""

from __future__ import annotations

from _operator import itemgetter


class PortStatus(tuple):  # type: ignore[type-arg]  # A namedtuple without `collections` and `typing`.
    """What mach_port_get_attributes(MACH_PORT_RECEIVE_STATUS) tells of a receive right.

    `pset` is 1 if the port is in a set, `seqno` is the next message's, `mscount` the send rights made since it was
    last reset, `msgcount` the messages waiting (where the kernel can tell; otherwise 0 or 1), `sorights` the send-once
    rights in existence; `srights`, `pdrequest` and `nsrequest` are 0 or 1, as in <mach/port.h>.
    """

    __slots__ = ()
    _fields = "pset", "seqno", "mscount", "qlimit", "msgcount", "sorights", "srights", "pdrequest", "nsrequest", "flags"
    __match_args__ = _fields

    pset: int = property(itemgetter(0))  # type: ignore[assignment]
    seqno: int = property(itemgetter(1))  # type: ignore[assignment]
    mscount: int = property(itemgetter(2))  # type: ignore[assignment]
    qlimit: int = property(itemgetter(3))  # type: ignore[assignment]
    msgcount: int = property(itemgetter(4))  # type: ignore[assignment]
    sorights: int = property(itemgetter(5))  # type: ignore[assignment]
    srights: int = property(itemgetter(6))  # type: ignore[assignment]
    pdrequest: int = property(itemgetter(7))  # type: ignore[assignment]
    nsrequest: int = property(itemgetter(8))  # type: ignore[assignment]
    flags: int = property(itemgetter(9))  # type: ignore[assignment]

    def __new__(cls, *values: int) -> PortStatus:
        if len(values) != len(cls._fields):
            raise TypeError(f"PortStatus has {len(cls._fields)} fields, and {len(values)} were given")
        return tuple.__new__(cls, values)

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return f"PortStatus({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, self))})"
