"""The processes of a case: a server with one of every right to give away, a client that claims and uses them.

What belongs here: what each does, and what it finds left over afterwards. What must never happen here: a decision about
whether that is right. Both are forks of the process that plays the cases, told what to do over a socket; between "go" and
the report nothing happens but the claim, so that each system call in between is one of its.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from machrv import (
    Disposition,
    MachrvError,
    Message,
    NoSenders,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousClient,
    RendezvousServer,
    SendOnceRight,
    SendRight,
    fileport,
    fileport_fd,
    four_char_code,
)
from machrv.kernel import current
from machrv.message import MACH_NOTIFY_DEAD_NAME, MACH_NOTIFY_SEND_ONCE

from ..linux_tasks import descriptors

Report = dict[str, Any]

GOOD = four_char_code("good")
#: seconds in which a client has to have an answer, and a right to be given up; a case that takes longer has failed
CLAIM_TIMEOUT = 4.0
PATIENCE = 6.0
_PR_SET_PTRACER = 0x59616D61


def warm_up() -> None:
    """Import what a claim imports, once for all actors: an import that fails is Python's to report."""
    with RendezvousServer.get_instance() as instance, ReceiveRight.allocate() as port:
        with instance.lock:
            instance.register_ports_for_pid(os.getpid(), {"send": port.make_send()})
        with RendezvousClient.connect(instance.service_name) as rights, open(os.devnull) as file:
            with fileport(file.fileno()) as right:
                os.close(fileport_fd(right))
            assert rights.port_count == 1


