"""F2 to F5, F10 to F12: packets and rights that are not what they seem."""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import threading
import time

import raw

libc = ctypes.CDLL(None, use_errno=True)
SEALS = 15
F_ADD_SEALS = 1033
held = []

# -- F2: what cannot be looked at -----------------------------------------------------------------------------------------


def dead_process():
    """/proc/PID/fd of a process that is gone: fstat of it fails."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    fd = os.open(f"/proc/{pid}/fd", os.O_RDONLY)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return fd


def of_every_kind():
    """A descriptor of each kind that there is."""
    kinds = [
        dead_process,
        lambda: os.open("/proc/self/mem", os.O_RDONLY),
        lambda: os.open("/", os.O_PATH),
        lambda: os.open("/dev/null", os.O_RDWR),
        lambda: os.open("/", os.O_RDONLY),
        lambda: os.pipe()[0],
        lambda: os.pipe()[1],
        lambda: os.eventfd(0),
        lambda: os.pidfd_open(os.getpid()),
        lambda: os.memfd_create("x"),
        lambda: os.memfd_create("x", 2),
        lambda: libc.epoll_create1(0),
        lambda: libc.timerfd_create(1, 0),
        lambda: libc.inotify_init1(0),
        lambda: socket.socket().detach(),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),
        lambda: socket.socket(socket.AF_UNIX).detach(),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(),
        lambda: listener().detach(),
        lambda: long_path().detach(),
        lambda: os.openpty()[0],
    ]
    for kind in kinds:
        try:
            yield kind()
        except OSError:
            pass


def listener():
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.bind(b"\0" + os.urandom(16).hex().encode())
    one.listen(1)
    return one


def long_path():
    """A socket bound to a path of 108 characters: the kernel tells 111 bytes of address."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = "/tmp/" + os.urandom(8).hex()
    os.mkdir(folder, 0o700)
    path = (folder + "/" + "x" * 200)[:108].encode()
    assert libc.bind(one.fileno(), struct.pack("=H108s", socket.AF_UNIX, path), 110) == 0
    os.unlink(path)
    os.rmdir(folder)
    return one


def shapes(fd):
    """Every way to use one descriptor."""
    yield raw.complex(raw.port(1 | raw.FILE)), [fd]
    for kind in (raw.SEND, raw.ONCE, raw.RECEIVE):
        yield raw.complex(raw.port(1, kind)), [fd]
    yield raw.packet(bits=raw.SEND | raw.ONCE << 8, reply=1, id=raw.REQUEST), [fd]
    yield raw.packet(size=4096, flags=raw.LARGE), [fd]
    yield raw.complex(struct.pack("=QBBBBI", 1, 1, 1, 0, 1, 4096)), [fd]  # memory
    yield raw.complex(*[raw.port(i + 1 | raw.FILE) for i in range(200)]), [fd] * 200
    yield raw.complex(*[raw.port(i + 1) for i in range(200)]), [fd] * 200
    yield raw.packet(), [fd] * 200
    yield b"", [fd] * 200
    for flags in (0, 1, 2):
        ours, theirs = raw.pair()
        raw.send(ours, raw.BUNDLE.pack(b"mrvb", flags, 5, 1, 0, 0, b"1" * 32) + bytes([raw.SEND]), [fd])
        ours.close()
        yield raw.complex(raw.port(1, raw.RECEIVE)), [theirs]


def every_kind(service, rounds="1"):
    """Each descriptor in every way, to the server; for ever with 0."""
    raw.many()
    round = 0
    while rounds == "0" or round < int(rounds):
        for fd in of_every_kind():
            for data, fds in shapes(fd):
                try:
                    with raw.connect(service) as to:
                        raw.send(to, data, fds)
                except OSError:
                    pass
            os.close(fd)
        round += 1
        if round == 1:
            raw.tell("ready")


def every_kind_right(service):
    """The same to a port: a right for each is asked for over the first one, whose answer brings it."""
    raw.many()
    rights = [*raw.claim(service).values()]
    for fd in of_every_kind():
        for data, fds in shapes(fd):
            if rights:
                raw.send(rights.pop(), data, fds)
    raw.tell("ready")


# -- F3: too much ---------------------------------------------------------------------------------------------------------


def sealed(size, content=b""):
    fd = os.memfd_create("x", 2)
    os.ftruncate(fd, size)
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
    return fd


