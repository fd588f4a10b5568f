"""What most children need of a reply, and no more: one with ports and nothing else, read.

What belongs here: what is done for every child. What must never happen here: a reply refused for looking otherwise than
most; `machrv.rendezvous.protocol` knows them all.

A child waits for this one message before it does anything: it is not worth taking apart what nobody will look at.
"""

from __future__ import annotations

from machrv.constants import MACH_MSGH_BITS_COMPLEX, MACHRV_REPLY_ID, Disposition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: The 32-bit words before the descriptors, of each port (its descriptor and its key), and behind: a length of 64 bits,
#: and the trailer: type, size, seqno and two words of a security token; the words of the audit token.
_HEAD, _EACH, _TAIL = 7, 4, 15
#: How many ports there can be (`machrv.rendezvous.port.MAX_PORTS`), and the size of the trailer in bytes.
_MOST, _TRAILER_SIZE = 253, 52
_TOKEN_SIZE = 32
#: no additional data, and the trailer that was asked for
_BEHIND = [0, 0, 0, _TRAILER_SIZE]
_BITS = MACH_MSGH_BITS_COMPLEX | Disposition.PORT_SEND_ONCE << 8
_ID = MACHRV_REPLY_ID
#: What of the last word of a descriptor is its disposition; the rest is the type, 0 for a port, and padding.
_DISPOSITION = 0x00FF0000


def read_reply(data: bytes) -> tuple[Mapping[int, tuple[int, int]], bytes] | None:
    """What `parse_reply(Message.decode(data))` finds, where the reply is as nearly all are: a (name, disposition) by key, and
    the audit token of who sent it, as bytes. None for whatever looks otherwise in the least; it may be a reply all the same.
    """
    count = (len(data) // 4 - _HEAD - _TAIL) // _EACH
    if not 0 < count <= _MOST or len(data) != 4 * (_HEAD + _EACH * count + _TAIL):
        return None
    words = memoryview(data).cast("I").tolist()
    bits, size, remote, _, voucher, id, descriptors = words[:_HEAD]
    if bits != _BITS or size != len(data) - _TRAILER_SIZE or remote or voucher or id != _ID or descriptors != count:
        return None
    keys_at, end = _HEAD + 3 * count, _HEAD + 4 * count
    if words[end : end + 4] != _BEHIND or not words[-3]:
        return None  # additional data, another trailer, or the kernel's own message
    names, types, keys = words[_HEAD:keys_at:3], words[_HEAD + 2 : keys_at : 3], words[keys_at:end]
    if any(words[_HEAD + 1 : keys_at : 3]) or (count > 1 and keys != sorted(set(keys))):
        return None
    dispositions = [word >> 16 for word in types if not word & ~_DISPOSITION]
    if len(dispositions) != count:
        return None
    return dict(zip(keys, zip(names, dispositions))), data[-_TOKEN_SIZE:]
