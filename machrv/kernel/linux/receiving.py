"""Receiving: which message comes next, and waiting for it.

What belongs here: choosing and waiting. What must never happen here: looking into a packet. Methods with a leading
underscore expect the space's lock to be held unless they say otherwise.
"""

from __future__ import annotations

import select
from time import monotonic

from machrv._mach import ffi, lib

from machrv.errors import MachError
from machrv.kernel.linux import wire
from machrv.kernel.linux.incoming import Incoming, trailer_size
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, End, Port
from machrv.kernel.linux.pset import PortSet

_OPERATION = "mach_msg"
_LARGE = int(lib.MACH_RCV_LARGE)
_EAGAIN = -11
_receive = lib.machrv_receive
_receive_plain = lib.machrv_receive_plain
#: how often a server that was out of descriptors looks whether it can accept again, in seconds
_RETRY = 0.1
#: a smaller buffer is not told how large the message is (mach_msg_receive_results)
_SIZE_REPORTED = 16


class Receiving(Incoming):
    """A space that receives."""

    # -- which --------------------------------------------------------------------------------------------------------

    def _receive_message(self, name: int, size: int | None, option: int, timeout: float | None) -> bytes:
        """Receive, waiting for at most `timeout`. Takes the lock itself."""
        if size is None and not self._watched:
            # The common case, which must cost little: one sender, in this process; nothing to wait or look for.
            with self._lock:
                entry = self._entries.get(name)
                if (
                    entry is not None
                    and (port := entry.port) is not None
                    and (end := port.single) is not None
                    and (end.kind == PORT_SEND)
                ):
                    trailer = trailer_size(option)
                    length = _receive_plain(
                        end.fd, self._received, self._native, PORT_SEND, name, port.seqno, trailer, port.context
                    )
                    if length > 0:
                        port.seqno = port.seqno + 1 & 0xFFFFFFFF
                        laid_out: bytes = self._laid_out[0:length]
                        return laid_out
                    if length == 0 and (message := self._consume(port, end, size, option)) is not None:
                        return message
        return self._receive_other(name, size, option, timeout)

    def _receive_other(self, name: int, size: int | None, option: int, timeout: float | None) -> bytes:
        deadline = None if timeout is None else monotonic() + timeout if timeout > 0 else 0.0
        waited: Port | PortSet | None = None
        while True:
            with self._lock:
                if self._watched:
                    self._pump()
                entry = self._entries.get(name)
                source: Port | PortSet | None = None if entry is None else entry.port or entry.pset
                if source is None or (waited is not None and source is not waited):
                    code = lib.MACH_RCV_INVALID_NAME if waited is None else lib.MACH_RCV_PORT_CHANGED
                    raise MachError(code, _OPERATION)
                message = self._take(source, size, option)
                if message is not None:
                    return message
                if deadline == 0.0:
                    raise MachError(lib.MACH_RCV_TIMED_OUT, _OPERATION)
                waited = source
                try:
                    fds = [self._waited_on(source), self._watcher().fileno()]
                except OSError as error:
                    raise MachError(lib.KERN_RESOURCE_SHORTAGE, _OPERATION) from error
                until = monotonic() + _RETRY if source.out_of_room else None
                self._waiting += 1
                kicks = self._kicks
            if until is None or deadline is not None and deadline < until:
                until = deadline
            try:
                expired = not _wait(fds, until) and until == deadline
            finally:
                with self._lock:
                    self._noticed(kicks)
            if expired:
                deadline = 0.0

    @staticmethod
    def _waited_on(source: Port | PortSet) -> int:
        """What becomes readable with a port or set: a port's only end, as long as it is the only one."""
        if isinstance(source, Port) and source.single is not None:
            return source.single.fd
        return source.watch().fileno()

    def _take(self, source: Port | PortSet, size: int | None, option: int) -> bytes | None:
        """The next message; None if nothing waits."""
        while True:
            if isinstance(source, PortSet):
                chosen = source.next()
                if chosen is None:
                    return None
                _, end, port = chosen
            elif source.single is not None:
                end, port = source.single, source
            else:
                found = source.next_end()
                if found is None:
                    return None
                end, port = found, source
            if size is not None:
                self._check_size(port, end, size, option)
            result = _receive(end.fd, self._received)
            if result == 0:
                message = self._consume(port, end, size, option)
                if message is not None:
                    return message
            elif result == _EAGAIN:
                if not end.queued:
                    return None
                port.taken(end)
            else:
                self._drop_end(port, end)

    def _check_size(self, port: Port, end: End, size: int, option: int) -> None:
        """MACH_RCV_TOO_LARGE with MACH_RCV_LARGE leaves the message where it is."""
        if not option & _LARGE:
            return
        waiting = self._waiting_size(end)
        if waiting and waiting + trailer_size(option) > size:
            error = MachError(lib.MACH_RCV_TOO_LARGE, _OPERATION)
            if size >= _SIZE_REPORTED:
                error.size = waiting
            raise error

    @staticmethod
    def _waiting_size(end: End) -> int:
        head = ffi.new("machrv_head *")
        if lib.machrv_peek(end.fd, head) < 0:
            return 0
        if head.length and not head.header.flags & lib.MACHRV_WIRE_DESTROYED:
            return int(head.header.size)
        return 24 if end.kind == PORT_SEND_ONCE else 0

    def _drop_end(self, port: Port, end: End) -> None:
        port.drop(end)
        self._check_senders(port)

    def _consume(self, port: Port, end: End, size: int | None, option: int) -> bytes | None:
        """Make a message of what has just been received from `end`. None if it was none."""
        try:
            packet = self._read(end)
        except wire.Malformed:
            # No space of ours sends this: whoever holds the right loses it, and nobody else notices.
            self._drop_end(port, end)
            return None
        except MachError:
            port.seqno += 1
            port.taken(end)
            raise
        if packet is None:
            self._drop_end(port, end)
            return None
        seqno = port.seqno
        port.seqno = seqno + 1 & 0xFFFFFFFF
        if end.kind == PORT_SEND_ONCE:
            port.drop(end)
        elif end.queued:
            port.taken(end)
        if size is not None and packet.size + trailer_size(option) > size:
            self._destroy_packet(packet)
            if port.nsrequest is not None:
                self._check_senders(port)
            raise MachError(lib.MACH_RCV_TOO_LARGE, _OPERATION)
        message = self._finish(packet, port, seqno, option)
        if port.nsrequest is not None:
            self._check_senders(port)
        return message


def _wait(fds: list[int], deadline: float | None) -> bool:
    """Wait for one of several descriptors to become readable; False at the deadline. Signals are let in."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    if deadline is None:
        poll.poll()
        return True
    left = deadline - monotonic()
    return left > 0 and bool(poll.poll(left * 1000))
