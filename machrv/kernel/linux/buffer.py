"""Where a packet is received into, and the views that Python reads it through.

What belongs here: the memory. What must never happen here: a decision about what is read.
"""

from __future__ import annotations

from machrv._mach import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: where a Mach message has its body, or the count of its descriptors
BODY = ffi.sizeof("mach_msg_header_t")
#: the 32-bit words of a machrv_arrived, and how many of them come before its id
ARRIVED, BEFORE_ID = ffi.sizeof("machrv_arrived") // 4, ffi.offsetof("machrv_arrived", "id") // 4
_BODY_AT = ffi.offsetof("machrv_received", "body")
_SAID_AT = ffi.offsetof("machrv_exchange", "token")
_LONGEST_TRAILER = 68
_ROOM = BODY + lib.MACHRV_MAX_INLINE + _LONGEST_TRAILER


#: where in `Buffer.said` these are; the first words are the sender's audit token
ID, PORTS, RIGHTS, KEYED = 8, 9, 10, 11


class Buffer:
    """Room for one packet and for what machrv_receive_plain tells of the rights in it."""

    __slots__ = ("received", "rights", "exchange", "said", "said_at_once", "told", "image", "laid_out", "words", "_own")

    def __init__(self, own: Any, gate: Any) -> None:
        """`own` is the machrv_identity of the process, `gate` the machrv_gate of the space."""
        self._own = own, gate
        self.received: Any = ffi.new("machrv_received *")
        self.rights: Any = ffi.new("machrv_arrived[]", lib.MACHRV_MAX_FDS)
        #: the same for machrv_ask and machrv_serve, and what they tell
        self.exchange: Any = ffi.new("machrv_exchange *", (own, self.received, self.rights, gate))
        #: what a usual message says, as 32-bit words; a port is two of them
        self.said: Any = memoryview(ffi.buffer(self.exchange)).cast("B")[_SAID_AT:].cast("I")
        #: the same, to the first port
        self.said_at_once: Any = self.said[: KEYED + 2]
        #: `rights` as 32-bit words
        self.told: Any = memoryview(ffi.buffer(self.rights)).cast("B").cast("I")
        #: all of `received`; a slice is a copy
        self.image: Any = ffi.buffer(self.received)
        #: where machrv_receive_plain puts whole messages; a slice is a copy
        self.laid_out: Any = ffi.buffer(ffi.cast("char *", self.received) + _BODY_AT - BODY, _ROOM)
        #: the same as 32-bit words, to be written to
        self.words: Any = memoryview(self.laid_out).cast("I")

    def close(self) -> None:
        """Close every descriptor that came with what is in here."""
        count = self.received.nfds
        lib.machrv_close_all(list(self.received.fds[0:count]), count)
