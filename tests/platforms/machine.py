"""A virtual machine of a kernel and a file system in its memory: no disk, no network."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

from tests.distribution import ROOT

from .archive import Unavailable, run

#: What the system in the machine is made of. Its Python has pytest and cffi beside it: nothing is installed there.
PACKAGES = (
    *(
        "base-files",
        "bash",
        "coreutils",
        "dash",
        "grep",
        "hostname",
        "iproute2",
        "kmod",
        "mount",
        "procps",
        "sed",
        "util-linux",
    ),
    *("python3", "python3-cffi-backend", "python3-hypothesis", "python3-pytest"),
)
#: Not worth its memory.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl", "usr/share/i18n", "usr/lib/*/perl*")
#: What machrv or its tests use of a kernel that may be a module.
MODULES = ("kernel/net/unix", "kernel/net/netlink", "kernel/fs/fuse")
#: What the tests there read of the project.
PROJECT = ("tests", "include", "docs", "README.md", "pyproject.toml", "CHANGELOG.md")

INIT = """\
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 TERM=dumb PYTHONUNBUFFERED=1
export MACHRV_TEST_PATIENCE=300 # an emulated processor is some twenty times slower
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /run /tmp
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs tmp /tmp; chmod 1777 /tmp /dev/shm
exec </dev/null >/dev/console 2>&1
ip link set lo up; hostname machine; depmod 2>/dev/null; modprobe unix_diag 2>/dev/null; modprobe fuse 2>/dev/null
ulimit -n 20000
cd /root/machrv
echo "=== kernel $(uname -rm)"
step() { # step NAME COMMAND...
    echo "=== step $1"; local began=$SECONDS; shift; "$@"; echo "=== status $? in $((SECONDS - began)) s"
}
"""
END = "echo '=== end'; sync; echo o >/proc/sysrq-trigger; sleep 30\n"


class Machine(NamedTuple):
    """How one architecture is run: qemu's program, its arguments, the device that the kernel speaks to."""

    program: str
    arguments: tuple[str, ...]
    console: str


MACHINES = {
    "x86_64": Machine("qemu-system-x86_64", ("-cpu", "max", "-nodefaults"), "ttyS0"),
    "aarch64": Machine("qemu-system-aarch64", ("-M", "virt", "-cpu", "cortex-a72", "-nodefaults"), "ttyAMA0"),
}


def missing_tools(architecture: str) -> list[str]:
    """What must be installed first: names of programs."""
    return [name for name in (MACHINES[architecture].program, "cpio", "tar", "dpkg-deb") if shutil.which(name) is None]


def pack(folder: Path, archive: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """A file system for the kernel's memory, out of a folder."""
    given_up = {path for pattern in leave_out for path in folder.glob(pattern)}
    names = ["."]
    for path in sorted(folder.rglob("*")):
        if not given_up.intersection([path, *path.parents]):
            names.append(str(path.relative_to(folder)))
    with archive.open("wb") as into:
        command = ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", "--null"]
        done = subprocess.run(command, cwd=folder, input="\0".join(names).encode() + b"\0", stdout=into)
    if done.returncode:
        raise Unavailable(f"cpio made no archive of {folder}")
    return archive


def overlay(into: Path, wheel: Path, modules: Path | None, steps: dict[str, str]) -> None:
    """Lay out what comes on top of the system: the project as built, the kernel's modules, what is to be run."""
    shutil.rmtree(into, ignore_errors=True)
    for name in ("proc", "sys", "dev", "run", "tmp", "root/machrv", "etc", "usr/lib/python3/dist-packages"):
        (into / name).mkdir(parents=True)
    (into / "etc/passwd").write_text("root:x:0:0::/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n")
    (into / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into / "root/machrv")  # beside its tests, some of which read it
    (into / "usr/lib/python3/dist-packages/machrv.pth").write_text("/root/machrv\n")
    tracked = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PROJECT, cwd=ROOT)
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).exists():
            (into / "root/machrv" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, into / "root/machrv" / name)
    if modules is not None:
        there = into / "usr/lib/modules" / modules.name
        there.mkdir(parents=True)
        for path in modules.glob("modules.*"):
            shutil.copy(path, there)
        for part in MODULES:
            if (modules / part).exists():
                shutil.copytree(modules / part, there / part)
    script = INIT + "".join(f"step {name} {command}\n" for name, command in steps.items()) + END
    (into / "init").write_text(script)
    (into / "init").chmod(0o755)


def boot(architecture: str, kernel: Path, initrd: Path, log: Path, accelerator: str, memory: str, limit: float) -> str:
    """Run the machine until it switches itself off: what it said, which is in `log` too."""
    machine = MACHINES[architecture]
    command = [machine.program, *machine.arguments, "-accel", accelerator, "-smp", "2", "-m", memory]
    command += ["-nographic", "-no-reboot", "-serial", "stdio", "-monitor", "none", "-kernel", str(kernel)]
    command += ["-initrd", str(initrd), "-append", f"console={machine.console} rdinit=/init quiet panic=-1"]
    with log.open("wb") as into:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=into, stderr=into, timeout=limit)
        except subprocess.TimeoutExpired:
            into.write(f"\n=== ended from outside after {limit:.0f} s\n".encode())
    return log.read_text(errors="replace")
