"""What Linux finds out about real processes, each question answered with yes and with no."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from errno import ENODATA, ENOTTY
from pathlib import Path
from typing import Any

import pytest

from machrv import AuditToken, ProcessRequirement, UnsupportedError, current
from machrv.requirement import image as image_module
from machrv.requirement import linux as linux_module
from machrv.requirement.builder import Builder
from machrv.requirement.pinned import PinnedProcess

from .conftest import PATIENCE

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to start processes of others")

#: As `cat`: stays until its standard input ends.
WAITS = "import sys; print(flush=True); sys.stdin.read()"

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that waits for the end of its standard input; all are gone when the test is over."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str | Path, **popen: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen)
        started.append(process)
        return process

    yield start
    for process in started:
        process.communicate(timeout=PATIENCE)


def python(start: Start, code: str = WAITS, **popen: Any) -> subprocess.Popen[bytes]:
    """Python, running `code` so far that it has printed a line."""
    process = start(sys.executable, "-c", code, **popen)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


def token_of(pid: int) -> AuditToken:
    """The token that the process's messages bear, as far as requirements look at it."""
    with current().open_process(pid) as process:  # type: ignore[attr-defined]
        return AuditToken(pid=pid, pidversion=process.pidversion)


def ask() -> Builder:
    """A builder for this platform."""
    return ProcessRequirement.Builder()


def why_not(builder: Builder, process: subprocess.Popen[bytes]) -> str | None:
    """What keeps a process from meeting the requirement; None if nothing does."""
    requirement = builder.build()
    token = token_of(process.pid)
    reason = requirement.mismatch(token)
    assert requirement.validate(token) == (reason is None)
    return reason


# -- what it runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """A program of this test's own."""
    copy = tmp_path / "cat"
    shutil.copy(shutil.which("cat") or "/bin/cat", copy)
    return copy


def test_an_identifier_is_the_file_that_runs(start: Start, cat: Path, tmp_path: Path) -> None:
    """By whatever path: a link to it, or its own. Not another file with the same contents."""
    process = start(cat)
    link, twin = tmp_path / "link", tmp_path / "twin"
    link.symlink_to(cat)
    shutil.copy(cat, twin)
    assert why_not(ask().identifier(str(cat)), process) is None
    assert why_not(ask().identifier(str(link)), process) is None
    assert why_not(ask().identifier_is_one_of(["/nowhere", str(twin), str(cat)]), process) is None
    reason = why_not(ask().identifier(str(twin)), process)
    assert reason is not None and str(cat) in reason and str(twin) in reason
    assert why_not(ask().identifier_is_one_of([str(twin), "/nowhere"]), process) is not None


def test_a_file_that_was_replaced_is_not_the_one_that_runs(start: Start, cat: Path, tmp_path: Path) -> None:
    """The path leads to another file by now, whatever /proc/PID/exe says."""
    process = start(cat)
    newer = tmp_path / "newer"
    shutil.copy(cat, newer)
    newer.rename(cat)
    assert why_not(ask().identifier(str(cat)), process) is not None
    cat.unlink()
    assert why_not(ask().identifier(str(cat)), process) is not None


