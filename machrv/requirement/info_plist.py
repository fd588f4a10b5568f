"""The Info.plist data of this process's bundle, which a server sends to whoever judges only what runs."""

from __future__ import annotations

import sys

#: It is read once: an update that is to come changes the files, not what runs.
_known: bytes | None = None


def own_info_plist() -> bytes:
    """The Info.plist data of this process's bundle, XML, at most 18 KiB; b"" where there is none."""
    global _known
    if sys.platform != "darwin":
        return b""
    if _known is None:
        from machrv.requirement.darwin import info_plist  # Of macOS.

        _known = info_plist()
    return _known
