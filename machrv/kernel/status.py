"""What a kernel tells of a receive right: `PortStatus`.

What belongs here: that value. What must never happen here: an import that a child would pay for, or one at the time of a
call: there may be no descriptor left for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple

    class _PortStatus(NamedTuple):
        pset: int
        seqno: int
        mscount: int
        qlimit: int
        msgcount: int
        sorights: int
        srights: int
        pdrequest: int
        nsrequest: int
        flags: int

else:  # The same without `typing` and `collections`.
    _FIELDS = (
        "pset",
        "seqno",
        "mscount",
        "qlimit",
        "msgcount",
        "sorights",
        "srights",
        "pdrequest",
        "nsrequest",
        "flags",
    )

    class _PortStatus(tuple):
        __slots__ = ()
        _fields = __match_args__ = _FIELDS
        _field_defaults: dict[str, Any] = {}

        def __new__(cls, pset, seqno, mscount, qlimit, msgcount, sorights, srights, pdrequest, nsrequest, flags):
            values = pset, seqno, mscount, qlimit, msgcount, sorights, srights, pdrequest, nsrequest, flags
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values: Iterable[int]):
            return cls(*values)

        def _asdict(self):
            return dict(zip(_FIELDS, self))

        def _replace(self, **changes: int):
            return type(self)(**{**self._asdict(), **changes})

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

    for _index, _name in enumerate(_FIELDS):
        setattr(_PortStatus, _name, property(lambda self, index=_index: self[index]))


class PortStatus(_PortStatus):
    """What mach_port_get_attributes(MACH_PORT_RECEIVE_STATUS) tells of a receive right.

    `pset` counts the sets that the port is in, `seqno` is the next message's, `mscount` the send rights made since it
    was last reset, `msgcount` the messages waiting (where the kernel can tell; otherwise 0 or 1), `sorights` the
    send-once rights in existence; `srights`, `pdrequest` and `nsrequest` are 0 or 1, as in <mach/port.h>.
    """

    __slots__ = ()
