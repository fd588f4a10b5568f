"""Chromium's messages, byte for byte, each written out by hand: machrv produces them exactly, and accepts them.

The layout is Chromium's base/apple/mach_port_rendezvous.cc (2025). First the messages as they are sent; then as they
arrive, where a kernel has put names of the receiver's, and what the rights have become, in place of the sender's; then
both ends of machrv against the other end of Chromium, which is a call of mach_msg with these bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack_into, unpack_from

import pytest

from machrv import (
    AuditToken,
    DirectRendezvousClient,
    Disposition,
    Message,
    PortDescriptor,
    ReceiveRight,
    RendezvousPort,
    RendezvousServerBase,
    SendRight,
)
from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel import Kernel
from machrv.rendezvous.protocol import (
    REQUEST_ID,
    REQUEST_WITH_INFO_PLIST_ID,
    parse_reply,
    parse_request,
    reply,
    request,
)

PATIENCE = 30.0
AUDIT = lib.MACH_RCV_MSG | lib.MACH_RCV_TRAILER_AUDIT << 24
COMPLEX_BIT = 0x80000000

#: What Chromium's client has room for: a reply with 5 ports and no data, and an audit trailer.
CHROMIUMS_ROOM = 132 + 52
#: The same for five, which older versions have room for.
OLDER_ROOM = 116 + 52


def golden(text: str) -> bytes:
    """Bytes in hex, a field a line, with what it is behind a #."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


REQUEST = golden("""
    11 15 00 00     # bits: remote MOVE_SEND (17), local MAKE_SEND_ONCE (21)
    18 00 00 00     # size: 24
    03 0e 00 00     # remote port: the service right
    07 15 00 00     # local port: the reply port
    00 00 00 00     # voucher port
    76 7a 72 6d     # id: 'mrzv'
""")

INFO_PLIST_REQUEST = golden("""
    11 15 00 00     # bits: remote MOVE_SEND (17), local MAKE_SEND_ONCE (21)
    18 00 00 00     # size: 24
    03 0e 00 00     # remote port: the service right
    07 15 00 00     # local port: the reply port
    00 00 00 00     # voucher port
    56 7a 72 6d     # id: 'mrzV'
""")

REPLY_0 = golden("""
    12 00 00 80     # bits: complex, remote MOVE_SEND_ONCE (18)
    24 00 00 00     # size: 36
    03 09 00 00     # remote port: the reply right
    00 00 00 00     # local port
    00 00 00 00     # voucher port
    56 5a 52 4d     # id: 'MRZV'
    00 00 00 00     # no descriptors
    00 00 00 00  00 00 00 00    # no additional data
""")

REPLY_0_WITH_DATA = golden("""
    12 00 00 80     # bits: complex, remote MOVE_SEND_ONCE (18)
    2c 00 00 00     # size: 44
    03 09 00 00     # remote port: the reply right
    00 00 00 00     # local port
    00 00 00 00     # voucher port
    56 5a 52 4d     # id: 'MRZV'
    00 00 00 00     # no descriptors
    08 00 00 00  00 00 00 00    # 8 bytes of additional data
    3c 70 6c 69 73 74 2f 3e     # <plist/>
""")

REPLY_1 = golden("""
    12 00 00 80     # bits: complex, remote MOVE_SEND_ONCE (18)
    34 00 00 00     # size: 52
    03 09 00 00     # remote port: the reply right
    00 00 00 00     # local port
    00 00 00 00     # voucher port
    56 5a 52 4d     # id: 'MRZV'
    01 00 00 00     # one descriptor
    03 10 00 00  00 00 00 00  00 00 11 00   # name 0x1003, MOVE_SEND (17), a port
    74 72 6f 70     # key: 'port'
    00 00 00 00  00 00 00 00    # no additional data
""")

