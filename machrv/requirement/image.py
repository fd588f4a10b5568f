"""Linux: what a program's file contains, as a digest."""

# What belongs here: digests of open files. What must never happen here: a path. A path may lead to another file by now;
# the descriptor of a process's image does not.

from __future__ import annotations

import fcntl
import os
from errno import EFBIG
from sys import byteorder
from time import time_ns

#: ioctl(fd, FS_IOC_MEASURE_VERITY, struct fsverity_digest *): _IOWR('f', 134, 4 bytes) as most architectures number it.
#: Where it is numbered otherwise, no file has a measurement. Linux 5.4, include/uapi/linux/fsverity.h.
_FS_IOC_MEASURE_VERITY = 0xC0046686
_FS_VERITY_ALGORITHMS = {1: "sha256", 2: "sha512"}
_MAX_DIGEST_SIZE = 64

#: A file that changed less than this long before it was read may have changed again within one tick of its time stamp.
_SETTLED_NS = 2_000_000_000

#: The peer chooses what it runs, and a file of nothing but holes takes as long to read as any other.
MAX_SIZE = 1 << 30

_CACHE_SIZE = 64
_cache: dict[tuple[int, ...], str] = {}


def digest_mismatch(image: int, wanted: str) -> str | None:
    """None if the file that `image` (O_PATH will do) is open on has the digest `wanted`; otherwise which it has.

    A digest is its fs-verity measurement, which the kernel holds every page against that it reads, in a file that can
    never change again; or the SHA-256 of its contents as they are now. "sha256:<hexadecimal>". Raises OSError if the file
    cannot be read, or is too large to be read while others wait.
    """
    fd = os.open(f"/proc/self/fd/{image}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        measured = _measurement(fd)
        if measured == wanted:
            return None
        contents = contents_digest(fd)
    finally:
        os.close(fd)
    if contents == wanted:
        return None
    return f"{contents}, and {measured} by fs-verity" if measured else contents


def _measurement(fd: int) -> str | None:
    # struct fsverity_digest: two 16-bit numbers, the algorithm and the size (first of the room, then of the digest).
    answer = bytearray(4 + _MAX_DIGEST_SIZE)
    answer[2:4] = _MAX_DIGEST_SIZE.to_bytes(2, byteorder)
    try:
        fcntl.ioctl(fd, _FS_IOC_MEASURE_VERITY, answer)
    except OSError:  # ENODATA: the file has none. ENOTTY, EOPNOTSUPP: the file system or the kernel has no such thing.
        return None
    algorithm, size = (int.from_bytes(answer[at : at + 2], byteorder) for at in (0, 2))
    name = _FS_VERITY_ALGORITHMS.get(algorithm)
    return f"{name}:{answer[4 : 4 + size].hex()}" if name else None


def contents_digest(fd: int) -> str:
    """The SHA-256 of a file's contents, remembered for as long as the file is not changed."""
    before = os.fstat(fd)
    known = _cache.get(_version(before))
    if known is not None:
        return known
    if before.st_size > MAX_SIZE:
        raise OSError(
            EFBIG,
            f"the program has {before.st_size} bytes, and more than {MAX_SIZE} are not read: enable fs-verity for its file",
        )
    import hashlib  # Late: it is dear, and most requirements ask for no digest.

    began = time_ns()
    digest = hashlib.sha256()
    offset = 0
    while offset < before.st_size and (chunk := os.pread(fd, 1 << 20, offset)):
        digest.update(chunk)
        offset += len(chunk)
    answer = f"sha256:{digest.hexdigest()}"
    if _version(os.fstat(fd)) == _version(before) and began - before.st_ctime_ns > _SETTLED_NS:
        if len(_cache) >= _CACHE_SIZE:
            _cache.clear()
        _cache[_version(before)] = answer
    return answer


def _version(found: os.stat_result) -> tuple[int, ...]:
    """Which file, in which state: nobody but the kernel sets a change time."""
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns
