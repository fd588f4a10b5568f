"""Notifications: who asked, when they are due, and sending them.

What belongs here: DEAD_NAME, NO_SENDERS, PORT_DESTROYED and PORT_DELETED, and the death of ports. What must never
happen here: waiting. SEND_ONCE is nowhere here: it is what the receiver makes of an end-of-file.

A notification is a packet like any other, marked as one. A receiver believes the mark only if the kernel attests that
the packet came from the receiver's own process: then it bears the kernel's token. The notification of one process's
space that ends up in another process bears the token of who sent it. Methods with a leading underscore expect the
space's lock to be held.
"""

from __future__ import annotations

import os
import select
from struct import Struct

from machrv._mach import ffi, lib

from machrv.errors import MachError
from machrv.kernel.linux import wire
from machrv.kernel.linux.copyin import KIND_OF, Taken
from machrv.kernel.linux.copyout import CopyOut
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.answers import close, hangups
from machrv.kernel.linux.port import PORT_SEND_ONCE, Port
from machrv.kernel.linux.space import DEAD, DEAD_NAME, NULL, RECEIVE, SEND, SEND_RIGHTS
from machrv.kernel.linux.transit import DEAD_RIGHT, Right

_HEADER = Struct("=6I")
_NDR = bytes((0, 0, 0, 0, 1, 0, 0, 0))  # NDR_record of a little-endian machine (mach/ndr.h)
_OPERATION = "mach_port_request_notification"


