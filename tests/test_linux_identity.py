"""Who sent a message: the audit token against what the kernel says, and what is left of it on kernels that say less."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from machrv.doctor.linux import GONE
from machrv.message.audit import AuditToken
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor

from . import linux_hostile as h
from .conftest import PATIENCE
from .linux_features import HAS, needs
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .sockets import socket_of
from .linux_tasks import (
    RECEIVE,
    SEND,
    Peer,
    allocate,
    end,
    give,
    in_thread,
    introduce,
    names,
    receive,
    send,
    started,
)

MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE, Disposition.COPY_SEND

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")


def version_of(pid: int) -> int:
    """What tells a process from the next one with its pid: its pidfd's inode, else when it started."""
    return inode_of(pid) if HAS["pidfs"] else start_time_of(pid)


def inode_of(pid: int) -> int:
    """The inode of a process's pidfd."""
    fd = os.pidfd_open(pid)
    try:
        return os.fstat(fd).st_ino & 0xFFFFFFFF
    finally:
        os.close(fd)


def start_time_of(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) & 0xFFFFFFFF


def token_of(task: LinuxKernel, port: int) -> AuditToken:
    token = receive(task, port).audit_token
    assert token is not None
    return token


def test_every_word_of_a_token(task: LinuxKernel, peer: Peer) -> None:
    """Real and effective ids, pid, the pidfd's inode; the same as the sender's kernel says of itself."""
    port, to = introduce(task, peer)
    send(peer, to)
    token = token_of(task, port)
    uid, gid = os.getuid(), os.getgid()
    assert token == AuditToken(0xFFFFFFFF, uid, gid, uid, gid, peer.pid, 0, version_of(peer.pid))
    assert tuple(token) == peer.token()
    with task.open_process(peer.pid) as process:  # type: ignore[attr-defined]
        assert process.matches(token) and process.is_running()
        assert not process.matches(task.audit_token())
    peer.mach_port_deallocate(to)
    end(task, port)


def test_ones_own_token(task: LinuxKernel) -> None:
    """What a message to oneself bears, whatever way it takes, is what audit_token() says."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    once, _ = task.mach_port_extract_right(port, MAKE_SEND_ONCE)
    send(task, port, 1)
    send(task, port, 2, reply=port, reply_how=COPY_SEND)
    send(task, once, 3, how=Disposition.MOVE_SEND_ONCE)
    for number in (1, 2, 3):
        message = receive(task, port)
        assert message.id == number and message.audit_token == task.audit_token()
        assert message.audit_token.pidversion == version_of(os.getpid())
    task.mach_port_destroy(port)


def test_each_message_says_who_sent_it_not_who_holds_the_right(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """One right, three holders of the very same socket, the maker among them: each message names its sender."""
    port, to = introduce(task, peer)
    copy = give(peer, other, to, COPY_SEND)
    home = give(peer, task, to, COPY_SEND)
    for who, name in ((peer, to), (other, copy), (task, home), (other, copy), (peer, to)):
        send(who, name)
        token = token_of(task, port)
        assert token.pid == (os.getpid() if who is task else who.pid)  # type: ignore[union-attr]
    task.mach_port_deallocate(home)
    other.mach_port_deallocate(copy)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_sender_that_is_known_for_good_is_not_taken_for_another(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """After many messages of one process over a socket, one of another that has it too; and what the dead have left there."""
    port, to = introduce(task, peer)
    copy = give(peer, other, to, COPY_SEND)
    for who, name in (
        [(peer, to)] * 80 + [(other, copy), (peer, to)] + [(other, copy)] * 80 + [(peer, to), (other, copy)]
    ):
        send(who, name)
        assert tuple(token_of(task, port)) == who.token()
    send(peer, to)
    send(other, copy)
    peer.kill()
    assert [token_of(task, port).pid for _ in range(2)] == [peer.pid, other.pid]
    other.mach_port_deallocate(copy)
    end(task, port)


def test_a_child_that_inherits_the_socket_itself(task: LinuxKernel, peer: Peer) -> None:
    """A process that got the descriptor without the library: the kernel names it, not its parent."""
    port, to = introduce(task, peer)
    text = f"import os; os.write({{fd}}, bytes.fromhex('{h.packet(id=5)[0].hex()}')); print(os.getpid())"
    program = """
