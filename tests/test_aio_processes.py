"""Connecting, launching and serving on an event loop, with real children."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    AuditToken,
    LockNotHeldError,
    Message,
    ProcessRequirement,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousError,
    RendezvousPort,
    RendezvousServer,
    RendezvousTimeout,
    ServerNotFoundError,
    aio,
    current,
    four_char_code,
    launch,
)
from machrv.rendezvous.protocol import REQUEST_ID

from .conftest import PATIENCE, SLACK, Program
from .loops import Run, no_senders, run, turns, warm_uvloop  # noqa: F401 (fixtures)

GOOD = four_char_code("good")
PIPE = asyncio.subprocess.PIPE

# -- launching --------------------------------------------------------------------------------------------------------


def test_parent_and_child_on_loops(run: Run[None], program: Program) -> None:
    """The child connects and sends with back-pressure, the parent launches, serves and iterates: no thread anywhere."""

    async def main() -> None:
        with ReceiveRight.allocate() as inbox:
            child = await aio.launch(program("aio_client", 1000), {"port": inbox.make_send()})
            got = []
            async for message in inbox:
                assert message.audit_token is not None and message.audit_token.pid == child.pid
                got.append(message.id)
                if len(got) == 1000:
                    break
            assert got == list(range(1000))
            assert await child.wait() == 0 == child.returncode
            await no_senders(inbox)

    run(main())


def test_an_asyncio_process(run: Run[None], tmp_path: Path) -> None:
    """Its streams, its exit status and its limits are those of asyncio.create_subprocess_exec."""

    async def main() -> None:
        code = "import os, sys; print(sys.stdin.read(), os.getcwd(), os.environ['WORD']); sys.stderr.write('e'); sys.exit(3)"
        child = await aio.launch(
            [sys.executable, "-S", "-c", code],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=tmp_path,
            env={**os.environ, "WORD": "w"},
        )
        assert isinstance(child, asyncio.subprocess.Process) and child.returncode is None
        assert await child.communicate(b"in") == (f"in {tmp_path} w\n".encode(), b"e")
        assert await child.wait() == 3
        child = await aio.launch("read line; echo $line; kill -9 $$", shell=True, stdin=PIPE, stdout=PIPE, limit=8)
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"123456789012\n")
        child.stdin.close()
        with pytest.raises(ValueError):
            await child.stdout.readline()  # longer than the limit
        assert await child.wait() == -signal.SIGKILL
        child = await aio.launch(Path("/bin/cat"), stdin=PIPE)
        child.kill()
        assert await child.wait() == -signal.SIGKILL

    run(main())


def test_many_children_at_once(run: Run[None], program: Program) -> None:
    """Each gets its own right."""

    async def one(number: int) -> None:
        with ReceiveRight.allocate() as port:
            child = await aio.launch(program("client", "take_send_right"), {"port": port.make_send()})
            message = await aio.receive(port, PATIENCE)
            assert message.id == GOOD and message.audit_token is not None and message.audit_token.pid == child.pid
            assert await child.wait() == 0

    async def main() -> None:
        await asyncio.gather(*map(one, range(8)))

    run(main())


@pytest.mark.parametrize("fault", ["no program", "no such key", "text", "bufsize", "a right that is spent"])
def test_a_launch_that_fails_gives_the_rights_up(run: Run[None], fault: str) -> None:
    """What it raises is what `machrv.launch` raises; nothing is left running."""

    async def main() -> None:
        with ReceiveRight.allocate() as port:
            command, ports, popen = [sys.executable, "-c", ""], {"port": port.make_send()}, {}
            expected: type[Exception] = ValueError
            if fault == "no program":
                command, expected = ["/does/not/exist"], FileNotFoundError
            elif fault == "no such key":
                ports = {"too long": ports["port"]}
            elif fault == "text":
                popen = {"text": True}
            elif fault == "bufsize":
                popen = {"bufsize": -1}
            else:
                spent = port.make_send()
                spent.close()
                ports["dead"] = spent
                expected = Exception
            with pytest.raises(expected):
                await aio.launch(command, ports, **popen)  # type: ignore[arg-type]
            await no_senders(port)

    run(main())


def test_a_child_that_leaves_without_asking(run: Run[None], program: Program) -> None:
    """Its registration ends with it; somebody else in this process may have waited for it."""

    async def main() -> None:
        async with aio.RendezvousServer() as server:
            with ReceiveRight.allocate() as port:
                child = await aio.launch(program("client", "exit_42"), {"port": port.make_send()}, server=server)
                assert await child.wait() == 42
                await no_senders(port)
                assert server.registration_count == 0
            child = await aio.launch([sys.executable, "-S", "-c", "input()"], server=server, stdin=subprocess.PIPE)
            os.kill(child.pid, signal.SIGKILL)  # The loop does not go round before the next line.
            os.waitid(os.P_PID, child.pid, os.WEXITED)
            await child.wait()

    run(main())


# -- serving ----------------------------------------------------------------------------------------------------------


def test_a_claim_waits_while_a_task_holds_the_lock(run: Run[None], program: Program) -> None:
    """The child is started by other means, and asks before its ports are there: it gets them all the same."""

    async def main() -> None:
        async with aio.RendezvousServer() as server:
            with ReceiveRight.allocate() as port:
                async with server.lock:
                    child = subprocess.Popen(program("client", "take_send_right"))
                    early = asyncio.ensure_future(aio.connect(server.service_name))  # of this process
                    await asyncio.sleep(0.1)
                    assert not early.done()
                    server.register_ports_for_pid(child.pid, {"port": port.make_send()})
                assert (await aio.receive(port, PATIENCE)).id == GOOD
                with await early as nothing:
                    assert nothing.port_count == 0
                assert child.wait(PATIENCE) == 0

    run(main())


def test_the_lock(run: Run[None]) -> None:
    """Held by a task; others wait in turn; taken twice, or not held where it must be, is an error."""

    async def main() -> None:
        order: list[int] = []
        async with aio.RendezvousServer() as server:
            lock = server.lock

            async def hold(number: int) -> None:
                async with lock:
                    order.append(number)
                    await turns(2)
                    assert lock.held()

            async with lock:
                tasks = [asyncio.ensure_future(hold(number)) for number in range(4)]
                await turns(2)
                tasks[1].cancel()
                with pytest.raises(RuntimeError, match="already"):
                    lock.acquire()
                with pytest.raises(RuntimeError, match="already"):
                    await lock.free()
            await turns(1)
            assert lock.locked() and not lock.held() and not lock.acquire(blocking=False)
            with pytest.raises(RuntimeError, match="another task"):
                lock.acquire()
            await asyncio.wait(tasks)
            assert order == [0, 2, 3] and not lock.locked()
            with pytest.raises(LockNotHeldError):
                server.register_ports_for_pid(os.getpid(), {})
            with pytest.raises(LockNotHeldError):
                lock.release()
            with lock:
                server.register_ports_for_pid(os.getpid(), {})

    run(main())


def test_requirements_and_strangers(run: Run[None], program: Program) -> None:
    """A child that does not meet its requirement, and one that nothing is registered for, get nothing."""

    async def main() -> None:
        async with aio.RendezvousServer() as server:
            with ReceiveRight.allocate() as port, ENFORCE_PEER_REQUIREMENTS.override(True):
                refused = await aio.launch(
                    program("client", "no_ports"),
                    {"port": port.make_send()},
                    ProcessRequirement.never_matches_for_testing(),
                    server=server,
                )
                assert await refused.wait() == 0
                await no_senders(port)
            stranger = await aio.launch(program("client", "no_ports"), server=server)
            assert await stranger.wait() == 0

    run(main())


def test_hooks_run_on_the_loop(run: Run[None], caplog: pytest.LogCaptureFixture) -> None:
    """One that fails is logged, its client is refused, and the server goes on."""

    class Server(aio.RendezvousServerBase):
        loops: list[object] = []
        ports: dict[int, RendezvousPort] = {}

        def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort] | None:
            self.loops.append(asyncio.get_running_loop())
            if len(self.loops) == 1:
                raise ZeroDivisionError
            return self.ports

    async def main() -> None:
        with ReceiveRight.allocate() as port:
            async with Server() as server:
                server.ports = {1: RendezvousPort.from_right(port.make_send())}
                with await aio.initialize(server.send_right()) as refused:
                    assert refused.port_count == 0 and refused.server_audit_token is None
                with await aio.initialize(server.send_right()) as rights:
                    assert rights.port_count == 1
            assert Server.loops == [asyncio.get_running_loop()] * 2
            async with aio.DirectRendezvousServer({"port": port.make_send()}) as direct:
                with await aio.initialize(direct.send_right()) as first:
                    assert first.port_count == 1
                with await aio.initialize(direct.send_right()) as second:
                    assert second.port_count == 0
            await no_senders(port)

    Server.loops.clear()
    run(main())
    assert "ZeroDivisionError" in caplog.text


def test_a_failure_that_lasts_does_not_spin(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The port is left alone for a while, which doubles; other things on the loop go on."""
    calls = 0

    async def main() -> None:
        async with aio.DirectRendezvousServer({}) as server:

            def fail() -> None:
                nonlocal calls
                calls += 1
                raise OSError("no descriptor")

            source = server._dispatcher
            source._ports[server._port.name].callback = fail  # type: ignore[attr-defined]
            with server.send_right() as right:
                right.send(Message(1))
                await asyncio.sleep(0.2)
        assert 2 <= calls < 10

    asyncio.run(main())


