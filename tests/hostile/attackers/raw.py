"""What an attacker needs: the in-flight form by hand, sockets, and nothing of machrv.

What belongs here: bytes and descriptors, and the talk with the stage over standard input and output. An attacker is a program of
its own: `python ATTACKER.py WHAT SERVICE ARGUMENT...`.
"""

import array
import os
import resource
import socket
import struct
import sys

HEADER = struct.Struct("=IIHHIiIq")  # bits, size, flags, space, reply slot, id, magic, sent
MAGIC = 0x6D727678
LARGE = 2
COMPLEX = 0x80000000
FILE = 0x40000000
RECEIVE, SEND, ONCE = 16, 17, 18
REQUEST, REPLY = 0x6D727A76, 0x4D525A56  # 'mrzv', 'MRZV'
BUNDLE = struct.Struct("=4sIIIII32s")
PATIENCE = 60
SO_PASSPIDFD = 76


def pair():
    """A socket pair, as rights are made of."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def path_of(service):
    """Where a server listens."""
    folder = os.environ["MACHRV_BOOTSTRAP_DIR"]
    return f"{folder}/{os.readlink(f'{folder}/{service}')}"


def connect(service, wait=True):
    """A connection to a server: what a looked-up right is."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.setblocking(wait)
    try:
        one.connect(path_of(service))
    except OSError:
        one.close()
        raise
    return one


def packet(body=b"", *, bits=SEND, size=None, flags=0, reply=0, id=0, tail=b""):
    """A packet as the library writes it, unless a lie is given."""
    return HEADER.pack(bits, 24 + len(body) if size is None else size, flags, 0, reply, id, MAGIC, 0) + body + tail


def port(slot, disposition=SEND):
    """A port descriptor."""
    return struct.pack("=IIHBB", slot, 0, 0, disposition, 0)


def complex(*descriptors, **fields):
    """A packet with descriptors."""
    fields["bits"] = fields.get("bits", SEND) | COMPLEX
    return packet(struct.pack("=I", len(descriptors)) + b"".join(descriptors), **fields)


def send(to, data, fds=(), wait=True):
    """Send a packet: whether there was room."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [number(fd) for fd in fds]))] if fds else []
    try:
        to.sendmsg([data], control, 0 if wait else socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True


def number(thing):
    return thing if isinstance(thing, int) else thing.fileno()


def request(to, id=REQUEST, wait=True):
    """Ask as a client does: the socket on which the answer comes, None if there was no room."""
    mine, theirs = pair()
    with theirs:
        if send(to, packet(bits=SEND | ONCE << 8, reply=1, id=id), [theirs], wait):
            return mine
    mine.close()
    return None


def receive(one):
    """The next packet: its bytes and its descriptors."""
    one.settimeout(PATIENCE)
    data, control, _, _ = one.recvmsg(1 << 17, 65536)
    fds = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) // 4 * 4])
    return data, [*fds]


def claim(service):
    """What is registered for this process: sockets by key. Of a receive right the socket is its bundle."""
    with connect(service) as to, request(to) as answer:
        data, fds = receive(answer)
    assert HEADER.unpack_from(data)[5] == REPLY, data
    (count,) = struct.unpack_from("=I", data, HEADER.size)
    keys = struct.unpack_from(f"={count}I", data, HEADER.size + 4 + 12 * count)
    slots = [struct.unpack_from("=I", data, HEADER.size + 4 + 12 * i)[0] for i in range(count)]
    return {key: socket.socket(fileno=fds[(slot & ~FILE) - 1]) for key, slot in zip(keys, slots)}


def ends(bundle):
    """The ends of a receive right."""
    found = []
    while True:
        bundle.settimeout(0.5)
        try:
            data, control, _, _ = bundle.recvmsg(1 << 16, 65536)
        except OSError:
            return found
        if not data:
            return found
        for _, _, content in control:
            found += [socket.socket(fileno=fd) for fd in array.array("i", content[: len(content) // 4 * 4])]


def many():
    """As many descriptors as this process may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tell(*what):
    """Tell the stage: it waits for a line."""
    print(*what, flush=True)


def wait():
    """Wait for a line of the stage; the attacker ends when the stage has."""
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    return line.strip()


def stay():
    """Hold everything until the stage is done."""
    while True:
        wait()


def main(attacks):
    """Run the attack that was named."""
    attacks[sys.argv[1]](*sys.argv[2:])
    stay()