def large():
    """80 MB in one memfd, and a million descriptors in 12 MB."""
    yield raw.packet(size=80 << 20, flags=raw.LARGE), sealed((80 << 20) - 24)
    count = 1_000_000
    body = struct.pack("=I", count) + raw.port(0) * count
    yield raw.packet(bits=raw.SEND | raw.COMPLEX, size=24 + len(body), flags=raw.LARGE), sealed(len(body), body)
    size = (60 << 20) - 24
    yield raw.packet(size=60 << 20, flags=raw.LARGE), sealed(size)


def laden(data, fd, count=60):
    """A receive right in whose queue so many such messages wait."""
    bundle, theirs = raw.pair()
    mine, end = raw.pair()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for _ in range(count):
        if not raw.send(mine, data, [fd], wait=False):
            break
    raw.send(bundle, raw.BUNDLE.pack(b"mrvb", 0, 5, 1, 0, 0, os.urandom(16).hex().encode()) + bytes([raw.SEND]), [end])
    bundle.close()
    end.close()
    held.append(mine)
    return theirs


def too_much(service, rounds="1"):
    """Forty of each, to the server, and receive rights with sixty more."""
    raw.many()
    made = [*large()]
    round = 0
    while rounds == "0" or round < int(rounds):
        for data, fd in made:
            for _ in range(40):
                with raw.connect(service) as to:
                    raw.send(to, data, [fd])
            right = laden(data, fd)
            with raw.connect(service) as to:
                raw.send(to, raw.complex(raw.port(1, raw.RECEIVE)), [right])
            right.close()
            held.clear()
        round += 1
        if round == 1:
            raw.tell("ready")


def too_much_right(service):
    """The same to a port of the program's, over rights that were registered for us: each that is taken away is followed by another."""
    raw.many()
    rights = [*raw.claim(service).values()]
    made = [*large()]
    raw.tell("ready")
    while True:
        for data, fd in made:
            right = laden(data, fd)
            try:
                raw.send(rights[-1], data, [fd])
                raw.send(rights[-1], raw.complex(raw.port(1, raw.RECEIVE)), [right])
            except OSError:
                if len(rights) > 1:
                    rights.pop()
            right.close()
            held.clear()


# -- F4: nobody -----------------------------------------------------------------------------------------------------------


def nobody(service):
    """A receive right is sent to the port under 1; over the ends that we kept, who we are is switched off, and notifications forged."""
    (to,) = raw.claim(service).values()
    bundle, theirs = raw.pair()
    mine, end = raw.pair()
    raw.send(bundle, raw.BUNDLE.pack(b"mrvb", 0, 5, 1, 0, 0, b"2" * 32) + bytes([raw.SEND]), [end])
    bundle.close()
    raw.send(to, raw.complex(raw.port(1, raw.RECEIVE)), [theirs])
    raw.tell("ready")
    raw.wait()
    for option in (socket.SO_PASSCRED, raw.SO_PASSPIDFD):
        end.setsockopt(socket.SOL_SOCKET, option, 0)
    for id in (70, 71, 72, raw.REQUEST, raw.REPLY):
        for flags in (0, 1, 4):
            raw.send(mine, raw.packet(flags=flags, id=id))
    raw.tell("sent")


# -- F5: a pid that is used again -----------------------------------------------------------------------------------------


def as_process(pid, run):
    """Run something in a new process that has this pid (0: any): its pid, once it is over."""
    ours, theirs = os.pipe()
    for _ in range(1000):
        if pid:
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(pid - 1))
        child = os.fork()
        if child == 0:
            if not pid or os.getpid() == pid:
                run()
                os.write(theirs, b"x")
            os._exit(0)
        os.waitpid(child, 0)
        if not pid or child == pid:
            os.close(ours)
            os.close(theirs)
            return child
    raise OSError("the pid could not be had again")


def again(service):
    """The process that made a right to a port exits; another one with its pid makes one that claims the same port."""
    (to,) = raw.claim(service).values()
    id = os.urandom(16).hex().encode()
    receiving = []

    def make(serial):
        one, other = raw.pair()
        one.bind(b"\0machrv/" + id + b"/s" + serial)
        raw.send(to, raw.complex(raw.port(1)), [other])
        socket.send_fds(keep, [b"x"], [one.fileno()])

    keep, kept = raw.pair()
    pid = as_process(0, lambda: make(b"%016x" % 1))
    receiving.append(socket.recv_fds(kept, 1, 1)[1][0])
    raw.tell("ready")
    raw.wait()
    try:
        as_process(pid, lambda: make(b"%016x" % 2))
    except OSError as error:
        raw.tell("no", error)
        return
    receiving.append(socket.recv_fds(kept, 1, 1)[1][0])
    raw.tell("sent")
    raw.wait()
    ends = [socket.socket(fileno=fd) for fd in receiving]
    for end in ends:
        end.setblocking(False)
    found = []
    for end in ends:
        try:
            found.append(len(end.recv(65536)))
        except BlockingIOError:
            found.append(0)
    raw.tell(*found)


