"""Rights coming out of a message and under names, by the rules of XNU's `ipc_object.c` and `ipc_right.c` (xnu-7195).

What belongs here: giving an arrived right its name, merging it with what the space has of the same port, and taking
moved receive rights apart and together again. What must never happen here: believing a claim that is not checked. A
socket claims a port by the address of its other end; two claims are one port only if the same process made both
sockets, and a right has come home only if its other end is provably ours. Methods with a leading underscore expect the
space's lock to be held.
"""

from __future__ import annotations

from machrv._mach import ffi, lib

from machrv.errors import MachError
from machrv.kernel.linux import wire
from machrv.kernel.linux.bootstrap import arrived_with
from machrv.kernel.linux.copyin import PORT_RECEIVE, CopyIn
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.answers import OUT_OF_ROOM, check, close
from machrv.kernel.linux.end import LISTENER, End
from machrv.kernel.linux.held import destinations
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, Port
from machrv.kernel.linux.space import DEAD, NULL, RECEIVE, SEND, SEND_ONCE
from machrv.kernel.linux.transit import Right, describe, id_of, made_by, own_address, peer_address

_SEQPACKET, _UNIX = 5, 1


class CopyOut(CopyIn):
    """A space that rights can be put into."""

    # -- sockets that arrived -----------------------------------------------------------------------------------------

    def _kick(self) -> None:
        raise NotImplementedError

    def _arrived(self, fd: int, kind: int, is_file: bool, own: bool) -> Right:
        """A right from a descriptor that a peer sent, or this process itself (`own`); owns `fd`. Malformed (with fd
        closed) if it cannot be one."""
        if is_file:
            if kind == PORT_SEND:
                return Right(PORT_SEND, fd, is_file=True)
            close(fd)
            raise wire.Malformed("a file as a right that is not a send right")
        if kind == PORT_RECEIVE:
            return Right(PORT_RECEIVE, port=self._unbundle(fd, own))
        peer = describe(fd)
        if (
            peer is None
            or peer.type != _SEQPACKET
            or peer.family not in (0, _UNIX)
            or (peer.family == 0 and not peer.hangup)
        ):
            close(fd)
            raise wire.Malformed("not a socket of the right kind")
        if peer.hangup:
            close(fd)
            return Right(kind)  # to a port that has died
        return Right(kind, fd, id=id_of(peer.address))

    # -- names --------------------------------------------------------------------------------------------------------

    def _holder(self, right: Right) -> Entry | None:
        """The name that the space has for the port of an arrived send or receive right already."""
        if right.port is not None:
            for entry in self._by_id.get(right.port.id, ()):
                peer = describe(entry.fd)
                if peer is not None and not peer.hangup and self._is_other_end(entry.fd, peer.address, right.port):
                    return entry
            return None
        return self._same_port(right) if right.kind == PORT_SEND and not right.is_file else None

    def _copyout(self, right: Right, name: int = NULL) -> int:
        """Put a right under a name (under `name`, where given) and return that; the space owns the right now."""
        if right.fd < 0 and right.port is None:
            return DEAD
        if self._fresh:
            self._enter()
        entry = self._holder(right)
        if entry is None:
            entry = self._table.allocate() if name == NULL else self._table.allocate_name(name)
        elif right.port is None:
            close(right.fd)
            entry.type |= SEND
            entry.add_urefs()
            return entry.name
        if right.port is not None:
            self._forget_id(entry)
            entry.type |= RECEIVE
            entry.port, right.port.name, right.port.kick = right.port, entry.name, self._kick
            self._ports[right.port.id] = right.port
        else:
            entry.type = SEND if right.kind == PORT_SEND else SEND_ONCE
            entry.urefs, entry.fd, entry.id, entry.is_file = 1, right.fd, right.id, right.is_file
            self._remember_id(entry)
        return entry.name

    def _same_port(self, right: Right) -> Entry | None:
        """The entry for the port of an arrived send right, if the space has one already."""
        if not right.id:
            return None
        port = self._ports.get(right.id)
        if port is not None:
            peer = describe(right.fd)
            if peer is not None and self._is_other_end(right.fd, peer.address, port):
                return self._entries[port.name]
        for entry in self._by_id.get(right.id, ()):
            if entry.creator is None:
                entry.creator = made_by(entry.fd)
            if entry.creator is not None and entry.creator == made_by(right.fd):
                return entry
        return None

    def _come_home(self, fd: int, id: bytes) -> Entry | None:
        """The entry of the port `id`, if `fd` is a send right to it, with one reference more; the descriptor is spent."""
        port = self._ports[id]
        if not self._is_other_end(fd, peer_address(fd), port):
            return None
        entry = self._entries[port.name]
        entry.type |= SEND
        entry.add_urefs()
        return entry

    def _is_other_end(self, fd: int, address: bytes, port: Port) -> bool:
        """Whether the other end of a send right's socket is among the ends of `port`.

        While it lives, an abstract address is bound to one socket of its network namespace: if one of our ends is
        bound to the address of the other end, in the same namespace, it is that very end. The address of a looked-up
        right is a path; there, and before Linux 5.14, the right must have been made by this process.
        """
        end = next((end for end in port.ends.values() if end.bound_to() == address), None)
        if end is None:
            return False
        cookie = lib.machrv_netns(fd) if address[:1] == b"\0" else 0
        if cookie:
            return bool(cookie == lib.machrv_netns(end.fd))
        maker = made_by(fd)
        return maker is not None and maker[0] == self._identity.pid

    # -- moved receive rights -----------------------------------------------------------------------------------------

    def _bundle(self, port: Port) -> int:
        """A descriptor that holds a port: its ends, its requests. The port keeps its own descriptors."""
        port.accept_pending()
        ends = list(port.ends.values())
        flags = (wire.HAS_NSREQUEST if port.nsrequest else 0) | (wire.HAS_PDREQUEST if port.pdrequest else 0)
        if port.ns_since != port.made:
            flags |= wire.NS_DUE
        fds = [right.fd for right in (port.nsrequest, port.pdrequest) if right is not None]
        packets = wire.bundle_packets(flags, port.qlimit, port.id, [end.kind for end in ends])
        pair = ffi.new("int[2]")
        check(lib.machrv_bundle(pair))
        try:
            for number, packet in enumerate(packets):
                fds += [end.fd for end in ends[number * wire.PER_PACKET : (number + 1) * wire.PER_PACKET]]
                check(lib.machrv_send_raw(pair[0], packet, len(packet), fds, len(fds)))
                fds = []
        except OSError:
            close(pair[1])
            raise
        finally:
            close(pair[0])
        return int(pair[1])

    def _unbundle(self, fd: int, own: bool) -> Port:
        """The port that a descriptor from a peer holds. Owns `fd`."""
        arrived: list[int] = []
        try:
            head = wire.parse_bundle_head(self._bundle_packet(fd, arrived))
            destinations.pop(head.id, None)
            wanted = [flag for flag in (wire.HAS_NSREQUEST, wire.HAS_PDREQUEST) if head.flags & flag]
            kinds = head.kinds
            while len(kinds) < head.ends:
                kinds += self._bundle_packet(fd, arrived)
            if len(kinds) != head.ends or len(arrived) != len(kinds) + len(wanted):
                raise wire.Malformed("a bundle whose ends do not add up")
            # One that claims the id of a port that is here is another port, whatever it says.
            port = Port(None if head.id in self._ports else head.id)
            port.qlimit = head.qlimit
            port.ns_since = -1 if head.flags & wire.NS_DUE else 0
            try:
                port.nsrequest = self._adopt_request(arrived) if head.flags & wire.HAS_NSREQUEST else None
                port.pdrequest = self._adopt_request(arrived) if head.flags & wire.HAS_PDREQUEST else None
                for kind in kinds:
                    self._adopt_end(port, arrived.pop(0), kind, own)
            except BaseException:
                self._discard(port)
                raise
            return port
        finally:
            for one in arrived:
                close(one)
            close(fd)

    def _bundle_packet(self, fd: int, arrived: list[int]) -> bytes:
        packet = ffi.new("machrv_received *")
        result = lib.machrv_receive_raw(fd, packet)
        if result == 0:
            arrived.extend(packet.fds[0 : packet.nfds])
        shortage = result in OUT_OF_ROOM or result == 0 and packet.cut == 2
        if not shortage and (result < 0 or packet.length == 0 or packet.cut):
            raise wire.Malformed("a bundle that ends early")
        if shortage:
            raise MachError(lib.MACH_RCV_BODY_ERROR | lib.MACH_MSG_IPC_KERNEL, "mach_msg")
        return bytes(ffi.buffer(packet.body, packet.length))

    @staticmethod
    def _adopt_request(arrived: list[int]) -> Right:
        """Where a notification goes. That its port may have died already shows when it is due."""
        peer = describe(arrived[0])
        if peer is None or peer.type != _SEQPACKET or peer.family != _UNIX and not peer.hangup:
            raise wire.Malformed("a request that goes nowhere")
        return Right(PORT_SEND_ONCE, arrived.pop(0), id=id_of(peer.address))

    def _adopt_end(self, port: Port, fd: int, kind: int, own: bool) -> None:
        peer = describe(fd)
        if kind not in (PORT_SEND, PORT_SEND_ONCE, LISTENER) or peer is None or peer.type != _SEQPACKET:
            close(fd)
            raise wire.Malformed("an end that is no end")
        if kind == LISTENER and not own:
            # Whoever else has it could make accept() wait for ever: a bootstrap name does not move to another process.
            close(fd)
            return
        try:
            # Whoever held it before may have switched off what makes the kernel attest messages.
            check(lib.machrv_attest(fd, 1))
            address = own_address(fd)
            port.add(End(fd, kind, address))
            if kind == LISTENER:
                port.bootstrap = arrived_with(address)
        except OSError as error:
            close(fd)
            raise MachError(lib.MACH_RCV_BODY_ERROR | lib.MACH_MSG_IPC_KERNEL, "mach_msg") from error

    def _discard(self, port: Port) -> None:
        """Close a port that never had a name here, with its requests."""
        for request in (port.nsrequest, port.pdrequest):
            if request is not None:
                close(request.fd)
        port.nsrequest = port.pdrequest = None
        port.close()