REPLY_1_WITH_DATA = golden("""
    12 00 00 80     # bits: complex, remote MOVE_SEND_ONCE (18)
    38 00 00 00     # size: 56
    03 09 00 00     # remote port: the reply right
    00 00 00 00     # local port
    00 00 00 00     # voucher port
    56 5a 52 4d     # id: 'MRZV'
    01 00 00 00     # one descriptor
    03 10 00 00  00 00 00 00  00 00 11 00   # name 0x1003, MOVE_SEND (17), a port
    74 72 6f 70     # key: 'port'
    03 00 00 00  00 00 00 00    # 3 bytes of additional data
    61 62 63 00     # abc, padded
""")

REPLY_5 = golden("""
    12 00 00 80     # bits: complex, remote MOVE_SEND_ONCE (18)
    74 00 00 00     # size: 116
    03 09 00 00     # remote port: the reply right
    00 00 00 00     # local port
    00 00 00 00     # voucher port
    56 5a 52 4d     # id: 'MRZV'
    05 00 00 00     # five descriptors
    03 10 00 00  00 00 00 00  00 00 10 00   # name 0x1003, MOVE_RECEIVE (16), a port
    03 11 00 00  00 00 00 00  00 00 11 00   # name 0x1103, MOVE_SEND (17), a port
    03 12 00 00  00 00 00 00  00 00 12 00   # name 0x1203, MOVE_SEND_ONCE (18), a port
    03 13 00 00  00 00 00 00  00 00 13 00   # name 0x1303, COPY_SEND (19), a port
    03 14 00 00  00 00 00 00  00 00 14 00   # name 0x1403, MAKE_SEND (20), a port
    00 00 00 00     # key: 0
    01 00 00 00     # key: 1
    00 00 01 00     # key: 65536
    74 72 6f 70     # key: 'port'
    ff ff ff ff     # key: 2^32 - 1
    00 00 00 00  00 00 00 00    # no additional data
""")

REPLY_5_WITH_DATA = golden("""
    12 00 00 80     # bits: complex, remote MOVE_SEND_ONCE (18)
    7c 00 00 00     # size: 124
    03 09 00 00     # remote port: the reply right
    00 00 00 00     # local port
    00 00 00 00     # voucher port
    56 5a 52 4d     # id: 'MRZV'
    05 00 00 00     # five descriptors
    03 10 00 00  00 00 00 00  00 00 10 00   # name 0x1003, MOVE_RECEIVE (16), a port
    03 11 00 00  00 00 00 00  00 00 11 00   # name 0x1103, MOVE_SEND (17), a port
    03 12 00 00  00 00 00 00  00 00 12 00   # name 0x1203, MOVE_SEND_ONCE (18), a port
    03 13 00 00  00 00 00 00  00 00 13 00   # name 0x1303, COPY_SEND (19), a port
    03 14 00 00  00 00 00 00  00 00 14 00   # name 0x1403, MAKE_SEND (20), a port
    00 00 00 00     # key: 0
    01 00 00 00     # key: 1
    00 00 01 00     # key: 65536
    74 72 6f 70     # key: 'port'
    ff ff ff ff     # key: 2^32 - 1
    05 00 00 00  00 00 00 00    # 5 bytes of additional data
    70 6c 69 73 74 00 00 00     # plist, padded
""")

ONE = {0x706F7274: PortDescriptor(0x1003, Disposition.MOVE_SEND)}
FIVE = {
    0xFFFFFFFF: PortDescriptor(0x1403, Disposition.MAKE_SEND),
    0: PortDescriptor(0x1003, Disposition.MOVE_RECEIVE),
    0x706F7274: PortDescriptor(0x1303, Disposition.COPY_SEND),
    1: PortDescriptor(0x1103, Disposition.MOVE_SEND),
    65536: PortDescriptor(0x1203, Disposition.MOVE_SEND_ONCE),
}

