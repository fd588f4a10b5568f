"""The same on an event loop."""

from __future__ import annotations

import asyncio

from typing_extensions import assert_type

from machrv import (
    DirectRendezvousClient,
    Message,
    PortSet,
    ReceivedMessage,
    ReceiveRight,
    RendezvousClient,
    Requirement,
    SendOnceRight,
    SendRight,
    aio,
)


async def receiving(port: ReceiveRight, ports: PortSet) -> None:
    """One message, or one after the other; a descriptor, for any loop."""
    assert_type(await aio.receive(port), ReceivedMessage)
    assert_type(await aio.receive(ports, timeout=1.0), ReceivedMessage)
    async for message in port:
        assert_type(message, ReceivedMessage)
    async for message in ports:
        assert_type(message, ReceivedMessage)
    async for message in aio.messages(port):
        assert_type(message, ReceivedMessage)
    assert_type(aio.messages(ports), aio.Messages)
    assert_type(port.fileno() + ports.fileno(), int)


async def sending(right: SendRight, once: SendOnceRight, message: Message) -> None:
    """A send waits for room without keeping the loop."""
    await aio.send(right, message)
    await aio.send(once, message, timeout=1.0)


async def rendezvous(port: ReceiveRight, requirement: Requirement, right: SendRight) -> None:
    """Launched, served and claimed on the loop."""
    child = await aio.launch(["child"], {"port": port.make_send()}, requirement, limit=1024)
    assert_type(child, aio.Child)
    process: asyncio.subprocess.Process = child
    assert_type(process.pid, int)
    assert_type(await child.wait(), int)
    async with aio.RendezvousServer() as server:
        assert_type(server, aio.RendezvousServer)
        async with server.lock as lock:
            assert_type(lock, aio.LoopLock)
        assert_type(server.lock.locked(), bool)
        await server.lock.free()
        server.lock.when_free(lambda: None)
        await aio.launch("child", server=server)
    async with aio.DirectRendezvousServer({"port": port}) as direct:
        base: aio.RendezvousServerBase = direct
        print(base)
    assert_type(await aio.connect(), RendezvousClient)
    assert_type(await aio.connect("org.example", timeout=5.0), RendezvousClient)
    assert_type(await aio.initialize(right, timeout=5.0), DirectRendezvousClient)
