"""The child of the live check: claims a port and a file, and says through the port how long that took."""

# What belongs here: what any child would do. What must never happen here: a word on standard error, unless something
# fails.

from __future__ import annotations

import json
import os
from time import perf_counter

_started = perf_counter()

from machrv.message import Message  # noqa: E402
from machrv.rendezvous import RendezvousClient  # noqa: E402
from machrv.rights import SendRight  # noqa: E402
from machrv.rights.files import fileport_fd  # noqa: E402


def main() -> None:
    """Claim, read, report."""
    imported = perf_counter()
    with RendezvousClient.connect() as rights:
        claimed = perf_counter()
        port = rights.take_send_right("port")
        file = rights.take_send_right("file")
    if port is None or not isinstance(file, SendRight):
        raise SystemExit("the server had nothing for this process")
    with port, file:
        fd = fileport_fd(file)
        try:
            read = os.pread(fd, 100, 0).decode("ascii", "replace")
        finally:
            os.close(fd)
        account = {"import": (imported - _started) * 1000, "claim": (claimed - imported) * 1000, "read": read}
        port.send(Message(1, json.dumps(account).encode()), 10.0)


if __name__ == "__main__":
    main()
