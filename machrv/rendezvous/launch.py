"""Start a child and register its ports in one step."""

# What must never happen here: a right that is still moving when the call fails, or a child that runs though its ports were
# refused.

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from machrv.errors import ProcessGoneError
from machrv.kernel.choice import tell
from machrv.rendezvous.inherited import descriptor_of
from machrv.rendezvous.keys import readable_key
from machrv.rendezvous.names import SERVER_FD_VARIABLE, SERVICE_NAME_VARIABLE, server_name
from machrv.rendezvous.policy import add_feature_state_to_environment
from machrv.rendezvous.port import checked_ports, destroy_ports, take_ports
from machrv.rendezvous.server import RendezvousServer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Union

    from machrv.rendezvous.port import Ports
    from machrv.requirement import Requirement

    PathLike = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]

#: Seconds that a child has between being asked to end and being made to.
GRACE = 2.0


class Child(subprocess.Popen[Any]):
    """What `launch` gives: a `subprocess.Popen` whose `with` ends the child if the body raises.

    Popen's own would wait for a child that waits for what the body was to send, and nobody would see what was raised. Where
    the body raises nothing, the `with` waits for the child, as Popen's does.
    """

    _told = False

    def poll(self) -> int | None:
        """See `subprocess.Popen.poll`."""
        return self._tell(super().poll())

    def wait(self, timeout: float | None = None) -> int:
        """See `subprocess.Popen.wait`."""
        status = super().wait(timeout)
        self._tell(status)
        return status

    def _tell(self, status: int | None) -> int | None:
        """Whoever looks on (`machrv trace`) hears of the end of a child, which may never have said anything of itself."""
        if status is not None and not self._told:
            self._told = True
            tell("exited", self.pid, status)
        return status

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the child; if `error`, ask it to end (SIGTERM), and two seconds later make it (SIGKILL)."""
        if error is not None:
            try:
                self.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self.wait(GRACE)
            finally:
                self.kill()  # Nothing happens to a process that was waited for.
                self.wait()
            if self.stdin is not None:
                with suppress(OSError):
                    self.stdin.close()  # What was not written is nobody's.
        super().__exit__(kind, error, traceback)


def launch(
    args: PathLike | Sequence[PathLike],
    ports: Ports | None = None,
    requirement: Requirement | None = None,
    *,
    server: RendezvousServer | None = None,
    nameless: bool = False,
    **popen: Any,
) -> Child:
    """Start a child with subprocess.Popen(args, **popen) and register `ports` for it, so that it cannot ask too early.

    `ports` maps keys, which are a uint32 or one to four characters, to what the child is to have: an owned right or a
    `RendezvousPort`; an open file, a socket or whatever else has a `fileno()`; a `MemoryObject`. The call takes every
    right that is to be moved: the child gets it, or it is given up when the child exits without asking, or when the
    call fails. Files, sockets and memory stay yours, and may be closed at once. `requirement` is what the child must be to
    get it. `server`: None is RendezvousServer.get_instance(). The child's environment gets MACHRV_SERVICE_NAME, so that it
    finds the server where its parent's pid does not lead there, and the validation policy. A requirement refuses nobody
    unless that is ENFORCE.

    `nameless` (Linux): no name is checked in or looked up. The child inherits a right to the server as a descriptor, beside
    `pass_fds`, whose number MACHRV_SERVER_FD tells it. For a child in another mount namespace, a chroot or a sandbox.

    The child that asks must be the process that was started: with `shell=True` that is the shell. `with launch(...) as
    child:` waits for the child at its end, and ends it if the body raises.

        with launch([sys.executable, "child.py"], {"port": inbox.make_send(), "log": open_file}) as child:
            print(inbox.receive(timeout=30).body)

    Raises what Popen raises (FileNotFoundError), KeyFormatError, RegistrationError, RightError and RendezvousError;
    UnsupportedError for `nameless` on macOS.
    """
    ports = {} if ports is None else ports
    try:
        if server is None:
            server = RendezvousServer.get_instance(nameless=nameless)
        owned = take_ports(checked_ports(ports, server.kernel), server.kernel)
    except BaseException:
        destroy_ports(ports)
        raise
    try:
        environment = dict(os.environ if popen.get("env") is None else popen["env"])
        environment[SERVICE_NAME_VARIABLE] = server.service_name or server_name(os.getpid())
        environment.pop(SERVER_FD_VARIABLE, None)
        add_feature_state_to_environment(environment)
        popen["env"] = environment
        with _inherited(server, environment, popen) if nameless else nullcontext(), server.lock:
            process = Child(args, **popen)
            tell("launched", process.pid, _words(args), list(map(readable_key, owned)))
            try:
                if requirement is not None:
                    server.set_process_requirement_for_pid(process.pid, requirement)
                server.register_ports_for_pid(process.pid, owned)
            except ProcessGoneError:
                pass  # It has exited, and something in this process has waited for it: nobody is left to ask.
            except BaseException:
                with process:  # Closes its pipes and waits for it.
                    process.kill()
                raise
        return process
    finally:
        destroy_ports(owned)  # What was registered is the server's by now: this finds nothing.


def _words(args: PathLike | Sequence[PathLike]) -> list[str]:
    """The command line."""
    return list(map(os.fsdecode, [args] if isinstance(args, (str, bytes, os.PathLike)) else args))


@contextmanager
def _inherited(server: RendezvousServer, environment: dict[str, str], popen: dict[str, Any]) -> Iterator[None]:
    """Meanwhile there is a descriptor that stands for a right to the server, which the child inherits and is told of."""
    with server.send_right() as right:
        fd, environment[SERVER_FD_VARIABLE] = descriptor_of(right)
    try:
        popen["pass_fds"] = (*popen.get("pass_fds", ()), fd)
        yield
    finally:
        os.close(fd)
