"""The death of ports: what happens to their messages, and to whoever asked about them.

What belongs here: destroying receive rights and messages, in the order in which XNU does (`osfmk/ipc/ipc_port.c` and
`ipc_kmsg.c`, xnu-7195). What must never happen here: recursion; a port may wait in another one's queue, and that in a
third's. Methods with a leading underscore expect the space's lock to be held.
"""

from __future__ import annotations

from machrv._mach import lib

from machrv.kernel.linux import wire
from machrv.kernel.linux.answers import close
from machrv.kernel.linux.held import destinations
from machrv.kernel.linux.port import Port
from machrv.kernel.linux.readiness import Readers
from machrv.kernel.linux.space import all_spaces
from machrv.kernel.linux.transit import Right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.linux.incoming import Packet


class Deaths(Readers):
    """A space whose ports can die."""

    def _furnish(self) -> None:
        super()._furnish()
        #: messages to be destroyed; None unless that is going on
        self._dying: list[Packet] | None = None

    def _collect(self, port: Port) -> list[Packet]:
        """The messages of a port, taken out of its sockets."""
        raise NotImplementedError

    def _detach_port(self, port: Port) -> None:
        """A port leaves its name: it leaves its sets, and starts to count anew (ipc_port_clear_receiver)."""
        self._kick()
        self._end_readers(port)
        for pset in list(port.sets):
            pset.remove(port)
        if port.epoll is not None:
            self._unwatch(port.epoll.fileno())
        if self._ports.get(port.id) is port:
            del self._ports[port.id]
        port.kick = port.aimed = None
        port.name = port.mscount = port.seqno = port.context = 0

    def _destroy_port(self, port: Port) -> None:
        """Destroy a receive right that has no name (any more): its messages and requests with it.

        Who asked for PORT_DESTROYED gets the right instead (ipc_port_destroy).
        """
        self._detach_port(port)
        to, port.pdrequest = port.pdrequest, None
        if to is not None:
            if self._send_port_destroyed(to, port):
                return
            self._release(to)
        port.alive = False
        destinations.pop(port.id, None)
        if port.nsrequest is not None:
            self._release(port.nsrequest)
            port.nsrequest = None
        packets = self._collect(port)
        if self._dying is None:
            self._destroy_packets(packets)
        else:
            self._dying += packets  # a port in a message that dies: its own messages come later
        if port.bootstrap is not None:
            port.bootstrap.remove()
        port.close()

    def _send_port_destroyed(self, to: Right, port: Port) -> bool:
        """Send PORT_DESTROYED with the right. False if it could only come to the port itself, or nobody can get it."""
        if self._is_circular(port.id, to.id):
            return False
        descriptor = wire.PORT.pack(1, 0, 0, wire.PORT_RECEIVE, wire.PORT_DESCRIPTOR)
        try:
            fd = self._bundle(port)
        except OSError:
            return False  # no descriptor is free for the right to travel in
        try:
            if not self._notify(to, lib.MACH_NOTIFY_PORT_DESTROYED, wire.U32.pack(1) + descriptor, (fd,), True):
                return False
        finally:
            close(fd)
        self._on_its_way(port, to.id)
        return True

    def _is_circular(self, port: bytes, destination: bytes) -> bool:
        """Whether a receive right sent to `destination` could never be received (ipc_port_check_circularity)."""
        seen = {destination}
        while destination != port:
            destination = destinations.get(destination, b"")
            if not destination or destination in seen:
                return False
            seen.add(destination)
        return True

    def _on_its_way(self, port: Port, destination: bytes) -> None:
        """A port has gone into a message: what is left here are our own descriptors of it."""
        if destination in destinations or any(destination in space._ports for space in all_spaces()):
            destinations[port.id] = destination
        else:  # to another process, which will receive what waits in it: we cannot know
            if port.bootstrap is not None:
                port.bootstrap.remove()
            for waiting in [waiting for waiting, where in destinations.items() if where == port.id]:
                destinations.pop(waiting, None)
        for request in (port.nsrequest, port.pdrequest):
            if request is not None:
                close(request.fd)
        port.nsrequest = port.pdrequest = None
        port.alive = False
        port.close()

    def _destroy_packets(self, packets: list[Packet]) -> None:
        """Destroy messages, one after the other, each right in its order (ipc_kmsg_destroy, ipc_kmsg_reap_delayed)."""
        if self._dying is not None:
            self._dying += packets
            return
        self._dying = packets
        try:
            while self._dying:
                for right in self._dying.pop(0).rights:
                    self._release(right)
        finally:
            self._dying = None
