"""Event loops on macOS: a kqueue as a descriptor, and sending without one. Over the stand-in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from machrv import MachError, Message, PortSet, ReceiveRight, ReceiveTimeout, SendTimeout, UnsupportedError, aio
from machrv._mach import lib
from tests.standin.fixtures import PATIENCE, mac
from tests.standin.kernel import StandInKernel

from .watching import comes, readable

__all__ = ["mac"]


def test_readable_as_long_as_a_message_waits(mac: StandInKernel) -> None:
    """A port's descriptor, and that of a set with members from before and after."""
    with ReceiveRight.allocate(kernel=mac) as port, PortSet.allocate(kernel=mac) as ports:
        assert not readable(port) and not readable(ports)
        ports.insert(port)
        with port.make_send() as right:
            for number in range(2):
                right.send(Message(number))
            for number in range(2):
                assert comes(port) and comes(ports)
                assert (ports if number else port).receive(timeout=0).id == number
            assert not readable(port) and not readable(ports)


def test_only_of_what_can_be_received_from(mac: StandInKernel) -> None:
    """Nothing is left of the descriptor either."""
    with ReceiveRight.allocate(kernel=mac) as port, port.make_send_once() as once:
        with pytest.raises(MachError) as caught:
            mac.readiness(once.name)
        assert caught.value.code == lib.KERN_INVALID_RIGHT
        with pytest.raises(MachError):
            mac.readiness(0x123456)
        readiness = mac.readiness(port.name)
        readiness.close()
        readiness.close()
        assert readiness.fileno() == -1
        with pytest.raises(UnsupportedError):
            mac.room(once.name)


def test_receiving_on_a_loop(mac: StandInKernel) -> None:
    """Waiting, async for, and a right that is closed meanwhile."""

    async def main() -> None:
        with ReceiveRight.allocate(kernel=mac) as port, port.make_send() as right:
            waiting = asyncio.ensure_future(aio.receive(port))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            for number in range(3):
                right.send(Message(number))
            assert (await waiting).id == 0
            async for message in port:
                if message.id == 2:
                    break
            with pytest.raises(ReceiveTimeout):
                await aio.receive(port, 0.01)
            asyncio.get_running_loop().call_later(0.01, port.close)
            async for message in port:
                raise AssertionError("there is none")

    asyncio.run(main())


def test_back_pressure_without_a_descriptor(mac: StandInKernel) -> None:
    """Tried again after pauses that grow: the message goes once there is room, and the loop is not kept busy."""

    async def main() -> None:
        with ReceiveRight.allocate(kernel=mac) as port, port.make_send() as right:
            count = 0
            while True:
                try:
                    right.send(Message(0, bytes(4096)), timeout=0)
                    count += 1
                except SendTimeout:
                    break
            began = time.process_time()
            with pytest.raises(SendTimeout):
                await aio.send(right, Message(1), timeout=0.2)
            assert time.process_time() - began < 0.1
            with ReceiveRight.allocate(kernel=mac) as travels:
                sending = asyncio.ensure_future(aio.send(right, Message(2, descriptors=[travels])))
                await asyncio.sleep(0.01)
                assert not sending.done() and not travels.closed
                for _ in range(count):
                    port.receive(timeout=0)
                await asyncio.wait_for(sending, PATIENCE)
                assert travels.closed
            with await aio.receive(port, PATIENCE) as message:
                assert message.id == 2

    asyncio.run(main())


def test_the_exit_of_a_process(mac: StandInKernel) -> None:
    """What launching waits for."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
            with mac.open_process(child.pid) as process:
                exited = loop.create_future()
                loop.add_reader(process.fileno(), lambda: exited.done() or exited.set_result(None))
                assert child.stdin is not None
                child.stdin.write(b"\n")
                child.stdin.flush()
                await asyncio.wait_for(exited, PATIENCE)
                loop.remove_reader(process.fileno())
                assert not process.is_running()

    asyncio.run(main())
