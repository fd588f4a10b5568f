"""What Linux finds out about the program that a process runs: its file, and what that contains."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from errno import ENODATA, ENOTTY
from pathlib import Path

import pytest

from machrv import current
from machrv.requirement import image as image_module

from .processes import Start, ask, cat, needs_root, python, start, wait_for_program, why_not

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux")

__all__ = ["cat", "start"]  # fixtures


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
    wait_for_program(process, "cat")
    assert os.readlink(f"/proc/{process.pid}/exe") == str(cat)
    assert why_not(ask().identifier(str(cat)), process) is not None
    assert why_not(ask().identifier(str(evil)), process) is None


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
