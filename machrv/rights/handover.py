"""Rights as arguments of a `multiprocessing.Process`: kept for the new process until it unpickles them.

What is pickled is the name of a port and 16 secret bytes, which only the new process is told. It sends them to the port, and
gets the right in the answer, once. The port, and the thread that answers, are there as long as anything is kept.
"""

# What must never happen here: a right that is lost where the process could not be started, or one that is kept for a
# process that has ended. Names are bare here: the owned rights are above.

from __future__ import annotations

import os
import threading
import weakref

from machrv.constants import MACH_PORT_RIGHT_RECEIVE, Disposition
from machrv.errors import MachError, MachrvError, RightError
from machrv.kernel import current
from machrv.log import log
from machrv.message import (
    MACH_NOTIFY_SEND_ONCE,
    MACH_RCV_MSG,
    MACH_RCV_TIMED_OUT,
    MACH_SEND_MSG,
    Message,
    PortDescriptor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machrv.kernel import Kernel

#: "hand" and "over", as four characters.
_REQUEST, _ANSWER = 0x68616E64, 0x6F766572
_NONCE = 16
#: Seconds that an answer is waited for, and between two looks whether a process has ended.
_PATIENCE, _LOOK = 30.0, 1.0


class _Kept:
    """A right that is kept for a process: `popen` is multiprocessing's account of it."""

    def __init__(self, right: Any, popen: Any) -> None:
        self.right = right
        self.move: Disposition = right.move
        self.facts: dict[str, Any] = vars(popen)
        self.name: int = right._moved_away("moved away: it is an argument of a process that was started")

    def ended(self, kernel: Kernel) -> bool:
        """Whether the process was started, and has ended."""
        pid = self.facts.get("pid")
        if pid is None:
            return False
        try:
            process = kernel.open_process(pid)
        except ProcessLookupError:
            return True
        try:
            return not process.is_running()
        finally:
            process.close()

    def give_up(self, kernel: Kernel) -> None:
        if self.move == Disposition.MOVE_RECEIVE:
            kernel.mach_port_mod_refs(self.name, MACH_PORT_RIGHT_RECEIVE, -1)
        else:
            kernel.mach_port_deallocate(self.name)


class _Desk:
    """A port, and a thread that answers on it until nothing is kept any more."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.service = f"org.machrv.Handover.{os.getpid()}.{os.urandom(8).hex()}"
        self.kept: dict[bytes, _Kept] = {}
        self._port = kernel.bootstrap_check_in(self.service)
        self._thread = threading.Thread(target=self._run, name="machrv-handover", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def not_started(self, nonce: bytes) -> None:
        """The account of a process has gone. If there never was a process, the right is its owner's again."""
        with _lock:
            kept = self.kept.get(nonce)
            if kept is None or "pid" in kept.facts:
                return
            del self.kept[nonce]
        kept.right.restore(kept.name)

    def _run(self) -> None:
        while True:
            try:
                self._answer(self.kernel.mach_msg(None, MACH_RCV_MSG, None, self._port, _LOOK) or b"")
            except MachError as error:
                if error.code != MACH_RCV_TIMED_OUT:
                    log().warning("a right could not be handed to a new process: %s", error)
            with _lock:
                ended = [nonce for nonce, kept in self.kept.items() if kept.ended(self.kernel)]
                for nonce in ended:
                    self.kept.pop(nonce).give_up(self.kernel)
                if not self.kept:
                    _desks.pop(self.kernel, None)
                    break
        self.kernel.mach_port_mod_refs(self._port, MACH_PORT_RIGHT_RECEIVE, -1)

    def _answer(self, received: bytes) -> None:
        message = Message.decode(received)
        with _lock:
            known = message.id == _REQUEST and message.remote_port and not message.descriptors
            kept = self.kept.pop(message.body[:_NONCE], None) if known else None
        if kept is None:
            return self.kernel.mach_msg_destroy(received)
        answer = Message(_ANSWER, descriptors=[PortDescriptor(kept.name, kept.move)])
        try:
            encoded = answer.encode_to(message.remote_port, Disposition.MOVE_SEND_ONCE)
            self.kernel.mach_msg(encoded, MACH_SEND_MSG, None, 0, 0)
        except MachError:
            kept.give_up(self.kernel)
            self.kernel.mach_port_deallocate(message.remote_port)
            raise


_desks: dict[Kernel, _Desk] = {}
_lock = threading.RLock()


def offer(right: Any, popen: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Keep an owned right for the process that `popen` is about to start, and say how it gets it, for pickle."""
    nonce = os.urandom(_NONCE)
    with _lock:
        desk = _desks.get(right.kernel)
        new = desk is None
        if desk is None:
            desk = _Desk(right.kernel)
        desk.kept[nonce] = _Kept(right, popen)
        _desks[right.kernel] = desk
        if new:
            desk.start()
    weakref.finalize(popen, desk.not_started, nonce).atexit = False
    return redeem, (type(right), desk.service, nonce)


def redeem(kind: Callable[[int, Kernel], Any], service: str, nonce: bytes) -> Any:
    """In the new process: the right that is kept for it. Raises RightError if it is not there (any more)."""
    kernel = current()
    try:
        answer = _asked(kernel, service, nonce)
    except MachrvError as error:
        raise RightError(f"the right that this process was started with cannot be had: {error}") from error
    message = Message.decode(answer)
    if message.id == _ANSWER and message.descriptors:
        right = kind(message.descriptors[0].name, kernel)
        if right.right == MACH_PORT_RIGHT_RECEIVE:
            right._came = True
        return right
    kernel.mach_msg_destroy(answer)
    why = "was unpickled before, or is not for this process" if message.id == MACH_NOTIFY_SEND_ONCE else "did not come"
    raise RightError(f"the right that this process was started with {why}")


def _asked(kernel: Kernel, service: str, nonce: bytes) -> bytes:
    port = kernel.mach_reply_port()
    try:
        server = kernel.bootstrap_look_up(service, _PATIENCE)
        request = Message(_REQUEST, nonce, local_port=port, local_disposition=Disposition.MAKE_SEND_ONCE)
        try:
            kernel.mach_msg(request.encode_to(server, Disposition.COPY_SEND), MACH_SEND_MSG, None, 0, _PATIENCE)
        finally:
            kernel.mach_port_deallocate(server)
        return kernel.mach_msg(None, MACH_RCV_MSG, None, port, _PATIENCE) or b""
    finally:
        kernel.mach_port_mod_refs(port, MACH_PORT_RIGHT_RECEIVE, -1)


def _forget() -> None:
    """In the child of a fork: what is kept, and who answers, are the parent's."""
    global _lock
    _lock = threading.RLock()
    _desks.clear()


os.register_at_fork(after_in_child=_forget)