#: Each reply with the ports and the data that are in it.
REPLIES: dict[str, tuple[bytes, dict[int, PortDescriptor], bytes]] = {
    "0 ports": (REPLY_0, {}, b""),
    "0 ports, data": (REPLY_0_WITH_DATA, {}, b"<plist/>"),
    "1 port": (REPLY_1, ONE, b""),
    "1 port, data": (REPLY_1_WITH_DATA, ONE, b"abc"),
    "5 ports": (REPLY_5, FIVE, b""),
    "5 ports, data": (REPLY_5_WITH_DATA, FIVE, b"plist"),
}

#: An audit trailer as the kernel puts it behind a message: process 4711 of user 501.
TRAILER = golden("""
    00 00 00 00  34 00 00 00  07 00 00 00       # type 0, size 52, the seventh message
    f5 01 00 00  14 00 00 00                    # security token: user 501, group 20
    ff ff ff ff  f5 01 00 00  14 00 00 00       # audit token: auid, euid, egid
    f5 01 00 00  14 00 00 00  67 12 00 00       # ruid, rgid, pid 4711
    a9 86 01 00  2a 00 00 00                    # asid, pidversion 42
""")
PEER = AuditToken(0xFFFFFFFF, 501, 20, 501, 20, 4711, 100009, 42)

RECEIVED_REQUEST = golden("""
    12 11 00 00     # bits: remote SEND_ONCE (18), local SEND (17)
    18 00 00 00     # size: 24
    0b 2c 00 00     # remote port: the right to answer with
    07 05 00 00     # local port: the service port
    00 00 00 00     # voucher port
    76 7a 72 6d     # id: 'mrzv'
""")

RECEIVED_REPLY = golden("""
    00 12 00 80     # bits: complex, local SEND_ONCE (18)
    38 00 00 00     # size: 56
    00 00 00 00     # remote port
    07 15 00 00     # local port: the reply port
    00 00 00 00     # voucher port
    56 5a 52 4d     # id: 'MRZV'
    01 00 00 00     # one descriptor
    0f 33 00 00  00 00 00 00  00 00 11 00   # name 0x330f, SEND (17), a port
    74 72 6f 70     # key: 'port'
    03 00 00 00  00 00 00 00    # 3 bytes of additional data
    61 62 63 00     # abc, padded
""")

# -- the bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bytes_", "id"),
    [(REQUEST, REQUEST_ID), (INFO_PLIST_REQUEST, REQUEST_WITH_INFO_PLIST_ID)],
    ids=["plain", "Info.plist"],
)
def test_requests_are_chromium_s(bytes_: bytes, id: int) -> None:
    """Both requests, and what they decode to encodes to the same bytes."""
    assert request(0x1507, id).encode_to(0x0E03, Disposition.MOVE_SEND) == bytes_
    assert Message.decode(bytes_).encode() == bytes_


@pytest.mark.parametrize(("bytes_", "ports", "data"), REPLIES.values(), ids=REPLIES)
def test_replies_are_chromium_s(bytes_: bytes, ports: dict[int, PortDescriptor], data: bytes) -> None:
    """Every reply, from ports in any order; and what it decodes to encodes to the same bytes."""
    assert reply(ports, data).encode_to(0x0903, Disposition.MOVE_SEND_ONCE) == bytes_
    assert Message.decode(bytes_).encode() == bytes_


#: What each right has become when it arrives: its receiver finds RECEIVE (16), SEND (17) or SEND_ONCE (18).
ARRIVED = {16: 16, 17: 17, 18: 18, 19: 17, 20: 17}


def arrived(bytes_: bytes) -> bytes:
    """A reply as its receiver gets it: the reply right has become its own port, each right what it then is."""
    image = bytearray(bytes_)
    image[:4] = bytes.fromhex("00 12 00 80")  # bits: complex, local SEND_ONCE (18)
    image[8:16] = bytes.fromhex("00 00 00 00  07 15 00 00")  # no remote port; local port: the reply port
    for offset in range(28 + 10, 28 + 12 * image[24], 12):
        image[offset] = ARRIVED[image[offset]]
    return bytes(image)