def test_the_end_of_the_loop_closes_servers(program: Program) -> None:
    """asyncio.run() leaves no name, no descriptor and no registration, whoever forgot to close what."""
    names = []

    async def main() -> None:
        server = aio.RendezvousServer.get_instance()
        assert aio.RendezvousServer.get_instance() is server
        names.append(server.service_name)
        with server.lock:
            server.register_ports_for_pid(os.getpid(), {"port": port.make_send()})
        forgotten = aio.DirectRendezvousServer({"port": port.make_send()})
        asyncio.get_running_loop().forgotten = forgotten  # type: ignore[attr-defined]

    with ReceiveRight.allocate() as port:
        for _ in range(2):
            asyncio.run(main())
            with pytest.raises(ServerNotFoundError):
                asyncio.run(aio.connect(names[0])).close()
        assert port.kernel.mach_port_get_refs(port.name, 0) == 0
        gc.collect()


def test_the_servers_of_a_process(program: Program) -> None:
    """A name can be checked in once: where a threaded server is there, launching uses it; two loops cannot both have it."""

    async def main() -> None:
        child = await aio.launch(program("client", "no_ports"))
        assert await child.wait() == 0

    with RendezvousServer.get_instance() as server:

        async def threaded() -> None:
            assert aio.RendezvousServer.get_instance() is server
            await main()

        asyncio.run(threaded())

    async def outer() -> None:
        await main()
        with pytest.raises(RendezvousError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, main())

    asyncio.run(outer())

    async def from_a_task() -> int:
        async with aio.RendezvousServer() as server:
            with launch(program("client", "no_ports"), server=server) as child:
                return await asyncio.to_thread(child.wait)

    assert asyncio.run(from_a_task()) == 0


