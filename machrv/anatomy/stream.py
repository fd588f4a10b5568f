"""Where one message ends and the next begins, in bytes that come a piece at a time.

Nothing says whether a trailer follows a message: on Mach the receiver knows, for it has asked for one. So what stands at
the next multiple of four is taken for a trailer if its first words are those of one (type 0, a size that trailers have).
They could also be those of a message that names no port at all; then what is said of the sender decides.
"""

# What belongs here: finding messages and their trailers. What must never happen here: more bytes kept than one message
# has, or a look at more than the boundaries.

from __future__ import annotations

from struct import unpack_from
from typing import TYPE_CHECKING, NamedTuple

import machrv.constants as constants
from machrv.anatomy.message import HEADER, LARGEST
from machrv.anatomy.trailers import FORMAT_0, SMALLEST, TRAILERS, agrees
from machrv.constants import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How much is read at once, and how much is shown of a message whose size no kernel carries.
CHUNK = 1 << 20
#: What has to be seen behind a message to know where it ends: padding, a trailer, and the header of the next message.
_AHEAD = 4 + max(TRAILERS) + HEADER
_BITS: int = constants.MACH_MSGH_BITS_USED & 0xFFFFFFFF


class Found(NamedTuple):
    """A message: where it begins in the input, what there is of it, and how much of that is message and padding; the rest
    is its trailer. `lost` if it is not known where the next message begins, though there is more input."""

    offset: int
    image: memoryview
    size: int
    padding: int
    lost: bool


class Splitter:
    """Finds the messages in what `read(n)` gives: at most n bytes at a time, none at the end.

    `trailers`: None to tell them from messages, True where each message has one, False where none has.
    """

    def __init__(self, read: Callable[[int], bytes], trailers: bool | None = None) -> None:
        self._read = read
        self._trailers = trailers
        self._buffer = bytearray()
        self._over = False
        self.offset: int = 0

    def __iter__(self) -> Iterator[Found]:
        while self._fill(HEADER) or self._buffer:
            found = self._next()
            yield found
            if found.lost:
                return
            self.offset += len(found.image)
            del self._buffer[: len(found.image)]

    def _fill(self, count: int) -> bool:
        """Whether there are so many bytes."""
        while len(self._buffer) < count and not self._over:
            piece = self._read(CHUNK)
            self._over = not piece
            self._buffer += piece
        return len(self._buffer) >= count

    def _next(self) -> Found:
        size = unpack_from("=I", self._buffer, 4)[0] if len(self._buffer) >= 8 else 0
        if not HEADER <= size <= LARGEST:
            self._fill(CHUNK + 1)
            image = bytes(self._buffer[:CHUNK])
            return Found(self.offset, memoryview(image), len(image), 0, len(self._buffer) > CHUNK)
        self._fill(size + _AHEAD)
        if size >= len(self._buffer):
            return Found(self.offset, memoryview(bytes(self._buffer)), len(self._buffer), 0, False)
        padding, trailer = self._behind(size)
        image = bytes(self._buffer[: size + padding + trailer])
        return Found(self.offset, memoryview(image), size, padding, False)

    def _behind(self, size: int) -> tuple[int, int]:
        """How many bytes of padding and of a trailer follow a message."""
        padding = min(-size % 4, len(self._buffer) - size)
        start = size + padding
        trailer = 0 if self._trailers is False else self._trailer(start)
        if trailer or start == len(self._buffer):
            return padding, trailer
        # No trailer: the next message begins here, or where this one ends if it was written without padding.
        if padding and (any(self._buffer[size:start]) or (self._is_header(size) and not self._is_header(start))):
            return 0, 0
        return padding, 0

    def _trailer(self, start: int) -> int:
        """How many bytes of a trailer there are at `start`."""
        room = len(self._buffer) - start
        if room < SMALLEST:
            return 0 if any(self._buffer[start : start + 4]) else room
        kind: int
        size: int
        kind, size = unpack_from("=II", self._buffer, start)
        if self._trailers:
            return min(size, room) if size >= SMALLEST else room
        if kind != FORMAT_0:
            # Of another type: only where it fills the rest, and is no message.
            return room if size == room and size in TRAILERS and not self._is_header(start) else 0
        if size not in TRAILERS:
            if size >= HEADER and self._is_header(start):
                return 0
            return min(size, room) if SMALLEST <= size < HEADER or room < HEADER else 0
        if size < HEADER or room < HEADER:
            return min(size, room)
        # A message without any port has zeros where a trailer tells of its sender.
        nameless = not any(self._buffer[start + 8 : start + 20])
        image = memoryview(bytes(self._buffer[start : start + size]))
        return 0 if nameless and self._is_header(start) and not agrees(image) else min(size, room)

    def _is_header(self, start: int) -> bool:
        """Whether this could be a header: sizes and dispositions are possible."""
        if len(self._buffer) < start + HEADER:
            return False
        bits, size = unpack_from("=II", self._buffer, start)
        kinds = (bits & 0x1F, bits >> 8 & 0x1F, bits >> 16 & 0x1F)
        possible = all(kind == 0 or Disposition.MOVE_RECEIVE <= kind <= Disposition.MAKE_SEND_ONCE for kind in kinds)
        return HEADER <= size <= LARGEST and not bits & ~_BITS and possible