@needs_root
def test_a_path_in_another_mount_namespace_proves_nothing(start: Start, cat: Path, tmp_path: Path) -> None:
    """A process that mounts its own program over a trusted path has that path in /proc/PID/exe, and is not it."""
    evil = tmp_path / "evil"
    shutil.copy(cat, evil)
    mount = f"mount --bind {evil} {cat} && echo && exec {cat}"
    process = start("unshare", "-m", "--propagation", "private", "sh", "-c", mount, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    if process.stdout.readline() != b"\n":
        pytest.skip(f"mount namespaces are not permitted here: {process.stderr.read().decode()}")
    _wait_for_program(process, "cat")
    assert os.readlink(f"/proc/{process.pid}/exe") == str(cat)
    assert why_not(ask().identifier(str(cat)), process) is not None
    assert why_not(ask().identifier(str(evil)), process) is None


def _wait_for_program(process: subprocess.Popen[bytes], name: str) -> None:
    """Until it has exec'ed: it says what it is told."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"there?\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"there?\n"
    assert os.readlink(f"/proc/{process.pid}/exe").endswith(name)


def test_the_same_identity_is_the_same_running_file(start: Start, cat: Path) -> None:
    """Another process of this interpreter is the same; another program is not; this process is."""
    assert why_not(ask().signed_with_same_identity(), python(start)) is None
    reason = why_not(ask().signed_with_same_identity(), start(cat))
    assert reason is not None and str(cat) in reason and os.path.realpath("/proc/self/exe") in reason
    assert ask().signed_with_same_identity().check_dynamic_validity_only().build().validate(current().audit_token())


def test_a_digest_is_that_of_the_file_that_runs(start: Start, cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA-256 of its contents, read once for as long as the file does not change."""
    process = start(cat)
    right = hashlib.sha256(cat.read_bytes()).hexdigest()
    assert why_not(ask().digest(right), process) is None
    reason = why_not(ask().digest(bytes(32)), process)
    assert reason is not None and right in reason
    assert why_not(ask().digest(bytes(64)), process) is not None


def test_a_file_is_read_once_while_it_does_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed one is read again, and one that changed just now is not remembered: its time stamp may be the same."""
    reads: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        reads.append(offset)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr(image_module, "_cache", {})
    file = tmp_path / "file"

    def digest(contents: bytes) -> None:
        file.write_bytes(contents)
        fd = os.open(file, os.O_RDONLY)
        for _ in range(2):
            assert image_module.contents_digest(fd) == f"sha256:{hashlib.sha256(contents).hexdigest()}"
        os.close(fd)

    digest(b"just now")
    assert reads == [0, 0]
    monkeypatch.setattr(image_module, "_SETTLED_NS", -1)
    digest(b"settled")
    assert reads == [0, 0, 0]
    digest(b"another")
    assert reads == [0, 0, 0, 0]


def test_the_cache_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many programs are looked at."""
    cache: dict[tuple[int, ...], str] = {}
    monkeypatch.setattr(image_module, "_cache", cache)
    monkeypatch.setattr(image_module, "_CACHE_SIZE", 3)
    monkeypatch.setattr(image_module, "_SETTLED_NS", -1)
    for number in range(8):
        file = tmp_path / str(number)
        file.write_bytes(b"%d" % number)
        fd = os.open(file, os.O_RDONLY)
        image_module.contents_digest(fd)
        os.close(fd)
        assert 1 <= len(cache) <= 3


def test_a_huge_program_is_not_read(start: Start, cat: Path) -> None:
    """A file of nothing but holes would keep everybody waiting."""
    with cat.open("r+b") as file:
        file.truncate(image_module.MAX_SIZE + 1)
    reason = why_not(ask().digest(bytes(32)), start(cat))
    assert reason is not None and "fs-verity" in reason


class Verity:
    """Stands in for the one system call: `answer` is the errno, or the algorithm and the digest."""

    def __init__(self, answer: int | tuple[int, bytes]) -> None:
        self.answer = answer

    def __call__(self, fd: int, request: int, room: bytearray) -> int:
        # struct fsverity_digest, and the number of FS_IOC_MEASURE_VERITY: include/uapi/linux/fsverity.h, Linux 6.12.
        assert request == 0xC0046686 and len(room) == 4 + 64
        assert int.from_bytes(room[2:4], sys.byteorder) == 64
        if isinstance(self.answer, int):
            raise OSError(self.answer, os.strerror(self.answer))
        algorithm, digest = self.answer
        room[:4] = algorithm.to_bytes(2, sys.byteorder) + len(digest).to_bytes(2, sys.byteorder)
        room[4 : 4 + len(digest)] = digest
        return 0


@pytest.mark.parametrize(("algorithm", "digest"), [(1, bytes(range(32))), (2, bytes(range(64)))])
def test_fs_verity_says_what_a_file_is(
    start: Start, cat: Path, algorithm: int, digest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement counts without reading the file; its contents' SHA-256 counts still, and nothing else."""
    process = start(cat)
    contents = hashlib.sha256(cat.read_bytes()).digest()
    monkeypatch.setattr("fcntl.ioctl", Verity((algorithm, digest)))
    assert why_not(ask().digest(contents), process) is None
    reason = why_not(ask().digest(bytes(len(digest))), process)
    assert reason is not None and contents.hex() in reason and digest.hex() in reason

    def unread(fd: int) -> str:
        raise AssertionError("the file was read")

    monkeypatch.setattr(image_module, "contents_digest", unread)
    assert why_not(ask().digest(digest), process) is None


@pytest.mark.parametrize("answer", [ENODATA, ENOTTY, (77, bytes(32))])
def test_without_fs_verity_the_contents_count(
    start: Start, cat: Path, answer: int | tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file has no measurement, the file system knows none, or it is of an unknown kind."""
    monkeypatch.setattr("fcntl.ioctl", Verity(answer))
    process = start(cat)
    assert why_not(ask().digest(hashlib.sha256(cat.read_bytes()).digest()), process) is None
    assert why_not(ask().digest(bytes(32)), process) is not None


# -- who it is -----------------------------------------------------------------------------------------------------------


def test_a_user_is_all_of_its_user_ids(start: Start) -> None:
    """This user's processes are this user's, and nobody else's."""
    process = start("cat")
    assert why_not(ask().user(os.getuid()).group(os.getgid()), process) is None
    reason = why_not(ask().user(os.getuid() + 1), process)
    assert reason is not None and str(os.getuid()) in reason


@needs_root
@pytest.mark.parametrize("ids", [(0, 4321, 4321), (4321, 0, 4321), (4321, 4321, 0)])
def test_a_process_that_can_become_another_user_is_neither(start: Start, ids: tuple[int, int, int]) -> None:
    """Real, effective and saved must agree."""
    process = python(start, f"import os; os.setresuid{ids}; {WAITS}")
    assert why_not(ask().user(4321), process) is not None
    assert why_not(ask().user(0), process) is not None


@needs_root
def test_another_users_process_is_that_users(start: Start) -> None:
    """By the kernel's word on the process, with supplementary groups."""
    process = start("cat", user=4321, group=4322, extra_groups=[4323, 4324])
    assert why_not(ask().user(4321).group(4322), process) is None
    assert why_not(ask().group(4324), process) is None
    assert why_not(ask().user(0), process) is not None
    reason = why_not(ask().group(4321), process)
    assert reason is not None and "4322, 4323, 4324" in reason


def test_an_id_that_stands_for_all_unknown_ones_is_unsupported() -> None:
    """In a user namespace that maps one user, 65534 is everybody else."""
    with open("/proc/sys/kernel/overflowuid") as file:
        overflow = int(file.read())
    code = (
        "from machrv import ProcessRequirement, UnsupportedError\n"
        "builder = ProcessRequirement.Builder\n"
        f"for ask in (builder().user, builder().group):\n"
        "    try:\n"
        f"        ask({overflow}).build()\n"
        "    except UnsupportedError as error:\n"
        "        assert 'does not know' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError('it was built')\n"
        "builder().user(0).build()\n"
    )
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not permitted here")
    subprocess.run([*unshare, sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_a_child_has_this_process_for_a_parent(start: Start) -> None:
    """A child has, a grandchild has not, nor has this process itself."""
    code = f"import subprocess; c = subprocess.Popen(['cat']); print(c.pid, flush=True); c.wait()"
    child = start(sys.executable, "-c", code)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    requirement = ask().parent_is_this_process().build()
    assert requirement.validate(token_of(child.pid))
    reason = requirement.mismatch(token_of(grandchild))
    assert reason is not None and str(child.pid) in reason
    assert not requirement.validate(current().audit_token())


def test_this_process_has_one_parent(start: Start) -> None:
    """Its parent is, its child is not."""
    requirement = ask().is_parent_of_this_process().build()
    assert requirement.validate(token_of(os.getppid()))
    child = start("cat")
    reason = requirement.mismatch(token_of(child.pid))
    assert reason is not None and str(os.getppid()) in reason


def test_labels_where_there_are_none_are_unsupported() -> None:
    """Without a security module that labels processes, nobody could ever be refused or let in by one."""
    try:
        label = Path("/proc/self/attr/current").read_bytes().strip(b"\0\n").decode()
    except OSError:
        label = ""
    if label:
        requirement = ask().security_label(label).build()
        assert requirement.validate(current().audit_token())
        assert not ask().security_label(label + "x").build().validate(current().audit_token())
    else:
        with pytest.raises(UnsupportedError, match="no security module"):
            ask().security_label("unconfined").build()


def test_a_label_is_the_whole_label(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the security module writes it, without its end of line; not a part of it."""
    monkeypatch.setattr(linux_module, "_check_labels_exist", lambda: None)
    read = PinnedProcess._read
    monkeypatch.setattr(
        PinnedProcess, "_read", lambda self, name: "web (enforce)\n" if name == "attr/current" else read(self, name)
    )
    process = start("cat")
    assert why_not(ask().security_label("web (enforce)"), process) is None
    reason = why_not(ask().security_label("web"), process)
    assert reason is not None and "web (enforce)" in reason


def test_everything_that_is_asked_counts(start: Start, cat: Path) -> None:
    """One thing that does not match is enough."""
    process = start(cat)
    all_true = ask().identifier(str(cat)).user(os.getuid()).group(os.getgid()).parent_is_this_process()
    assert why_not(all_true, process) is None
    assert why_not(all_true.digest(bytes(32)), process) is not None


# -- which process it is -------------------------------------------------------------------------------------------------


def test_a_process_that_is_gone_meets_nothing(start: Start) -> None:
    """Not while it is a zombie, and not when it was waited for."""
    process = start("cat")
    token, requirement = token_of(process.pid), ask().user(os.getuid()).build()
    assert requirement.validate(token)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert requirement.mismatch(token) is not None
    process.wait()
    assert requirement.mismatch(token) is not None


@pytest.mark.parametrize(
    "token",
    [
        AuditToken.KERNEL,
        AuditToken(pid=0, pidversion=1),
        AuditToken(pid=2**31 - 1, pidversion=1),
        AuditToken(pid=2**32 - 1, pidversion=1),
        AuditToken(pid=os.getpid()),
        AuditToken(pid=os.getpid(), pidversion=1),
    ],
)
def test_a_token_of_nobody_meets_nothing(token: AuditToken) -> None:
    """No such process, or not the one that has the pid."""
    assert ask().user(os.getuid()).build().mismatch(token) is not None


def test_a_program_that_changes_under_the_look_is_refused(start: Start, cat: Path) -> None:
    """What was found out about the first program is not true of the second."""
    process = python(start, f"import os; print(flush=True); os.read(0, 3); os.execv({str(cat)!r}, ['cat'])")
    with PinnedProcess(token_of(process.pid)) as pinned:
        assert os.path.samestat(os.fstat(pinned.image()), os.stat("/proc/self/exe"))
        pinned.confirm()
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        _wait_for_program(process, "cat")
        with pytest.raises(ProcessLookupError, match="another program"):
            pinned.confirm()


def test_a_process_that_exits_under_the_look_is_refused(start: Start) -> None:
    """The descriptor of its directory does not come to mean its successor."""
    process = start("cat")
    with PinnedProcess(token_of(process.pid)) as pinned:
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError):
            pinned.confirm()
        with pytest.raises(OSError):
            pinned.status("Uid")
        pinned.close()
        pinned.close()


def test_what_was_found_out_is_confirmed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that exits after the last question, and before the answer, is not what was asked."""
    process = start("cat")
    requirement = ask().user(os.getuid()).build()
    token = token_of(process.pid)

    def check_and_kill(pinned: PinnedProcess, wanted: int) -> None:
        assert linux_module._user(pinned, wanted) is None
        process.kill()
        process.wait()

    monkeypatch.setitem(linux_module._CHECKS, "user", check_and_kill)
    reason = requirement.mismatch(token)
    assert reason is not None and "exited" in reason


@needs_root
def test_a_pid_of_another_namespace_is_not_taken_for_one_of_this() -> None:
    """In a pid namespace that looks at its parent's /proc, the numbers there are others: process 1 is not this one."""
    code = (
        "import os, subprocess\n"
        "from machrv import AuditToken, ProcessRequirement, current\n"
        "assert os.getpid() == 1 and os.readlink('/proc/self') != '1'\n"
        "ask = ProcessRequirement.Builder\n"
        "assert ask().signed_with_same_identity().user(0).build().mismatch(current().audit_token()) is None\n"
        "child = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n"
        "with current().open_process(child.pid) as process:\n"
        "    token = AuditToken(pid=child.pid, pidversion=process.pidversion)\n"
        "assert ask().parent_is_this_process().build().mismatch(token) is None\n"
        "reason = ask().signed_with_same_identity().build().mismatch(token)\n"
        "assert reason is not None and 'cat' in reason, reason\n"
        "assert ask().is_parent_of_this_process().build().mismatch(token) is not None\n"
        "child.communicate()\n"
    )
    unshare = ["unshare", "--pid", "--fork"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("pid namespaces are not permitted here")
    subprocess.run([*unshare, sys.executable, "-c", code], check=True, timeout=PATIENCE)


@needs_root
def test_what_cannot_be_looked_at_is_refused() -> None:
    """A process without the right to see another one's program does not take its word for it."""
    code = (
        "import os\n"
        "from machrv import AuditToken, ProcessRequirement, current\n"
        "parent = current().open_process(os.getppid())\n"
        "token = AuditToken(pid=parent.pid, pidversion=parent.pidversion)\n"
        "requirement = ProcessRequirement.Builder().signed_with_same_identity().build()\n"
        "assert requirement.mismatch(token) is None\n"
        "os.setuid(4321)\n"
        "reason = requirement.mismatch(token)\n"
        "assert reason is not None and 'Permission denied' in reason, reason\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
