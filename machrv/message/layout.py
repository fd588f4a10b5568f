"""The layouts of include/machrv/message.h, as `struct` formats and as fields of tuples.

The codec's values are tuples that hold a C struct's members in the order in which they lie in memory, so that the
distance between an object and its bytes is one call of `struct`. `field` gives a member its name.
"""

# What belongs here: reading a layout off the compiled module. What must never happen here: an offset, a size or a
# format that somebody typed: the C declaration is the only place where a layout is written down.

from __future__ import annotations

from _operator import itemgetter

from machrv._mach import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (4, True): "i", (8, False): "Q"}

#: The formats of what messages are made of, which the build has read off the header: a child has no time to ask CFFI for
#: every member.
_words = ffi.string(lib.machrv_layouts).decode().split()
_layouts = dict(zip(_words[::2], _words[1::2]))


def field(index: int, doc: str) -> Any:
    """An attribute that reads the item at `index` of a tuple."""
    return property(itemgetter(index), doc=doc)


def members(struct: str) -> list[tuple[int, str, str]]:
    """The members of a C struct in the order of their offsets: (offset, name, format), arrays and structs flattened."""
    found = []
    for name, member in ffi.typeof(struct).fields:
        found.append((member.offset, name, _format(member.type)))
    prefix = f"machrv_bits_{struct}_"
    for constant in dir(lib):
        if constant.startswith(prefix):
            # The constant is the struct with only this bit-field all ones: where its bytes lie, the field lies.
            image = bytes(ffi.buffer(ffi.addressof(getattr(lib, constant))))
            offset = image.index(b"\xff")
            width = image.count(b"\xff")
            found.append((offset, constant[len(prefix) :], _CODES.get((width, False), f"{width}s")))
    return sorted(found)


def offset_of(struct: str, member: str) -> int:
    """Where a member of a C struct begins, in bytes."""
    return next(offset for offset, name, _ in members(struct) if name == member)


def layout(struct: str) -> str:
    """The `struct` format of a C struct, without a byte order; its size is the C struct's."""
    return _layouts.get(struct) or "".join(code for _, _, code in members(struct))


def _format(ctype: Any) -> str:
    if ctype.kind == "array":
        return str(ctype.length) + _format(ctype.item)
    if ctype.kind == "struct":
        return "".join(_format(member.type) for _, member in ctype.fields)
    signed = ctype.kind == "primitive" and int(ffi.cast(ctype, -1)) < 0
    return _CODES[ffi.sizeof(ctype), signed]