import subprocess, sys
fd = os.dup(socket_of(kernel, to))
os.set_inheritable(fd, True)
result = int(subprocess.check_output([sys.executable, "-S", "-c", text.format(fd=fd)], pass_fds=[fd]))
os.close(fd)
"""
    pid = peer.run(program, to=to, text=text)
    message = receive(task, port)
    assert message.id == 5 and message.audit_token is not None
    assert message.audit_token.pid == pid != peer.pid
    peer.mach_port_deallocate(to)
    end(task, port)


@as_root
def test_a_sender_that_changes_its_user(task: LinuxKernel) -> None:
    """Each message bears the real ids that its sender had when it sent it."""
    with started() as peer:
        port, to = introduce(task, peer)
        send(peer, to)
        peer.run("os.setresgid(1234, 1234, 0); os.setresuid(1235, 1235, 0)")
        send(peer, to)
        before, after = token_of(task, port), token_of(task, port)
        assert (before.ruid, before.rgid) == (0, 0) and (after.ruid, after.rgid) == (1235, 1234)
        assert (after.euid, after.egid) == (1235, 1234)
        assert before.pidversion == after.pidversion
        peer.mach_port_deallocate(to)
        end(task, port)


@as_root
@needs("PIDFD_GET_INFO")
@pytest.mark.parametrize("uid", [1234, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFD])
def test_effective_ids(task: LinuxKernel, uid: int) -> None:
    """They are in the security token and the audit token, beside the real ones; of other processes and of one's own."""
    with started() as peer:
        port, to = introduce(task, peer)
        peer.run("os.setresgid(-1, uid, -1); os.setresuid(-1, uid, -1)", uid=uid)
        send(peer, to)
        message = receive(task, port)
        token, trailer = message.audit_token, message.trailer
        assert token is not None and trailer is not None
        assert (token.euid, token.egid, token.ruid, token.rgid) == (uid, uid, 0, 0)
        assert trailer.security_token == (uid, uid)
        own = allocate(peer)
        peer.mach_port_insert_right(own, own, MAKE_SEND)
        for euid in (uid, 0, uid):
            peer.run("os.setresuid(-1, 0, -1); os.setresuid(-1, uid, -1)", uid=euid)
            send(peer, own)
            token = receive(peer, own).audit_token
            assert token is not None and token.euid == euid and tuple(token) == peer.token()
        peer.mach_port_destroy(own)
        peer.mach_port_deallocate(to)
        end(task, port)


@as_root
def test_an_ordinary_user_cannot_forge_credentials(task: LinuxKernel) -> None:
    """SCM_CREDENTIALS with somebody else's pid or uid: the kernel refuses to send it."""
    with started() as peer:
        port, to = introduce(task, peer)
        results = peer.run(FORGE, to=to, packet=h.packet()[0], pid=os.getpid())
        assert all(isinstance(error, PermissionError) for error in results)
        send(peer, to, 3)
        message = receive(task, port)
        assert message.id == 3 and message.audit_token is not None and message.audit_token.ruid == 65534
        peer.mach_port_deallocate(to)
        end(task, port)


FORGE = """
import socket, struct
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
result = []
with socket.socket(fileno=os.dup(socket_of(kernel, to))) as right:
    for who in ((pid, 65534, 65534), (os.getpid(), 0, 65534), (os.getpid(), 65534, 0), (1, 0, 0)):
        try:
            right.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", *who))])
            result.append(None)
        except OSError as error:
            result.append(error)
"""


def test_a_token_outlives_its_process(task: LinuxKernel, peer: Peer) -> None:
    """Sent, killed, reaped: the message still says which process it was, and who was pinned before still matches.

    Where the kernel does not tell any more which process it was (doctor: "pidfds of the gone", pidfs), it says the rest.
    """
    port, to = introduce(task, peer)
    with task.open_process(peer.pid) as process:  # type: ignore[attr-defined]
        expected = peer.token()
        send(peer, to)
        peer.kill()
        token = token_of(task, port)
        if HAS[GONE] and HAS["pidfs"]:
            assert tuple(token) == expected
            assert process.matches(token) and not process.is_running()
        else:
            assert tuple(token) == (*expected[:7], 0)
            assert not process.matches(token) and not process.is_running()
    end(task, port)


