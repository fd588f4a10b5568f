"""F1: descriptors whose close waits, however they are sent: TCP sockets that linger, FUSE files whose daemon does not answer."""

import ctypes
import os
import socket
import struct
import tempfile
import threading

import raw

SECONDS = 5


def linger():
    """A TCP socket with data that nobody takes: closing it takes SECONDS."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.create_connection(listener.getsockname())
        held.append(listener.accept()[0])
    one.setblocking(False)
    try:
        while True:
            one.send(bytes(65536))
    except BlockingIOError:
        pass
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, SECONDS))
    one.setblocking(True)
    return one


held = []

# -- FUSE -----------------------------------------------------------------------------------------------------------------

LOOKUP, GETATTR, OPEN, STATFS, RELEASE, FLUSH, INIT = 1, 3, 14, 17, 18, 25, 26
libc = ctypes.CDLL(None, use_errno=True)


def attributes(node):
    directory = node == 1
    return struct.pack(
        "=QQQQQQIIIIIIIIII",
        *(node, 0, 0, 0, 0, 0),
        *(0, 0, 0, 0o40755 if directory else 0o100666, 1, 0, 0, 0, 4096, 0),
    )


class Fuse:
    """A file system with one file, whose daemon is a process of its own: it never answers FLUSH, and once the file is open,
    GETATTR neither. What waits for it is let go when the attacker ends, and the daemon with it."""

    def __init__(self):
        self.folder = tempfile.mkdtemp()
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"machrv", self.folder.encode(), b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), "mount")
        parent = os.getpid()
        if os.fork() == 0:
            libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
            if os.getppid() == parent:
                self._serve(device)
            os._exit(0)
        os.close(device)

    def open(self):
        fd = os.open(f"{self.folder}/file", os.O_RDWR)
        libc.umount2(self.folder.encode(), 2)  # MNT_DETACH: it is there for as long as the file is open.
        os.rmdir(self.folder)
        return fd

    @staticmethod
    def _serve(device):
        silent = False
        while True:
            try:
                asked = os.read(device, 1 << 18)
            except OSError:
                return
            _, code, unique, node = struct.unpack_from("=IIQQ", asked)
            answer = b""
            if code == INIT:
                answer = struct.pack("=IIIIHHIIHHI28x", 7, 31, 65536, 0, 8, 8, 65536, 1, 16, 0, 0)
            elif code == LOOKUP:
                answer = struct.pack("=QQQQII", 2, 0, 100, 0, 0, 0) + attributes(2)
            elif code == GETATTR and not silent:
                answer = struct.pack("=QII", 0, 0, 0) + attributes(node)
            elif code == OPEN:
                silent = True
                answer = struct.pack("=QII", 1, 0, 0)
            elif code == STATFS:
                answer = bytes(80)
            elif code != RELEASE:
                continue
            os.write(device, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)


def fuse():
    return Fuse().open()


KINDS = {"linger": linger, "fuse": fuse}

# -- how they are sent ----------------------------------------------------------------------------------------------------


def in_queue(thing, deep=1):
    """A socket in whose queue it waits, or in the queue of one that waits there."""
    for _ in range(deep):
        ours, theirs = raw.pair()
        raw.send(ours, raw.packet(), [thing])
        close(thing)
        ours.close()
        thing = theirs
    return thing


def close(thing):
    """Our copy goes in the background: it may wait."""
    threading.Thread(target=os.close, args=(thing if isinstance(thing, int) else thing.detach(),), daemon=True).start()


def bundle(thing, whole):
    """A receive right whose end has it in its queue; or one that is no right."""
    ours, theirs = raw.pair()
    end = in_queue(thing) if whole else thing
    raw.send(ours, raw.BUNDLE.pack(b"mrvb", 0, 5, 1, 0, 0, os.urandom(16).hex().encode()) + bytes([raw.SEND]), [end])
    close(end)
    ours.close()
    return theirs


def messages(thing):
    """A packet and its descriptors, each a way to send it."""
    yield "a request's reply right", lambda: (
        raw.packet(bits=raw.SEND | raw.ONCE << 8, reply=1, id=raw.REQUEST),
        [thing()],
    )
    yield "a file", lambda: (raw.complex(raw.port(1 | raw.FILE)), [thing()])
    yield "a right", lambda: (raw.complex(raw.port(1)), [thing()])
    yield "nothing that is used", lambda: (raw.packet(), [thing()])
    yield "no message", lambda: (b"x", [thing()])
    yield "no bytes", lambda: (b"", [thing()])
    yield "memory", lambda: (raw.packet(size=1 << 20, flags=raw.LARGE), [thing()])
    yield "in a right's queue", lambda: (raw.complex(raw.port(1)), [in_queue(thing())])
    yield "in a reply right's queue", lambda: (
        raw.packet(bits=raw.SEND | raw.ONCE << 8, reply=1, id=raw.REQUEST),
        [in_queue(thing())],
    )
    yield "three sockets deep", lambda: (raw.complex(raw.port(1)), [in_queue(thing(), 3)])
    yield "a receive right's end", lambda: (raw.complex(raw.port(1, raw.RECEIVE)), [bundle(thing(), True)])
    yield "a receive right that is none", lambda: (raw.complex(raw.port(1, raw.RECEIVE)), [bundle(thing(), False)])
    yield "in a hundred", lambda: (
        raw.complex(*[raw.port(i + 1 | raw.FILE) for i in range(100)]),
        [thing(), *[0] * 99],
    )


def server(service, kind, rounds="1"):
    """Each way, to the server, `rounds` times, or for ever (0)."""
    raw.many()
    thing = KINDS[kind]
    round = 0
    while True:
        for _, make in messages(thing):
            data, fds = make()
            with raw.connect(service) as to:
                raw.send(to, data, fds)
            close(fds[0])
            if rounds == "0" and round == 0:
                raw.tell("ready")
            round += 1
            if rounds == "0":
                threading.Event().wait(0.1)
        if rounds == "1":
            break
    raw.tell("ready")


def right(service, kind):
    """Each way, each over a right of its own: those that were registered for us."""
    raw.many()
    rights = raw.claim(service)
    for key, (_, make) in zip(rights, messages(KINDS[kind])):
        data, fds = make()
        raw.send(rights[key], data, fds)
        close(fds[0])
    raw.tell("ready")


def back(service, kind):
    """Into the queues of those who send to the receive right under 1: what they never read, they close."""
    raw.many()
    for end in raw.ends(raw.claim(service)[1]):
        thing = KINDS[kind]()
        raw.send(end, b"x", [thing])
        close(thing)
        held.append(end)
    raw.tell("ready")


def file(service, kind):
    """A good message with such a file, over the right under 1, and once more each time that we are told."""
    raw.many()
    to = raw.claim(service)[1]
    thing = KINDS[kind]()
    raw.send(to, raw.complex(raw.port(1 | raw.FILE)), [thing])
    close(thing)
    raw.tell("ready")


if __name__ == "__main__":
    raw.main({"server": server, "right": right, "file": file, "back": back})
