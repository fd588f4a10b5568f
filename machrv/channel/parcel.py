"""What travels over a channel: data of exactly its length, and a list of things: rights, files, memory, ends of channels.

A message's body is a head (how many things, whether the data is out of line, how long it is), two numbers for each thing (what it
is, how many bytes of memory), and the data. One descriptor for each thing, and behind them one for the data where it is
long: that is handed over as memory, and copied once on either side.
"""

# Into messages and out of them. What must never happen here: a thing that is neither the sender's nor the receiver's, or a
# word of the peer's that is believed about lengths or numbers.

from __future__ import annotations

from struct import Struct

from machrv.errors import MessageFormatError, RightError
from machrv.message import Message, OutOfLineDescriptor, PortDescriptor
from machrv.rights.closing import Closing
from machrv.rights.files import fileport
from machrv.rights.kinds import ReceiveRight, SendRight
from machrv.rights.memory import MemoryObject
from machrv.rights.right import Movable, Right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Union

    from typing_extensions import Buffer

    from machrv.kernel import Kernel
    from machrv.rights.incoming import ReceivedMessage
    from machrv.rights.kinds import OwnedRight

    #: What `send` takes along: rights and ends of channels are moved, files, sockets and memory are shared.
    Thing = Any
    #: What comes of it. A file is a SendRight, for `machrv.fileport_fd`.
    Arrived = Union[OwnedRight, MemoryObject, Movable, None]

#: The ids of messages: "mrch" brings the right to send the other way, "mrcd" is data.
HELLO_ID, DATA_ID = 0x6D726368, 0x6D726364
#: Longer data than this goes out of line: where both ways cost the same.
INLINE = 64 * 1024

_HEAD = Struct("=IIQ")
_THING = Struct("=IQ")
_RIGHT, _FILE, _MEMORY, _END = range(4)


def listed(things: Iterable[Thing]) -> list[Thing]:
    """The things, each once looked at. Raises RightError for one that stands alone: some of them can be iterated over."""
    if isinstance(things, Closing) or hasattr(things, "fileno"):
        raise RightError(f"rights are a list, and {things!r} is one thing: write rights=[...]")
    return list(things)


def packed(data: Buffer, things: Iterable[Thing], kernel: Kernel) -> tuple[Message, list[Right]]:
    """The message, and the rights that were made for it: close them once it was sent, or was not."""
    image: Any = data if type(data) is bytes else _bytes_of(data)
    size = len(image)
    descriptors: list[Any] = []
    made: list[Right] = []
    table = b""
    try:
        for thing in things:
            kind, right, extent = _described(thing, kernel)
            if kind in (_FILE, _MEMORY):
                made.append(right)
            elif any(right is other for other in descriptors):
                raise RightError(f"{thing!r} is among the rights twice, and can be given away once")
            if right.kernel is not kernel:
                raise RightError(f"{thing!r} belongs to another port space than the channel: make both with one kernel")
            descriptors.append(right)
            table += _THING.pack(kind, extent)
    except BaseException:
        for right in made:
            right.close()
        raise
    count = len(descriptors)
    if size > INLINE:
        descriptors.append(OutOfLineDescriptor(image))
        image = b""
    return Message(DATA_ID, _HEAD.pack(count, size > INLINE, size) + table + image, descriptors), made


def _bytes_of(data: Buffer) -> bytes | memoryview:
    """What lies in a buffer; where it is long and in one piece, without copying it."""
    view = memoryview(data)
    return view.cast("B") if view.nbytes > INLINE and view.c_contiguous else bytes(view)


def _described(thing: Thing, kernel: Kernel) -> tuple[int, Right, int]:
    """What it is, the right that stands for it, and its size in bytes where it is memory."""
    if isinstance(thing, Right):
        return _RIGHT, thing, 0
    if isinstance(thing, MemoryObject):
        return _MEMORY, thing.right(), thing.size
    if isinstance(thing, Movable):
        return _END, thing.moving_right(), 0
    fileno = getattr(thing, "fileno", None)
    if fileno is None:
        raise RightError(
            f"{thing!r} cannot be sent: it is no right, no MemoryObject, no Channel, and has no fileno(). Data goes into "
            "the first argument"
        )
    return _FILE, fileport(fileno(), kernel), 0


def unpacked(message: ReceivedMessage, end: Callable[[ReceiveRight], Movable]) -> tuple[bytes, list[Arrived]]:
    """The data and the things in a message, which are the caller's. `end` makes an end of a channel.

    Raises MessageFormatError for what is no such message, and MemoryObjectError for memory that is not safe to map; then
    everything in it was given up.
    """
    arrived: list[Arrived] = []
    try:
        data, table = _read(message)
        for kind, size in table:
            right = message.rights.pop(0)
            arrived.append(right)
            if right is None or kind in (_RIGHT, _FILE):
                continue
            if kind == _MEMORY and isinstance(right, SendRight):
                arrived[-1] = MemoryObject.from_right(right, size)
            elif kind == _END and isinstance(right, ReceiveRight):
                arrived[-1] = end(right)
            else:
                raise MessageFormatError(f"the other end of the channel says that {right!r} is a thing of kind {kind}")
    except BaseException:
        message.close()
        for thing in filter(None, arrived):
            thing.close()
        raise
    return data, arrived


def _read(message: ReceivedMessage) -> tuple[bytes, list[tuple[int, int]]]:
    """The data, and the table of things, of a message that has as many rights as the table has lines."""
    body, descriptors = message.body, message.descriptors
    if message.id != DATA_ID or len(body) < _HEAD.size:
        raise MessageFormatError(f"what came over the channel is no message of a channel: {message!r}")
    count, out_of_line, size = _HEAD.unpack_from(body)
    start = _HEAD.size + count * _THING.size
    ports = descriptors[:-1] if out_of_line else descriptors
    if len(ports) != count or start > len(body) or not set(map(type, ports)) <= {PortDescriptor}:
        raise MessageFormatError(
            f"the other end of the channel speaks of {count} rights: {len(ports)} descriptors came"
        )
    if out_of_line:
        memory = descriptors[-1] if descriptors else None
        data = memory.data if isinstance(memory, OutOfLineDescriptor) and memory.data is not None else b""
    else:
        data = body[start : start + size]
        if len(body) - start - size > 3:
            size = -1
    if len(data) != size:
        raise MessageFormatError(f"the other end of the channel speaks of other data than came: {len(data)} bytes")
    return data, list(_THING.iter_unpack(body[_HEAD.size : start]))
