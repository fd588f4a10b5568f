"""The Info.plist data of this process's bundle, which a server sends to whoever judges only what runs."""

from __future__ import annotations

import sys


def own_info_plist() -> bytes:
    """The Info.plist data of this process's bundle, XML, at most 18 KiB; b"" where there is none."""
    if sys.platform != "darwin":
        return b""
    from machrv.requirement.darwin import info_plist  # Of macOS.

    return info_plist()