def test_tokens_of_two_spaces_at_once(task: LinuxKernel) -> None:
    """Threads that receive from each other's spaces and ask for their own token never get the other one's."""
    second = LinuxKernel()
    wrong: list[AuditToken] = []
    spaces = [(task, *introduce(task, second)[:1]), (second, *introduce(second, task)[:1])]
    ways = {}
    for kernel, other_kernel in ((task, second), (second, task)):
        ways[kernel] = next(name for name, kind in kernel.mach_port_names() if kind == SEND)
    tokens = {task: task.audit_token(), second: second.audit_token()}

    def work(kernel: LinuxKernel, port: int, partner: LinuxKernel) -> None:
        for _ in range(1500):
            send(kernel, ways[kernel])
            message = receive(kernel, port)
            if message.audit_token != tokens[partner]:
                wrong.append(message.audit_token)  # type: ignore[arg-type]
            if kernel.audit_token() != tokens[kernel]:
                wrong.append(kernel.audit_token())

    threads = [in_thread(work, *spaces[0], second), in_thread(work, *spaces[1], task)]
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []
    second.close()
    for name, _ in task.mach_port_names():
        task.mach_port_destroy(name)


# -- kernels that know less ------------------------------------------------------------------------------------------------

COMBINATIONS = [
    (),
    ("pidfd_of_gone",),
    ("pidfd_of_gone", "pidfd_info"),
    ("passpidfd",),
    ("pidfs",),
    ("pidfd_info",),
    ("netns_cookie",),
    ("pidfs", "pidfd_info"),
    ("passpidfd", "pidfs", "pidfd_info", "netns_cookie"),
]


@pytest.fixture(params=COMBINATIONS, ids=lambda combination: " ".join(combination) or "all")
def older(task: LinuxKernel, request: pytest.FixtureRequest) -> Peer:
    """A process to which the kernel looks older: without some of what newer ones know."""
    peer = Peer(*request.param)
    peer.__dict__["without"] = request.param

    def leave() -> None:
        if peer.lives:
            peer.leave()

    request.addfinalizer(leave)
    return peer


def test_what_an_older_kernel_says_of_a_sender(task: LinuxKernel, older: Peer, peer: Peer) -> None:
    """pid and real ids are always the kernel's; which process it is comes from pidfs, else from its start time."""
    port, mine = introduce(older, task)
    theirs = give(older, peer, port, MAKE_SEND)
    for sender, name, pid in ((task, mine, os.getpid()), (peer, theirs, peer.pid)):
        send(sender, name)
        token = receive(older, port).audit_token
        assert token is not None
        assert (token.pid, token.ruid, token.rgid) == (pid, os.getuid(), os.getgid())
        assert (token.euid, token.egid) == (os.geteuid(), os.getegid())
        pinned = "passpidfd" not in older.without and HAS["SO_PASSPIDFD"]
        if "pidfs" not in older.without and pinned:
            assert token.pidversion == version_of(pid)
        else:
            assert token.pidversion in (start_time_of(pid), inode_of(pid), 0)
        matches = older.run(
            "process = kernel.open_process(pid)\nresult = process.matches(AuditToken(*token)), process.pidversion\n"
            "process.close()",
            pid=pid,
            token=tuple(token),
            AuditToken=AuditToken,
        )
        assert matches[0] is (token.pidversion != 0 and matches[1] == token.pidversion)
        assert matches[0] or not pinned
    end(older, port)
    task.mach_port_deallocate(mine)
    peer.mach_port_deallocate(theirs)


def test_an_older_kernel_knows_its_own(older: Peer) -> None:
    """What a process says of itself is what is said of its messages to itself."""
    port = allocate(older)
    older.mach_port_insert_right(port, port, MAKE_SEND)
    for reply in (0, port):
        send(older, port, reply=reply, reply_how=COPY_SEND if reply else 0)
        message = receive(older, port)
        assert message.audit_token is not None and tuple(message.audit_token) == older.token()
    older.mach_port_destroy(port)