class Actor:
    """A forked process that does what it is told."""

    def __init__(self, role: Callable[[socket.socket], None]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._socket.close()
                signal.alarm(120)  # Whatever happens to the one that plays.
                ctypes.CDLL(None).prctl(_PR_SET_PTRACER, -1, 0, 0, 0)  # Yama: a sibling may trace this process.
                role(theirs)
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(70)
        theirs.close()

    def tell(self, **what: Any) -> None:
        """Send a command."""
        try:
            self._socket.send(json.dumps(what).encode())
        except OSError:
            pass  # It has died: the answer will say so.

    def answer(self, timeout: float = 2 * PATIENCE) -> Report | None:
        """The report on the last command; None if the process died. TimeoutError if it hangs."""
        self._socket.settimeout(timeout)
        try:
            found = self._socket.recv(65536)
        except ConnectionError:
            return None
        return json.loads(found) if found else None

    def ask(self, **what: Any) -> Report | None:
        """`tell` and `answer`."""
        self.tell(**what)
        return self.answer()

    def end(self) -> int:
        """Kill it if it still runs, and wait for it: its exit status."""
        os.kill(self.pid, signal.SIGKILL)
        self._socket.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait(self) -> int:
        """Let it end by itself."""
        self._socket.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


# -- the client -------------------------------------------------------------------------------------------------------


def client(commands: socket.socket) -> None:
    """Claim once, use what came, say how it went and what is left."""
    before = descriptors()
    logged = _Log()
    commands.send(b"{}")
    command = commands.recv(65536)
    told = json.loads(command)
    report: Report = {"outcome": _claim(told["service"])}
    commands.send(json.dumps(report).encode())  # Here the window of the faults ends.
    commands.recv(65536)
    gc.collect()
    kernel = current()
    report["left"] = [hex(name) for name, _ in kernel.mach_port_names()]
    kernel.close()  # type: ignore[attr-defined]
    more = descriptors() - before
    report["left"] += [f"{more} descriptors"] if more else []
    report["log"] = logged.take()
    commands.send(json.dumps(report).encode())


def _claim(service: str) -> str:
    try:
        with RendezvousClient.connect(service, CLAIM_TIMEOUT) as rights:
            if rights.port_count != 4:
                return f"{rights.port_count} ports"
            return _use(rights)
    except MachrvError as error:
        return f"{type(error).__name__}"
    except Exception as error:
        return f"untyped {type(error).__name__}: {error}"


def _use(rights: RendezvousClient) -> str:
    """Do with each right what it is for."""
    send, once, file = (rights.take_send_right(key) for key in ("send", "once", "file"))
    receive = rights.take_receive_right("recv")
    assert isinstance(send, SendRight) and isinstance(once, SendOnceRight) and file is not None and receive is not None
    with send, once, file, receive:
        try:
            send.send(Message(GOOD), timeout=CLAIM_TIMEOUT)
            once.send(Message(GOOD), timeout=CLAIM_TIMEOUT)
            receive.receive(CLAIM_TIMEOUT)
            fd = fileport_fd(file)
        except MachrvError as error:
            return f"claimed, then {type(error).__name__}"
    try:
        os.write(fd, b"good")
    except OSError:
        return "claimed, then OSError of its own"
    finally:
        os.close(fd)
    return "claimed"


# -- the server -------------------------------------------------------------------------------------------------------


def server(commands: socket.socket) -> None:
    """A process with a rendezvous server, that registers rights and says afterwards what has become of them."""
    kernel = current()
    kernel.event_queue().close()
    logged = _Log()
    gc.collect()
    with RendezvousServer.get_instance() as instance:
        thread = next(thread for thread in threading.enumerate() if thread.name == "machrv-dispatch")
        about = {"service": instance.service_name, "thread": thread.native_id}
        _quiesce(instance)
        idle = _left_over()
        commands.send(json.dumps(about).encode())
        rights = _Rights()
        while command := commands.recv(65536):
            told = json.loads(command)
            report: Report = {}
            if told["do"] == "prepare":
                rights = _Rights()
                rights.make()
            elif told["do"] == "register":
                report["registered"] = rights.register(instance, told["pid"])
            elif told["do"] == "quit":
                return
            elif told["do"] == "settle":
                report["rights"] = rights.settle()
                _quiesce(instance)
                report["registrations"] = instance.registration_count
                gc.collect()
                report["left"] = [f"{count} {what}" for what, count in _difference(idle, _left_over()).items()]
                report["log"] = logged.take()
            commands.send(json.dumps(report).encode())


def _quiesce(instance: RendezvousServer) -> None:
    """Wait until every request that was sent before has been handled."""
    with ReceiveRight.allocate() as answers, instance.send_right() as right:
        right.send(Message(0, local_port=answers.name, local_disposition=Disposition.MAKE_SEND_ONCE))
        answers.receive(PATIENCE)


def _left_over() -> dict[str, int]:
    return {"descriptors": descriptors(), "names": len(current().mach_port_names())}


def _difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {what: after[what] - before[what] for what in before if after[what] != before[what]}


class _Rights:
    """One of each kind, with something at the other end that tells when it is given up."""

    def make(self) -> None:
        self.inbox = ReceiveRight.allocate(16)
        self.answers = ReceiveRight.allocate(16)
        moved = ReceiveRight.allocate(16)
        self.back = moved.make_send()
        self.back.send(Message(GOOD))
        self.pipe, write = os.pipe()
        file = fileport(write)
        os.close(write)
        self.given = {
            "send": self.inbox.make_send(),
            "once": self.answers.make_send_once(),
            "recv": moved,
            "file": file,
        }

    def register(self, instance: RendezvousServer, pid: int) -> str:
        """Register for `pid`. On failure the rights must be ours still: give them up."""
        try:
            with instance.lock:
                instance.register_ports_for_pid(pid, self.given)
        except Exception as error:
            lost = [key for key, right in self.given.items() if right.closed]
            for right in self.given.values():
                right.close()
            typed = "" if isinstance(error, (MachrvError, MemoryError)) else "untyped "
            return f"{typed}{type(error).__name__}" + (f", lost {lost}" if lost else "")
        kept = [key for key, right in self.given.items() if not right.closed]
        return "yes" if not kept else f"yes, but {kept} were not taken"

    def settle(self) -> list[str]:
        """Wait until everything was given up. What was not, and what was given up in a strange way."""
        wrong = [problem for problem in (self._sent(), self._once(), self._moved(), self._file()) if problem]
        self.inbox.close()
        self.answers.close()
        return wrong

    def _sent(self) -> str:
        ids = []
        try:
            while True:
                found = self.inbox.receive(PATIENCE).id
                if found != MACH_NOTIFY_SEND_ONCE:  # What could not be told: the next receive asks again.
                    ids.append(found)
        except NoSenders:
            pass
        except ReceiveTimeout:
            return "the send right was not given up"
        return "" if ids in ([], [GOOD]) else f"over the send right came {ids}"

    def _once(self) -> str:
        try:
            first = self.answers.receive(PATIENCE).id
        except ReceiveTimeout:
            return "the send-once right was not given up"
        try:
            return f"the send-once right brought {first} and {self.answers.receive(0).id}"
        except ReceiveTimeout:
            return "" if first in (GOOD, MACH_NOTIFY_SEND_ONCE) else f"the send-once right brought {first}"

    def _moved(self) -> str:
        kernel = self.back.kernel
        with ReceiveRight.allocate() as tells:
            kernel.mach_port_request_notification(
                self.back.name, MACH_NOTIFY_DEAD_NAME, 1, tells.name, Disposition.MAKE_SEND_ONCE
            )
            try:
                tells.receive(PATIENCE)  # DEAD_NAME; SEND_ONCE if that could not be sent.
                return ""
            except ReceiveTimeout:
                return "the receive right was not given up"
            finally:
                kernel.mach_port_destroy(self.back.release())

    def _file(self) -> str:
        try:
            content = b""
            while select.select([self.pipe], [], [], PATIENCE)[0]:
                if not (more := os.read(self.pipe, 100)):
                    return "" if content in (b"", b"good") else f"the file has {content!r}"
                content += more
            return "the file was not given up"
        finally:
            os.close(self.pipe)


class _Log(logging.Handler):
    """What was logged since the last look, one line each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        logging.getLogger("machrv").addHandler(self)
        logging.getLogger("machrv").propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._lines.append(record.getMessage() + (f" ({type(error).__name__}: {error})" if error else ""))

    def take(self) -> list[str]:
        """The lines, and forget them."""
        lines, self._lines = self._lines, []
        return lines
