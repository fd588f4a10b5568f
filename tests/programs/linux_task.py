"""Tasks that do what they are told: calls of a kernel as pickles on one pipe, answers on another.

Switches turn newer kernel features off before anything is made: passpidfd, pidfs, pidfd_info, netns_cookie, pidfd_of_gone.
"""

from __future__ import annotations

import array
import fcntl
import os
import pickle
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `tests.sockets`

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel import current
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message
from machrv.rights.transfer import receive_message, send_message
from tests.sockets import socket_of, sockets_of

SWITCHES = {
    "passpidfd": lib.MACHRV_WITHOUT_PASSPIDFD,
    "pidfs": lib.MACHRV_WITHOUT_PIDFS,
    "pidfd_info": lib.MACHRV_WITHOUT_PIDFD_INFO,
    "netns_cookie": lib.MACHRV_WITHOUT_NETNS_COOKIE,
    "pidfd_of_gone": lib.MACHRV_WITHOUT_PIDFD_OF_GONE,
}


class Served:
    """The calls that are not the kernel's own."""

    def __init__(self) -> None:
        kernel = current()
        assert isinstance(kernel, LinuxKernel)
        self.kernel = kernel  # the first task: number 0 in tokens
        self.kernel.event_queue().close()
        self.hoard: list[int] = []
        self.threads: list[threading.Thread] = []

    def state(self) -> dict[str, Any]:
        """What the task owns, once what it has given up is closed."""
        names = self.kernel.mach_port_names()
        lib.machrv_settle(10_000)  # What peers sent is closed by a thread of the library's.
        return {"names": names, "descriptors": len(os.listdir("/proc/self/fd")) - 1}

    def send_message(self, *args: Any) -> None:
        send_message(self.kernel, *args)

    def receive_message(self, *args: Any) -> Any:
        return receive_message(self.kernel, *args)

    def token(self) -> tuple[int, ...]:
        return tuple(self.kernel.audit_token())

    def limit(self, descriptors: int) -> None:
        """No more descriptors than this from now on."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def exhaust(self, but: int = 0) -> None:
        """Take every free descriptor but so many, once those that were given up are free."""
        lib.machrv_settle(5000)
        try:
            while True:
                self.hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            self.free(but)

    def free(self, count: int | None = None) -> None:
        """Give some of them back."""
        for _ in range(len(self.hoard) if count is None else count):
            os.close(self.hoard.pop())

    def flood(self, to: int, count: int, body: bytes = b"") -> int:
        """Send so many plain messages; their ids count up. How many went without waiting for room."""
        for number in range(count):
            message = Message(number, body, remote_port=to, remote_disposition=Disposition.COPY_SEND)
            try:
                self.kernel.mach_msg(message.encode(), lib.MACH_SEND_MSG, timeout=0)
            except MachError as error:
                assert error.code == lib.MACH_SEND_TIMED_OUT
                return number
        return count

    # -- a hostile peer ---------------------------------------------------------------------------------------------------

    def raw(self, to: int, *packets: tuple[bytes, list[Any]]) -> list[int]:
        """Write packets by hand over the socket of a right; the errno of each, 0 where it went."""
        return self.write(socket_of(self.kernel, to), packets)

    def write(self, fd: int, packets: Any) -> list[int]:
        results = []
        with socket.socket(fileno=os.dup(fd)) as right:
            right.setblocking(False)
            for data, things in packets:
                fds = [self.thing(*thing) for thing in things]
                try:
                    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                    right.sendmsg([data], control)
                    results.append(0)
                except OSError as error:
                    results.append(error.errno or -1)
                for one in fds:
                    os.close(one)
        return results

    def thing(self, kind: str, *args: Any) -> int:
        """A descriptor of some kind; the caller closes it. What must live on behind it is kept in the hoard."""
        if kind == "file":
            return os.open("/dev/null", os.O_RDONLY)
        if kind == "pipe":
            read, write = os.pipe()
            self.hoard.append(write)
            return read
        if kind == "memory":
            contents, size, seals = args
            fd = os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.write(fd, contents)
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return fd
        if kind == "epoll":
            epoll = select.epoll()
            fd = os.dup(epoll.fileno())
            epoll.close()
            return fd
        if kind == "eventfd":
            return os.eventfd(7)
        if kind == "pidfd":
            return os.pidfd_open(os.getpid())
        if kind == "directory":
            return os.open("/", os.O_RDONLY)
        if kind == "socket":  # connected to nothing
            return socket.socket(*args).detach()
        if kind == "listener":
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind("")
            listener.listen()
            return listener.detach()
        if kind == "pair":  # one end of a pair; the other lives on, with what is written here waiting for `fd`
            ours, theirs = socket.socketpair(socket.AF_UNIX, args[0] if args else socket.SOCK_SEQPACKET)
            if args[1:]:
                self.write(theirs.fileno(), args[1])
            self.hoard.append(theirs.detach())
            return ours.detach()
        if kind == "orphan":  # one end of a pair whose other end is gone, with what was written to it
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.write(theirs.fileno(), args[0] if args else [])
            theirs.close()
            return ours.detach()
        if kind == "right":
            return os.dup(socket_of(self.kernel, args[0]))
        if kind == "hoard":
            return os.dup(self.hoard[args[0]])
        raise ValueError(kind)

    def blocking(self, index: int, on: bool) -> None:
        """Whether a descriptor in the hoard blocks, for all who share it."""
        os.set_blocking(self.hoard[index], on)

    def seconds_of_cpu(self) -> float:
        return time.process_time()

    def run(self, source: str, **values: Any) -> Any:
        """Run a piece of program with `kernel` and `served` at hand; what it leaves in `result` is the answer."""
        scope: dict[str, Any] = {"kernel": self.kernel, "served": self, "lib": lib, "os": os, "result": None, **values}
        scope.update(socket_of=socket_of, sockets_of=sockets_of)
        exec(source, scope)
        return scope["result"]


def serve(requests: int, answers: int) -> None:
    """Do what is asked, until nobody asks any more."""
    served = Served()
    with os.fdopen(requests, "rb") as source, os.fdopen(answers, "wb") as sink:
        while True:
            try:
                method, args, kwargs = pickle.load(source)
            except EOFError:
                return
            answer: tuple[str, Any]
            try:
                target = served if hasattr(served, method) else served.kernel
                answer = ("value", getattr(target, method)(*args, **kwargs))
            except MachError as error:
                answer = ("MachError", (error.code, error.operation, error.size))
            except BaseException:
                answer = ("error", traceback.format_exc())
            pickle.dump(answer, sink)
            sink.flush()


def main() -> None:
    """Fork a task for each request on the socket that is the argument: a bootstrap directory, switches, two descriptors."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for them
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        while True:
            word, fds, _, _ = socket.recv_fds(orders, 65536, 2)
            if not word:
                return
            pid = os.fork()
            if pid == 0:
                orders.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.environ["MACHRV_BOOTSTRAP_DIR"], switches = pickle.loads(word)
                lib.machrv_without(sum(SWITCHES[word] for word in switches))
                serve(*fds)
                os._exit(0)
            for fd in fds:
                os.close(fd)
            orders.send(str(pid).encode())


if __name__ == "__main__":
    main()