def test_rights_travel_on_an_older_kernel(task: LinuxKernel, older: Peer, peer: Peer) -> None:
    """Every kind of right there and back; receive rights with their queue; what comes home merges where that can be told."""
    comes_home = "netns_cookie" not in older.without and HAS["SO_NETNS_COOKIE"]
    port, to = introduce(older, peer)
    theirs = allocate(peer)
    rights = [PortDescriptor(theirs, how) for how in (MAKE_SEND, MAKE_SEND_ONCE)]
    send(peer, to, 1, b"word", rights)
    message = receive(older, port)
    right, once = names(message)
    assert message.body == b"word" and older.mach_port_type(right) == SEND
    send(older, right, 2, bytes(70_000))
    send(older, once, 3, how=Disposition.MOVE_SEND_ONCE)
    assert [receive(peer, theirs).id for _ in range(2)] == [2, 3]
    send(older, right, 4)
    there = give(peer, older, theirs, Disposition.MOVE_RECEIVE)
    assert receive(older, there).id == 4
    if there == right:
        assert older.mach_port_type(there) == RECEIVE | SEND
    else:
        assert not comes_home
    home = give(peer, older, to, Disposition.MOVE_SEND)
    assert home == port or not comes_home
    for name, _ in older.mach_port_names():
        older.mach_port_destroy(name)


def test_a_forged_notification_on_an_older_kernel(older: Peer, task: LinuxKernel) -> None:
    """Without pidfds too: nobody but the receiver's own process can bear the kernel's token."""
    port, mine = introduce(older, task)
    with socket.socket(fileno=os.dup(socket_of(task, mine))) as right:
        right.send(h.packet(bytes(12), id=70, flags=h.NOTIFICATION)[0])
    token = receive(older, port).audit_token
    assert token is not None and token.pid == os.getpid() and not token.is_kernel
    end(older, port)
    task.mach_port_deallocate(mine)


def test_a_right_that_never_left_has_no_socket_to_inherit(older: Peer) -> None:
    """What would be attested by pid alone is no packet: nobody else can put anything there, and what is put there is one's own."""
    port = allocate(older)
    older.mach_port_insert_right(port, port, MAKE_SEND)
    before = older.state()["descriptors"]
    for number in range(3):
        send(older, port, number, reply=port, reply_how=COPY_SEND)
    assert older.run("result = sockets_of(kernel, port)", port=port) == []
    assert older.state()["descriptors"] == before
    for number in range(3):
        message = receive(older, port)
        assert message.id == number and message.audit_token is not None
        assert tuple(message.audit_token) == older.token()
    older.mach_port_destroy(port)


def test_a_process_that_nobody_can_tell_is_nobodys_sender(peer: Peer) -> None:
    """Pinned when it had exited, without an inode of its own: pidversion 0. A token of pidversion 0 is not its token."""
    with started("pidfs") as victim:
        pid, version, matches = victim.run(ZOMBIE, AuditToken=AuditToken)
        assert version == 0 and matches is False and pid > 0


ZOMBIE = """
import subprocess
child = subprocess.Popen(["true"])
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
process = kernel.open_process(child.pid)
result = child.pid, process.pidversion, process.matches(AuditToken(0, 0, 0, 0, 0, child.pid, 0, 0))
process.close()
child.wait()
"""


def test_a_strangers_claim_on_an_older_kernel(older: Peer, task: LinuxKernel, peer: Peer) -> None:
    """Without namespace cookies a socket that claims our port's address is not believed either."""
    port, mine = introduce(older, peer)
    address = older.run("result = kernel.port_identity(port)[0]", port=port)
    peer.run(
        """
import socket
receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
receiving.bind(b"\\0machrv/" + id.encode() + b"/s1")
served.hoard += [receiving.detach(), sending.detach()]
""",
        id=address,
    )
    peer.raw(mine, h.complex([h.port(1)], [("hoard", 1)]))
    (got,) = names(receive(older, port))
    assert got != port and older.mach_port_type(port) == RECEIVE
    older.mach_port_deallocate(got)
    end(older, port)
    peer.free()
    peer.mach_port_deallocate(mine)
