"""Where a packet is received into, and the views that Python reads it through.

What belongs here: the memory, and the shapes of include/machrv/linux.h as `struct` sees them. What must never happen
here: a decision about what is read.
"""

from __future__ import annotations

from struct import Struct

from machrv._mach import ffi, lib
from machrv.kernel.linux import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: machrv_received before its descriptors, and machrv_wire_header
FIXED, WIRE = Struct("=qqiII4xQiiiii"), Struct("=IIHHIiIq")
#: machrv_arrived
ARRIVED = Struct("=IiiiII32s")
_LONGEST_TRAILER = 68


class Buffer:
    """Room for one packet and for what machrv_receive_plain tells of the rights in it."""

    __slots__ = ("received", "rights", "answer", "told", "fixed", "wire", "body", "laid_out")

    def __init__(self) -> None:
        self.received: Any = ffi.new("machrv_received *")
        self.rights: Any = ffi.new("machrv_arrived[]", lib.MACHRV_MAX_FDS)
        self.answer: Any = ffi.new("int *")
        self.told: Any = ffi.buffer(self.rights)
        self.fixed: Any = ffi.buffer(self.received, FIXED.size)
        self.wire: Any = ffi.buffer(ffi.addressof(self.received, "header"))
        body = ffi.addressof(self.received, "body")
        self.body: memoryview[int] = memoryview(ffi.buffer(body, lib.MACHRV_MAX_INLINE))
        #: where machrv_receive_plain puts whole messages; a slice is a copy
        self.laid_out: Any = ffi.buffer(
            ffi.cast("char *", body) - wire.BODY, wire.BODY + lib.MACHRV_MAX_INLINE + _LONGEST_TRAILER
        )

    def close(self) -> None:
        """Close every descriptor that came with what is in here."""
        count = self.received.nfds
        lib.machrv_close_all(list(self.received.fds[0:count]), count)
