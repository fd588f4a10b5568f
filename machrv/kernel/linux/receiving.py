"""Receiving: which message comes next, and waiting for it.

What belongs here: choosing and waiting. What must never happen here: looking into a packet. Methods with a leading
underscore expect the space's lock to be held unless they say otherwise.
"""

from __future__ import annotations

import select
from errno import EAGAIN, EINTR
from time import monotonic

from machrv._mach import ffi, lib

from machrv.message.audit import AuditToken
from machrv.errors import MachError, ReentryError
from machrv.kernel.linux import wire
from machrv.kernel.linux.incoming import NO_LIMIT, TRAILER_SIZES, Incoming, destroyed, trailer_size
from machrv.kernel.linux.answers import OUT_OF_ROOM, close, shortage
from machrv.kernel.linux.buffer import ID, KEYED, PORTS, Buffer
from machrv.kernel.linux.end import End
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, Port
from machrv.kernel.linux.pset import PortSet
from machrv.kernel.linux import LONGEST
from machrv.kernel.linux.sending import MAX_SIZE

_OPERATION = "mach_msg"
_LARGE = int(lib.MACH_RCV_LARGE)
_AUDIT = int(lib.MACH_RCV_TRAILER_AUDIT)
_BUSY = object()
#: how much is looked at before others get the lock
_AT_ONCE = 256
#: a header, and its trailer
_REQUEST_SIZE = 24 + 52
_receive = lib.machrv_receive
_RECEIVE_AGAIN = int(lib.MACHRV_AGAIN_RECEIVE)
_serve = lib.machrv_serve
#: how often a server that was out of descriptors looks whether it can accept again, in seconds
_RETRY = 0.1
#: a smaller buffer is not told how large the message is (mach_msg_receive_results)
_SIZE_REPORTED = 16