@pytest.mark.parametrize(("bytes_", "ports", "data"), REPLIES.values(), ids=REPLIES)
def test_chromium_s_replies_are_accepted(bytes_: bytes, ports: dict[int, PortDescriptor], data: bytes) -> None:
    """With a trailer of a process behind it, each is taken apart into the ports and the data that are in it."""
    expected = {key: PortDescriptor(port.name, ARRIVED[port.disposition]) for key, port in ports.items()}
    assert parse_reply(Message.decode(arrived(bytes_) + TRAILER)) == (expected, data)


def test_what_arrives_is_what_was_written_out() -> None:
    """The reply that is written out as it arrives differs from the one that was sent in the port's name only."""
    assert arrived(REPLY_1_WITH_DATA).replace(b"\x03\x10", b"\x0f\x33") == RECEIVED_REPLY


def test_a_request_as_it_arrives_is_accepted() -> None:
    """The sender is whom the trailer names; the right to answer with is the remote port."""
    message = Message.decode(RECEIVED_REQUEST + TRAILER)
    assert (parse_request(message), message.id, message.remote_port) == (PEER, REQUEST_ID, 0x2C0B)


def test_a_reply_as_it_arrives_is_accepted() -> None:
    """The port by its new name, under its key."""
    ports, data = parse_reply(Message.decode(RECEIVED_REPLY + TRAILER))
    assert ports == {0x706F7274: PortDescriptor(0x330F, Disposition.PORT_SEND)} and data == b"abc"


# -- machrv's server and Chromium's client ----------------------------------------------------------------------------


class Server(RendezvousServerBase):
    """Has these ports and this data for whoever asks."""

    def __init__(self, ports: Mapping[int, RendezvousPort], data: bytes) -> None:
        self.ports, self.data = dict(ports), data
        super().__init__()

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort]:
        ports, self.ports = self.ports, {}
        return ports

    def additional_data_for_reply(self, message_id: int) -> bytes:
        return self.data


def ask_as_chromium(kernel: Kernel, server: SendRight, reply_port: int, room: int) -> bytes:
    """One call of mach_msg: the request is sent and the reply received."""
    message = bytearray(REQUEST)
    pack_into("=II", message, 8, server.release(), reply_port)
    received = kernel.mach_msg(message, lib.MACH_SEND_MSG | AUDIT, room, reply_port, PATIENCE)
    assert received is not None
    return received


def registered(kernel: Kernel, count: int) -> tuple[list[ReceiveRight], dict[int, RendezvousPort]]:
    """So many ports and a send right to each, under ascending keys."""
    ports = [ReceiveRight.allocate(kernel=kernel) for _ in range(count)]
    return ports, {key * 3: RendezvousPort.from_right(port.make_send()) for key, port in enumerate(ports)}


@pytest.mark.parametrize("count", [0, 1, 5, 6])
@pytest.mark.parametrize("data", [b"", b"abc"], ids=["", "data"])
def test_chromium_s_client_understands_machrv_s_server(kernel: Kernel, count: int, data: bytes) -> None:
    """What arrives are Chromium's bytes, with names of the client's in them; and up to 6 ports there is room for it."""
    ports, registration = registered(kernel, count)
    with ReceiveRight(kernel.mach_reply_port()) as reply_port, Server(registration, data) as server:
        room = CHROMIUMS_ROOM + (len(data) + 3 & ~3)
        received = bytearray(ask_as_chromium(kernel, server.send_right(), reply_port.name, room))
        size = 28 + 16 * count + 8 + (len(data) + 3 & ~3)
        bits, msgh_size, remote, local, voucher, id, n = unpack_from("=6II", received)
        assert bits | COMPLEX_BIT == COMPLEX_BIT | Disposition.PORT_SEND_ONCE << 8 and bool(bits & COMPLEX_BIT) >= (
            n > 0
        )
        assert (msgh_size, remote, local, voucher, id, n) == (size, 0, reply_port.name, 0, 0x4D525A56, count)
        for index, port in enumerate(ports):
            name, pad, how = unpack_from("=3I", received, 28 + 12 * index)
            # The client is the same task here, so that the right comes home under the port's own name.
            assert (name, pad, how) == (port.name, 0, Disposition.PORT_SEND << 16)
            assert unpack_from("=I", received, 28 + 12 * count + 4 * index) == (index * 3,)
            SendRight(name).close()
            port.close()
        assert received[28 + 16 * count : size] == len(data).to_bytes(8, "little") + data + bytes(-len(data) % 4)
        assert unpack_from("=2I", received, size) == (0, 52) and len(received) == size + 52