# -- F10: options of ends that arrive -------------------------------------------------------------------------------------


def peek(service):
    """A receive right whose end has SO_PEEK_OFF set, before it is sent and for ever after; messages wait in it."""
    (to,) = raw.claim(service).values()
    bundle, theirs = raw.pair()
    pairs = [raw.pair() for _ in range(2)]
    for mine, end in pairs:
        end.setsockopt(socket.SOL_SOCKET, 42, 1 << 20)
    kinds = bytes([raw.SEND] * len(pairs))
    data = raw.BUNDLE.pack(b"mrvb", 0, 5, len(pairs), 0, 0, b"3" * 32) + kinds
    raw.send(bundle, data, [end for _, end in pairs])
    bundle.close()
    raw.send(to, raw.complex(raw.port(1, raw.RECEIVE)), [theirs])
    theirs.close()
    raw.tell("ready")
    raw.wait()
    for mine, _ in pairs:
        raw.send(mine, raw.packet(id=1))
    raw.tell("sent")
    raw.wait()

    def keep_at_it():
        while True:
            for _, end in pairs:
                end.setsockopt(socket.SOL_SOCKET, 42, 1 << 20)

    threading.Thread(target=keep_at_it, daemon=True).start()
    time.sleep(0.1)
    for mine, _ in pairs:
        raw.send(mine, raw.packet(id=2))
    raw.tell("sent")


# -- F11: drop by drop ----------------------------------------------------------------------------------------------------


def drops(service, count="60000"):
    """Receive rights that say they have so many ends, which come one at a time."""
    raw.many()
    rights = [*raw.claim(service).values()]
    raw.tell("ready")
    while True:
        feeding, theirs = raw.pair()
        mine, end = raw.pair()
        head = raw.BUNDLE.pack(b"mrvb", 0, 5, int(count), 0, 0, os.urandom(16).hex().encode())
        raw.send(feeding, head, [])
        for _ in range(100):
            raw.send(feeding, bytes([raw.SEND]), [end])
        try:
            raw.send(rights[-1], raw.complex(raw.port(1, raw.RECEIVE)), [theirs])
        except OSError:
            if len(rights) > 1:
                rights.pop()
        theirs.close()
        try:
            for _ in range(int(count)):
                feeding.sendmsg(
                    [bytes([raw.SEND])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", end.fileno()))]
                )
        except OSError:
            pass
        for one in (feeding, mine, end):
            one.close()


# -- F12: long addresses --------------------------------------------------------------------------------------------------


def long(service):
    """Sockets bound to, and connected to, paths of 108 characters, as rights of each kind and as ends of a receive right."""
    rights = [*raw.claim(service).values()]
    for kind in (raw.SEND, raw.ONCE):
        server = long_path()
        server.close()
        one, other = raw.pair()
        folder = "/tmp/" + os.urandom(8).hex()
        os.mkdir(folder, 0o700)
        path = (folder + "/" + "y" * 200)[:108].encode()
        assert libc.bind(one.fileno(), struct.pack("=H108s", socket.AF_UNIX, path), 110) == 0
        raw.send(rights.pop(), raw.complex(raw.port(1, kind)), [other])
        bundle, theirs = raw.pair()
        raw.send(bundle, raw.BUNDLE.pack(b"mrvb", 0, 5, 1, 0, 0, b"4" * 32) + bytes([kind]), [one])
        raw.send(rights.pop(), raw.complex(raw.port(1, raw.RECEIVE)), [theirs])
        os.unlink(path)
        os.rmdir(folder)
        held.extend((one, other, bundle))
    raw.tell("ready")


if __name__ == "__main__":
    raw.main(
        {
            "every_kind": every_kind,
            "every_kind_right": every_kind_right,
            "too_much": too_much,
            "too_much_right": too_much_right,
            "nobody": nobody,
            "again": again,
            "peek": peek,
            "drops": drops,
            "long": long,
        }
    )