class Receiving(Incoming):
    """A space that receives."""

    # -- asking -------------------------------------------------------------------------------------------------------

    def _receive_answer(self, fd: int, result: int, buffer: Buffer, deadline: float) -> bytes:
        """The one message that comes to a socket, where that is not plain or not in time; owns `fd`."""
        port = self._asking
        end = End(fd, PORT_SEND_ONCE, b"")
        port.ends[fd] = end
        try:
            while True:
                with self._call:
                    port.seqno = 0
                    usual, self._buffer = self._buffer, buffer
                    try:
                        if result != 0:
                            result = _receive(fd, buffer.received)
                        if result == 0 and (message := self._consume(port, end, None, _AUDIT << 24)) is not None:
                            return message
                    finally:
                        self._buffer = usual
                if result not in (-EAGAIN, -EINTR):
                    raise MachError(lib.KERN_RESOURCE_SHORTAGE, _OPERATION)
                with shortage(_OPERATION):
                    if not _wait([fd], deadline):
                        raise MachError(lib.MACH_RCV_TIMED_OUT, _OPERATION)
        finally:
            with self._lock:
                if port.ends.get(fd) is end:  # Once it is closed, another thread's may have its number.
                    port.drop(end)

    # -- which --------------------------------------------------------------------------------------------------------

    def _receive_message(self, name: int, size: int | None, option: int, timeout: float | None) -> bytes:
        """Receive, waiting for at most `timeout`. Takes the lock itself.

        The common cases, which must cost little: one sender; or one that has looked the port up.
        """
        deadline = None if timeout is None else monotonic() + timeout if timeout > 0 else 0.0
        waited: Port | None = None
        while not self._watched and not option & _LARGE:
            with self._lock:
                if self._inside:
                    raise ReentryError(
                        "a signal handler has called mach_msg in the middle of another call: act after the call"
                    )
                self._inside = True
                try:
                    entry = self._entries.get(name)
                    port = None if entry is None else entry.port
                    if port is None or waited is not None and port is not waited:
                        break
                    end = port.single
                    if end is None:
                        if port.listener is not None and type(served := self._serve(port, size, option)) is bytes:
                            return served
                        break
                    plain = self._receive_single(port, end, size, option)
                    if type(plain) is bytes:
                        return plain
                    if plain != -EAGAIN or end.queued or self._watch is None:
                        break
                    if deadline == 0.0:
                        raise MachError(lib.MACH_RCV_TIMED_OUT, _OPERATION)
                    waited, fds = port, [end.fd, self._watch.fileno()]
                    self._waiting += 1
                    kicks = self._kicks
                finally:
                    self._inside = False
            if self._expired(fds, deadline, kicks):
                deadline = 0.0
        return self._receive_other(name, size, option, deadline, waited)

    def _receive_single(self, port: Port, end: End, size: int | None, option: int) -> bytes | int:
        """The next message of a port's only end, or why there is none (a negative errno, or 0)."""
        plain = self._receive_plain(port, end, option, NO_LIMIT if size is None else size)
        if type(plain) is bytes:
            if port.nsrequest is not None:
                self._check_senders(port)
            elif end is port.single and not (end.late or end.queued):
                self._may_again(port.native, _RECEIVE_AGAIN)
        elif plain != -EAGAIN:
            if self._open:
                self._shut()
            if plain == 0 and (other := self._consume(port, end, size, option)) is not None:
                return other
        return plain

    def _expired(self, fds: list[int], deadline: float | None, kicks: int) -> bool:
        """Wait, without the lock; whoever waits has been counted."""
        try:
            with shortage(_OPERATION):
                return not _wait(fds, deadline)
        finally:
            with self._lock:
                self._noticed(kicks)

    def _received_again(self, length: int, name: int) -> bytes | None:
        """What machrv_receive_again has received, where it brought rights, or is not plain. None: it was no message.

        Takes the lock itself. Until it is through, nobody else receives in that way.
        """
        buffer, owned = self._taken, True
        try:
            with self._lock:
                self._inside, owned = True, False
                try:
                    if self._open:
                        self._shut()
                    if length:
                        self._name_rights(buffer, buffer.received.nfds)
                        return bytes(buffer.laid_out[0 : length - 1])
                    return self._consume_again(buffer, name)
                finally:
                    self._inside = False
        finally:
            if owned:
                buffer.close()  # A signal handler has raised while another thread had the lock.
            lib.machrv_let_go(buffer.exchange)
            if self._deferred:
                self._settle()

    def _consume_again(self, buffer: Buffer, name: int) -> bytes | None:
        entry = self._entries.get(name)
        port = None if entry is None else entry.port
        if port is None or (end := port.single) is None or port.aimed is not end:
            buffer.close()  # Another thread has destroyed the port meanwhile, and its messages with it.
            return None
        usual, self._buffer = self._buffer, buffer
        try:
            return self._consume(port, end, None, _AUDIT << 24)
        finally:
            self._buffer = usual

    def _receive_other(
        self, name: int, size: int | None, option: int, deadline: float | None, waited: Port | PortSet | None
    ) -> bytes:
        """The general case. `waited`: what has been waited for already; `deadline`: 0 does not wait."""
        while True:
            with self._call:
                entry = self._entries.get(name)
                source: Port | PortSet | None = None if entry is None else entry.port or entry.pset
                if source is None or (waited is not None and source is not waited):
                    code = lib.MACH_RCV_INVALID_NAME if waited is None else lib.MACH_RCV_PORT_CHANGED
                    raise MachError(code, _OPERATION)
                message = self._take(source, size, option)
                if type(message) is bytes:
                    return message
                if deadline == 0.0 and (message is None or waited is not None):
                    raise MachError(lib.MACH_RCV_TIMED_OUT, _OPERATION)
                waited = source
                if message is _BUSY:
                    if deadline and monotonic() >= deadline:
                        deadline = 0.0
                    continue
                fds = [self._waited_on(source), self._watcher().fileno()]
                until = monotonic() + _RETRY if source.out_of_room else None
                self._waiting += 1
                kicks = self._kicks
            if until is None or deadline is not None and deadline < until:
                until = deadline
            if self._expired(fds, until, kicks) and until == deadline:
                deadline = 0.0

    @staticmethod
    def _waited_on(source: Port | PortSet) -> int:
        """What becomes readable with a port or set: a port's only end, as long as it is the only one."""
        if isinstance(source, Port) and source.single is not None:
            return source.single.fd
        return source.watch().fileno()

    def _take(self, source: Port | PortSet, size: int | None, option: int) -> bytes | object | None:
        """The next message. None: nothing waits. _BUSY: much was looked at, none of it a message."""
        for _ in range(_AT_ONCE):
            if isinstance(source, PortSet):
                chosen = source.next()
                if chosen is None:
                    return None
                end, port = chosen
            elif source.single is not None:
                end, port = source.single, source
            else:
                if source.listener is not None and type(served := self._serve(source, size, option)) is bytes:
                    return served
                for pset in source.sets:
                    pset.refresh()
                found = source.next_end()
                if found is None:
                    return None
                end, port = found, source
            if size is not None:
                self._check_size(port, end, size, option)
            limit = NO_LIMIT if size is None else size
            result = self._receive_plain(port, end, option, limit)
            if type(result) is bytes:
                if port.nsrequest is not None:
                    self._check_senders(port)
                return result
            if result == 0:
                message = self._consume(port, end, size, option)
                if message is not None:
                    return message
            elif result == -EAGAIN:
                if not end.queued:
                    return None
                port.taken(end)
            elif result in OUT_OF_ROOM:
                raise MachError(lib.KERN_RESOURCE_SHORTAGE, _OPERATION)  # the message waits until there is room for it
            else:
                self._drop_end(port, end)
        return _BUSY

    def take_request(self, name: int) -> bytes | tuple[int, int, AuditToken] | None:
        """See `Kernel.take_request`. Takes the lock itself."""
        with self._lock:
            if self._inside:
                return None  # The general case says what is the matter.
            self._inside, served = True, None
            try:
                entry = self._entries.get(name)
                if entry is not None and (port := entry.port) is not None and not self._watched:
                    served = self._serve(port, _REQUEST_SIZE, _AUDIT << 24, True)
            finally:
                self._inside = False
                if served is None:
                    lib.machrv_settle(self._buffer.exchange)  # Where machrv_serve was not called, this is to be done.
            return served

    def _serve(
        self, port: Port, size: int | None, option: int, request: bool = False
    ) -> bytes | tuple[int, int, AuditToken] | None:
        """The message of whoever has just looked the port up, if that is the oldest; None: look further.

        `request`: where it is one of a rendezvous, its reply right, id and sender.
        """
        listener, epoll = port.listener, port.epoll
        if listener is None or epoll is None or port.nsrequest is not None or option & _LARGE:
            return None
        if port.queued or port.sets or port.out_of_room:
            return None  # Something was looked at and left, or a set keeps an order of its own.
        buffer = self._buffer
        exchange, limit = buffer.exchange, NO_LIMIT if size is None else size
        # Each request is answered with what is its sender's: their order means nothing, unless one of them came otherwise.
        alone = request and not port.given and len(port._ends) == 1
        others, trailer = -1 if alone else epoll.fileno(), TRAILER_SIZES[option >> 24 & 15]
        result = _serve(exchange, port.native, listener.fd, others, port.name, trailer, port.context, limit)
        fd = exchange.fd
        if fd < 0 and result < 0:
            return None
        port.made += 1
        port.mscount = port.mscount + 1 & 0xFFFFFFFF
        end = None  # What came on a connection that is at its end has been received, and that is all there is to it.
        if fd >= 0:
            end = End(fd, PORT_SEND, listener.address)
            try:
                port.add(end)
            except OSError:
                close(fd)  # There is no room for another sender: this is all that is heard of it.
                if result <= 0:
                    if result == 0:
                        buffer.close()
                    return None
        if result <= 0:
            return self._consume(port, end, size, option) if result == 0 and end is not None else None
        if request:
            said = buffer.said_at_once.tolist()
            if said[PORTS] == 0:
                reply_right = self._table.take()
                self._fresh[reply_right] = ~said[KEYED + 1]
                return reply_right, said[ID], tuple.__new__(AuditToken, said[:ID])
        if count := buffer.received.nfds:
            self._name_rights(buffer, count)
        message: bytes = buffer.laid_out[0:result]
        return message

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
        header = head.header
        if head.length and not header.flags & lib.MACHRV_WIRE_DESTROYED:
            carried = head.length - lib.MACHRV_WIRE_HEADER + 24
            largest = MAX_SIZE if header.flags & lib.MACHRV_WIRE_LARGE else carried
            return int(header.size) if header.size <= largest else 0  # a lie is found out by receiving it
        return 24 if end.kind == PORT_SEND_ONCE else 0

    def _drop_end(self, port: Port, end: End) -> None:
        port.drop(end)
        self._check_senders(port)

    def _consume(self, port: Port, end: End, size: int | None, option: int) -> bytes | None:
        """Make a message of what has just been received from `end`. None if it was none."""
        try:
            packet = self._read(end)
        except wire.Malformed:
            # No space of ours sends this: whoever holds the right loses it, and nobody else notices. Who waits for the
            # message of a send-once right learns that it will not come.
            packet = destroyed() if end.kind == PORT_SEND_ONCE else None
        except MachError:
            port.seqno = port.seqno + 1 & 0xFFFFFFFF
            if end.kind == PORT_SEND_ONCE:
                port.drop(end)
            else:
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
            if port.nsrequest is not None:
                self._check_senders(port)
            self._destroy_packets([packet])
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
    left = (deadline - monotonic()) * 1000
    return left > 0 and (bool(poll.poll(min(left, LONGEST))) or left > LONGEST)
