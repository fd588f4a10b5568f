"""Launching on the loop: `machrv.launch`, with asyncio's process around it."""

# What must never happen here: an await between the child's start and its registration, or a thread that waits for its exit
# (as asyncio's own watcher before Python 3.12).

from __future__ import annotations

import asyncio
import os
from asyncio.base_subprocess import BaseSubprocessTransport
from asyncio.subprocess import Process, SubprocessStreamProtocol

from machrv.aio.locking import LoopLock
from machrv.aio.serving import RendezvousServer
from machrv.rendezvous.launch import GRACE, launch as launch_now
from machrv.rendezvous.port import destroy_ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from machrv.kernel import Process as Pinned
    from machrv.rendezvous.launch import PathLike
    from machrv.rendezvous.port import Ports
    from machrv.rendezvous.server import RendezvousServer as AnyServer
    from machrv.requirement import Requirement

#: What asyncio's streams cannot do: they carry bytes, unbuffered.
_TEXT = ("text", "universal_newlines", "encoding", "errors")


async def launch(
    args: PathLike | Sequence[PathLike],
    ports: Ports | None = None,
    requirement: Requirement | None = None,
    *,
    server: AnyServer | None = None,
    nameless: bool = False,
    limit: int = 2**16,
    **popen: Any,
) -> Child:
    """As `machrv.launch`, but for an asyncio.subprocess.Process: its wait() and streams are the loop's.

    `stdin=asyncio.subprocess.PIPE` and so on, `limit` and everything else as for asyncio.create_subprocess_exec;
    `server`: None is RendezvousServer.get_instance() of this module. The child is started and registered in one step,
    before anybody else on the loop runs. Raises as `machrv.launch`, and ValueError for text mode, a buffer or pipes
    that asyncio does not have.

    Whatever it raises, every right that was to be moved is given up. Cancelled before the child was started, there is no
    child; after that it is killed and waited for, and its registration ends, as when it exits by itself.

        async with await aio.launch([sys.executable, "child.py"], {"port": inbox.make_send()}, stdout=PIPE) as child:
            print(await child.stdout.read())

    At its end the `async with` waits for the child; if its body raises, or is cancelled, it ends the child.
    """
    ports = {} if ports is None else ports
    loop = asyncio.get_running_loop()
    try:
        for name in _TEXT:
            if popen.get(name):
                raise ValueError(f"{name} is not supported: the streams of an asyncio process carry bytes")
        if popen.pop("bufsize", 0) != 0:
            raise ValueError("bufsize must be 0: the streams of an asyncio process have their own buffers")
        if server is None:
            server = RendezvousServer.get_instance(nameless=nameless)
        if isinstance(server.lock, LoopLock):
            await server.lock.free()
        protocol = SubprocessStreamProtocol(limit=limit, loop=loop)
        connected = loop.create_future()
        command: Any = os.fspath(args) if isinstance(args, os.PathLike) else args
        shell = bool(popen.pop("shell", False))
        stdin, stdout, stderr = (popen.pop(name, None) for name in ("stdin", "stdout", "stderr"))
        rest: dict[str, Any] = {
            "ports": ports,
            "requirement": requirement,
            "server": server,
            "nameless": nameless,
            **popen,
        }
        transport = _Transport(loop, protocol, command, shell, stdin, stdout, stderr, 0, connected, None, **rest)
    except BaseException:
        destroy_ports(ports)
        raise
    try:
        await connected
    except BaseException:
        transport.close()  # Kills the child.
        await transport.exited
        raise
    return Child(transport, protocol, loop)


class Child(Process):
    """What `launch` gives: an `asyncio.subprocess.Process`, and an `async with` that ends the child if its body raises."""

    _transport: _Transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the child; if `error`, ask it to end (SIGTERM), and two seconds later make it (SIGKILL)."""
        exited = self._transport.exited
        try:
            for descriptor in (1, 2, 0):  # As Popen's: nobody reads any more, and the child sees the end of its input.
                pipe: Any = self._transport.get_pipe_transport(descriptor)
                if pipe is not None:
                    pipe.close()
            if error is None:
                await asyncio.shield(exited)
            elif not exited.done():
                self.terminate()
                await asyncio.wait([exited], timeout=GRACE)
        finally:
            if not exited.done():
                self.kill()
                await asyncio.shield(exited)


class _Transport(BaseSubprocessTransport):
    """asyncio's transport of a child that is started and watched as machrv does."""

    _loop: AbstractEventLoop
    _proc: subprocess.Popen[bytes]
    _pinned: Pinned | None = None
    exited: Future[None]

    def _start(self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **rest: Any) -> None:
        self.exited = self._loop.create_future()
        process = launch_now(args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **rest)
        self._proc = process
        try:
            self._pinned = rest["server"].kernel.open_process(process.pid)
            self._loop.add_reader(self._pinned.fileno(), self._look)
        except ProcessLookupError:
            self._loop.call_soon(self._look)  # Something in this process has waited for it already.
        except BaseException:
            if self._pinned is not None:
                self._pinned.close()
            with process:  # Closes its pipes and waits for it.
                process.kill()
            raise

    def _look(self) -> None:
        """The process may have exited."""
        if self._pinned is not None:
            if self._pinned.is_running():
                return
            self._loop.remove_reader(self._pinned.fileno())
            self._pinned.close()
        code = self._proc.poll()
        self.exited.set_result(None)
        self._process_exited(255 if code is None else code)
