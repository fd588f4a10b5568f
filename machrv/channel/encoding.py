"""Objects as bytes, by an encoding that the caller names."""

# What must never happen here: bytes of a peer's that are unpickled because of anything but the receiver's own word.

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, Union

    class Codec(Protocol):
        """An encoding: `dumps(object)` gives text or bytes, of which `loads` makes the object again."""

        def dumps(self, obj: Any, /) -> str | bytes: ...

        def loads(self, data: Any, /) -> Any: ...

    #: "json", "pickle", or anything that has `dumps` and `loads`.
    Encoding = Union[str, Codec]


def codec(encoding: Encoding) -> Codec:
    """What encodes and decodes. Raises ValueError for a name that stands for nothing."""
    if not isinstance(encoding, str):
        return encoding
    if encoding == "json":
        import json

        return json
    if encoding == "pickle":
        import pickle

        return pickle
    raise ValueError(f"no encoding is called {encoding!r}: use 'json', 'pickle', or an object with dumps() and loads()")


def encoded(thing: object, encoding: Encoding) -> bytes:
    """The bytes of an object. Raises what the encoding raises."""
    data = codec(encoding).dumps(thing)
    return data.encode() if isinstance(data, str) else data


def decoded(data: bytes, encoding: Encoding) -> Any:
    """The object of these bytes. Raises what the encoding raises."""
    return codec(encoding).loads(data)
