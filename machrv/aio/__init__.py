"""machrv for asyncio: receive, send, connect, launch and serve on the loop that runs.

On Linux there is no helper thread. It works on every loop that has
`add_reader`, uvloop's too.

    import asyncio, sys
    from machrv import Message, ReceiveRight, aio

    async def main():
        with ReceiveRight.allocate() as inbox:
            child = await aio.launch([sys.executable, "child.py"], {"port": inbox.make_send()})
            async for message in inbox:
                print(message.body)
                break
            await child.wait()

    asyncio.run(main())

Messages are received in the step that hands them to you, and sent in one that nothing can interrupt: whoever is
cancelled has received nothing, and has not sent. Everything here belongs to the loop's thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.aio.asking import request as request
    from machrv.aio.channels import Channel as Channel
    from machrv.aio.connecting import connect as connect, initialize as initialize
    from machrv.aio.launching import Child as Child, launch as launch
    from machrv.aio.locking import LoopLock as LoopLock
    from machrv.aio.serving import (
        DirectRendezvousServer as DirectRendezvousServer,
        RendezvousServer as RendezvousServer,
        RendezvousServerBase as RendezvousServerBase,
    )
    from machrv.rights.awaiting import (
        Messages as Messages,
        messages as messages,
        receive as receive,
        send as send,
    )

#: Where each name comes from: a child that connects does not pay for serving.
_MODULES = {
    "machrv.aio.asking": "request",
    "machrv.aio.channels": "Channel",
    "machrv.aio.connecting": "connect initialize",
    "machrv.aio.launching": "Child launch",
    "machrv.aio.locking": "LoopLock",
    "machrv.aio.serving": "DirectRendezvousServer RendezvousServer RendezvousServerBase",
    "machrv.rights.awaiting": "Messages messages receive send",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)


if not TYPE_CHECKING:  # A checker is to know what there is, and that there is nothing else.

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(__import__(_HOMES[name], fromlist=(name,)), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