class Notifications(CopyOut):
    """A space that tells of what happens to its rights."""

    def _furnish(self) -> None:
        super()._furnish()
        #: becomes readable when something may be due for what is in `_watched`
        self._watch: select.epoll | None = None
        #: a timer: when it has run out, `_try_again` is due
        self._retry = -1
        #: how many threads wait on this space, how often they have been woken, how many have yet to notice
        self._waiting = 0
        self._kicks = 0
        self._kicked = 0
        self._kick_fd = -1

    def _try_again(self) -> None:
        raise NotImplementedError  # provided by the layer above

    # -- asking -------------------------------------------------------------------------------------------------------

    def mach_port_request_notification(
        self, name: int, notification: int, sync: int, notify: int, disposition: int
    ) -> int:
        """See `Kernel.mach_port_request_notification`."""
        with self._call:
            right = self._notify_right(notify, disposition)
            try:
                previous = self._request(name, notification, sync, right)
            except BaseException:
                if right is not None:
                    self._release(right)
                raise
            if previous is None:
                return NULL
            if previous.fd >= 0 and any(hangups([previous.fd])):
                self._release(previous)
                raise MachError(lib.KERN_INVALID_CAPABILITY, _OPERATION)  # of a dead port there is nothing to return
            return self._copyout(previous)

    def _notify_right(self, notify: int, disposition: int) -> Right | None:
        """The send-once right that a notification goes to, owned."""
        if notify == NULL:
            return None
        if notify == DEAD:
            raise MachError(lib.KERN_INVALID_CAPABILITY, _OPERATION)
        if KIND_OF.get(disposition) != PORT_SEND_ONCE:
            raise MachError(lib.KERN_INVALID_CAPABILITY, _OPERATION)
        entry = self._lookup(notify, _OPERATION)
        taken = Taken()
        try:
            right = self._copyin(entry, disposition, taken)
        except OSError as error:
            self._revoke(taken)
            raise MachError(lib.KERN_RESOURCE_SHORTAGE, _OPERATION) from error
        if right is None:
            raise MachError(lib.KERN_INVALID_RIGHT, _OPERATION)
        return self._own(right, taken)

    def _own(self, right: Right, taken: Taken) -> Right:
        """Make what was copied in final, keeping the right."""
        if right.fd in taken.leaving:
            self._unwatch_leaving(taken)
            taken.leaving.remove(right.fd)
        elif right.borrowed and right.fd >= 0:
            right.fd = lib.machrv_dup(right.fd)
        right.borrowed = False
        self._commit(taken)
        return right

    def _request(self, name: int, notification: int, sync: int, right: Right | None) -> Right | None:
        if notification == lib.MACH_NOTIFY_DEAD_NAME:
            return self._request_dead_name(name, sync != 0, right)
        if notification == lib.MACH_NOTIFY_NO_SENDERS:
            port = self._receive_right(name, _OPERATION)
            return self._request_no_senders(port, sync, right)
        if notification == lib.MACH_NOTIFY_PORT_DESTROYED:
            if sync:
                raise MachError(lib.KERN_INVALID_VALUE, _OPERATION)
            port = self._receive_right(name, _OPERATION)
            if port.pdrequest is not None:
                raise MachError(lib.KERN_FAILURE, _OPERATION)
            port.pdrequest = right
            return None
        raise MachError(lib.KERN_INVALID_VALUE, _OPERATION)

    def _request_dead_name(self, name: int, immediate: bool, right: Right | None) -> Right | None:
        if name in (NULL, DEAD):
            raise MachError(lib.KERN_INVALID_ARGUMENT, _OPERATION)
        entry = self._lookup(name, _OPERATION)
        if right is None and entry.request is None:
            return None
        if entry.type & (SEND_RIGHTS | RECEIVE) and not self._died(entry):
            previous, entry.request = entry.request, right
            self._unwatch(entry.fd)
            self._watch_entry(entry)
            return previous
        if immediate and right is not None and entry.type & DEAD_NAME:
            entry.add_urefs()
            self._notify_dead_name(right, name)
            return None
        dead_or_port = entry.type & (DEAD_NAME | SEND_RIGHTS | RECEIVE)
        raise MachError(lib.KERN_INVALID_ARGUMENT if dead_or_port else lib.KERN_INVALID_RIGHT, _OPERATION)

    def _request_no_senders(self, port: Port, sync: int, right: Right | None) -> Right | None:
        previous, port.nsrequest = port.nsrequest, None
        has_senders = self._has_senders(port)
        if right is not None and not has_senders and sync <= port.mscount:
            self._notify_no_senders(right, port.mscount)
            return previous
        port.nsrequest = right
        port.ns_since = -1 if has_senders else port.made
        if right is not None:
            self._watch_fd(port.watch().fileno(), port, select.EPOLLIN | select.EPOLLET)
        return previous

    # -- watching -----------------------------------------------------------------------------------------------------

    def _watch_fd(self, fd: int, what: Entry | Port, events: int) -> None:
        watch = self._watcher()
        try:
            watch.register(fd, events)  # a hang-up is always reported
        except FileExistsError:
            pass
        self._watched[fd] = what

    def _watcher(self) -> select.epoll:
        """What becomes readable when a notification may be due. Whoever waits on this space waits on it too."""
        if self._watch is None:
            kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                watch = select.epoll()
                watch.register(kick, select.EPOLLIN)
            except BaseException:
                os.close(kick)
                raise
            self._watch, self._kick_fd = watch, kick
        return self._watch

    def _kick(self) -> None:
        """Wake every thread that waits on this space: what it waits on may have changed."""
        if self._waiting:
            self._kicks += 1
            self._kicked = self._waiting
            os.eventfd_write(self._kick_fd, 1)

    def _noticed(self, kicks: int) -> None:
        """A thread that began to wait after `kicks` no longer does; the last that was woken makes it quiet again."""
        self._waiting -= 1
        if kicks != self._kicks:
            self._kicked -= 1
            if self._kicked == 0:
                os.eventfd_read(self._kick_fd)

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            os.close(self._kick_fd)
        self._watch, self._kick_fd = None, -1
        self._watched.clear()

    def _watch_entry(self, entry: Entry) -> None:
        if entry.request is not None and entry.fd >= 0 and not entry.is_file:
            self._watch_fd(entry.fd, entry, 0)

    def _unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None and self._watch is not None:
            try:
                self._watch.unregister(fd)
            except OSError:
                pass  # closed meanwhile, and so forgotten

    def _pump(self) -> None:
        """Send the notifications that have become due."""
        if self._watch is None or not self._watched:
            return
        for fd, _ in self._watch.poll(0):
            if fd == self._retry:
                self._try_again()
                continue
            what = self._watched.get(fd)
            if isinstance(what, Port):
                self._check_senders(what)
            elif what is not None and what.fd == fd and not self._died(what):
                self._unwatch(fd)  # a hang-up that means no death would be reported without end

    def _has_senders(self, port: Port) -> bool:
        entry = self._entries.get(port.name)
        return port.has_senders(entry is not None and entry.port is port and bool(entry.type & SEND))

    def _check_senders(self, port: Port) -> None:
        """Send NO_SENDERS if it is due."""
        if port.nsrequest is None or not port.alive or self._has_senders(port):
            return
        if port.ns_since == port.made:
            return  # no sender has been made since the request
        right, port.nsrequest = port.nsrequest, None
        if port.epoll is not None:
            self._unwatch(port.epoll.fileno())
        self._notify_no_senders(right, port.mscount)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _notify(self, to: Right, id: int, body: bytes, fds: tuple[int, ...] = (), complex: bool = False) -> bool:
        """Send a notification on an owned send-once right, and use it up. False if its port is dead."""
        if to is DEAD_RIGHT or to.fd < 0:
            return False
        bits = PORT_SEND_ONCE | (lib.MACH_MSGH_BITS_COMPLEX if complex else 0)
        message = _HEADER.pack(bits, 24 + len(body), 0, 0, 0, id) + body
        flags = lib.MACHRV_WIRE_NOTIFICATION
        result = lib.machrv_send(
            to.fd, message, len(message), bits, id, flags, self._identity.space, 0, b"", 0, fds or ffi.NULL, len(fds)
        )
        close(to.fd)
        to.fd = -1
        return bool(result == 0)

    def _notify_dead_name(self, to: Right, name: int) -> None:
        self._notify(to, lib.MACH_NOTIFY_DEAD_NAME, _NDR + wire.U32.pack(name))

    def _notify_port_deleted(self, to: Right, name: int) -> None:
        self._notify(to, lib.MACH_NOTIFY_PORT_DELETED, _NDR + wire.U32.pack(name))

    def _notify_no_senders(self, to: Right, mscount: int) -> None:
        self._notify(to, lib.MACH_NOTIFY_NO_SENDERS, _NDR + wire.U32.pack(mscount))