@pytest.mark.parametrize(("most", "room"), [(lib.MACHRV_CHROMIUM_MAX_PORTS, CHROMIUMS_ROOM), (5, OLDER_ROOM)])
def test_one_port_more_than_chromium_s_client_takes(kernel: Kernel, most: int, room: int) -> None:
    """The reply is larger than its buffer: the kernel destroys it, and nothing that was in it is left."""
    assert len(REPLY_5) + 52 == OLDER_ROOM == CHROMIUMS_ROOM - 16
    ports, registration = registered(kernel, most + 1)
    with ReceiveRight(kernel.mach_reply_port()) as reply_port, Server(registration, b"") as server:
        with pytest.raises(MachError, match="MACH_RCV_TOO_LARGE"):
            ask_as_chromium(kernel, server.send_right(), reply_port.name, room)
        for port in ports:
            status = kernel.mach_port_get_attributes(port.name, lib.MACH_PORT_RECEIVE_STATUS)
            assert not isinstance(status, int) and not status.srights
            port.close()


# -- machrv's client and Chromium's server ----------------------------------------------------------------------------


@pytest.mark.parametrize(("bytes_", "ports", "data"), REPLIES.values(), ids=REPLIES)
def test_machrv_s_client_understands_chromium_s_server(
    kernel: Kernel, bytes_: bytes, ports: dict[int, PortDescriptor], data: bytes
) -> None:
    """The request arrives as Chromium's, and each of its replies brings the rights that were put into it."""
    import threading

    service = ReceiveRight.allocate()
    rights: dict[int, ReceiveRight] = {}
    image = bytearray(bytes_)
    for index, key in enumerate(sorted(ports)):
        how = Disposition(ports[key].disposition)
        right = ReceiveRight.allocate()
        name = right.name
        if how in (Disposition.MOVE_SEND, Disposition.COPY_SEND):
            name = right.make_send().release()
        elif how == Disposition.MOVE_SEND_ONCE:
            name = right.make_send_once().release()
        elif how == Disposition.MOVE_RECEIVE:
            right.release()
        pack_into("=I", image, 28 + 12 * index, name)
        rights[key] = right
    seen: list[bytes] = []

    def serve() -> None:
        received = kernel.mach_msg(None, AUDIT, 24 + 52, service.name, PATIENCE)
        assert received is not None
        seen.append(received)
        pack_into("=I", image, 8, unpack_from("=I", received, 8)[0])
        kernel.mach_msg(bytes(image), lib.MACH_SEND_MSG, timeout=PATIENCE)

    thread = threading.Thread(target=serve)
    thread.start()
    with DirectRendezvousClient.initialize(service.make_send(), timeout=PATIENCE) as client:
        thread.join()
        bits, size, _, local, voucher, id = unpack_from("=6I", seen[0])
        assert (bits, size, local, voucher, id) == (0x1112, 24, service.name, 0, 0x6D727A76)
        assert client.port_count == len(ports)
        for key, right in rights.items():
            if ports[key].disposition == Disposition.MOVE_RECEIVE:
                taken = client.take_receive_right(key)
                assert taken is not None
                taken.close()
                continue
            sent = client.take_send_right(key)
            assert sent is not None
            sent.send(Message(key & 0x7FFFFFFF))
            assert right.receive(PATIENCE).id == key & 0x7FFFFFFF
            sent.close()
            if ports[key].disposition == Disposition.COPY_SEND:
                SendRight(right.name).close()  # What was copied is still the server's.
            right.close()
    service.close()