# -- connecting -------------------------------------------------------------------------------------------------------


def test_failures_of_a_rendezvous(run: Run[None], program: Program) -> None:
    """Nobody there; a server that does not answer: the errors of `RendezvousClient.connect`, and the loop goes on."""

    async def main() -> None:
        with pytest.raises(ServerNotFoundError):
            await aio.connect("org.machrv.nobody")
        name = f"org.machrv.mute.{os.getpid()}"
        mute = await aio.launch(program("mute_server", name), stdin=PIPE, stdout=PIPE)
        assert mute.stdin is not None and mute.stdout is not None
        assert await mute.stdout.readline() == b"ready\n"
        began = asyncio.get_running_loop().time()
        with pytest.raises(RendezvousTimeout):
            await aio.connect(name, timeout=0.05)
        assert asyncio.get_running_loop().time() - began < SLACK
        assert await mute.stdout.readline() == b"asked\n"
        waiting = asyncio.ensure_future(aio.connect(name, timeout=PATIENCE))
        await turns(3)
        mute.kill()
        await mute.wait()
        with await waiting as nothing:  # The reply right died with the server: a refusal.
            assert nothing.port_count == 0

    run(main())


def test_a_server_that_is_too_busy_to_be_looked_up(run: Run[None]) -> None:
    """Its backlog is full: the loop goes on, and once there is room the rendezvous comes about, or its time is over."""

    async def main() -> None:
        kernel = current()
        name = f"org.machrv.busy.{os.getpid()}"
        with ReceiveRight(kernel.bootstrap_check_in(name)) as port:
            waiting = []
            while True:
                try:
                    waiting.append(kernel.bootstrap_look_up(name, 0))
                except Exception:
                    break
            with pytest.raises(RendezvousTimeout):
                await aio.connect(name, timeout=0.05)
            connecting = asyncio.ensure_future(aio.connect(name, timeout=PATIENCE))
            await turns(10)
            for right in waiting:
                kernel.mach_port_deallocate(right)
            with pytest.raises(ReceiveTimeout):
                port.receive(timeout=0, wait_for_senders=True)
            message = await aio.receive(port, PATIENCE, wait_for_senders=True)
            assert message.id == REQUEST_ID
            message.close()
            with await connecting as nothing:
                assert nothing.port_count == 0

    run(main())
