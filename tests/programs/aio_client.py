"""A child that does everything on a loop: `aio_client.py COUNT`. It claims 'port', and sends so many numbers on it."""

from __future__ import annotations

import asyncio
import sys
import threading

from machrv import Message, SendRight, aio


async def main(count: int) -> None:
    with await aio.connect() as rights:
        port = rights.take_send_right("port")
        assert isinstance(port, SendRight) and rights.port_count == 0
    with port:
        for number in range(count):
            await aio.send(port, Message(number, bytes(1000)))
    assert threading.active_count() == 1


asyncio.run(main(int(sys.argv[1])))
