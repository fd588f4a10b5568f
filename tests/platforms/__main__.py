"""`python -m tests.platforms`: doctor, demo and the kernel's tests on every kernel that can be had, in a virtual machine.

Kernels are Debian's, the newest of each series; so is the little that is around them (its release "trixie"). They are had by
this machine's apt, from the mirror that it is set up with, and kept. Nothing is installed here, nothing needs root. It takes
qemu-system, cpio and ziglang, whose compiler makes the wheel for the machine, and some three minutes a kernel without KVM.

Exit status 0 if all is green, 1 if anything is not, 2 if something is missing here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.release import build
from tests.release.checks import Failure

from . import machine, report
from .archive import ARCHITECTURES, Archive, Unavailable, own_mirror

#: On this architecture every series; on the other one the series that Debian's stable release has.
EVERY, ONE = "x86_64", {"aarch64": "6.12"}
#: What a kernel can change: who sent a message, how rights travel, wait and die, what there is to wait with.
TESTS = (
    *("test_sender_gone", "test_linux_identity", "test_audit", "test_pid_reuse", "test_requirement_linux"),
    *("test_linux_transfer", "test_linux_receive_rights", "test_linux_death", "test_linux_order", "test_linux_events"),
    *("test_linux_bootstrap", "test_linux_fileports", "test_linux_fork", "test_launch", "test_doctor"),
)
PYTEST = "-q -rfEs --tb=short -p no:cacheprovider -m 'not slow' " + " ".join(f"tests/{name}.py" for name in TESTS)
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "machrv-platforms"

EXAMPLES = """\
examples:
  python -m tests.platforms                       every kernel: about three quarters of an hour
  python -m tests.platforms --list                which there are
  python -m tests.platforms 5.10 aarch64/6.12     these two
  python -m tests.platforms 6.12 --tests '-q tests/test_sender_gone.py'
  python -m tests.platforms --kernel bzImage --modules lib/modules/6.5.0     one that you have
"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments. Where things come from can be said in the environment too."""
    given = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m tests.platforms",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="KERNEL", help="a series such as 6.12, or aarch64/6.12 (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="say which kernels can be had, and do nothing")
    parser.add_argument(
        "--tests", default=PYTEST, metavar="ARGS", help="pytest's arguments (default: what a kernel can change)"
    )
    where = parser.add_argument_group("where things come from")
    mirror = "(default: $MACHRV_DEBIAN_{}, else what this machine's apt is set up with)"
    where.add_argument(
        "--mirror", default=given("MACHRV_DEBIAN_MIRROR"), metavar="URL", help=f"Debian {mirror.format('MIRROR')}"
    )
    where.add_argument(
        "--security",
        default=given("MACHRV_DEBIAN_SECURITY"),
        metavar="URL",
        help=f"its updates {mirror.format('SECURITY')}",
    )
    where.add_argument(
        "--cache",
        type=Path,
        default=Path(given("MACHRV_PLATFORMS") or CACHE),
        metavar="DIR",
        help="what is kept: some GB (default: $MACHRV_PLATFORMS, else ~/.cache/machrv-platforms)",
    )
    where.add_argument(
        "--kernel",
        type=Path,
        metavar="FILE",
        help="the image of a kernel that you have; with --arch, not one of Debian's",
    )
    where.add_argument(
        "--modules", type=Path, metavar="DIR", help="the modules of that kernel: its lib/modules/VERSION"
    )
    where.add_argument(
        "--arch", choices=machine.MACHINES, default="x86_64", help="the architecture of --kernel and --root"
    )
    where.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="a file system with Python, pytest, hypothesis and cffi to use in place of Debian's",
    )
    how = parser.add_argument_group("how it is run")
    how.add_argument(
        "--accel",
        default="tcg",
        choices=["tcg", "kvm"],
        help="qemu's accelerator (default: %(default)s, which is everywhere)",
    )
    how.add_argument("--memory", default="3G", help="of the machine (default: %(default)s)")
    how.add_argument(
        "--limit", type=float, default=1800, metavar="SECONDS", help="for one kernel (default: %(default)s)"
    )
    return parser


class Platforms:
    """Everything that one run of the command needs; what is made for one kernel serves the next one."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self._options, self._work = options, work
        self._cache: Path = options.cache.absolute()
        self._archives: dict[str, Archive] = {}
        self._made: dict[str, tuple[Path, Path]] = {}

    def archive(self, architecture: str) -> Archive:
        """Debian's packages for it."""
        if architecture not in self._archives:
            mirror = self._options.mirror or own_mirror("Debian")
            security = self._options.security or own_mirror("Debian-Security")
            if not mirror or not security:
                raise Unavailable("this machine's apt knows no Debian: name its mirrors with --mirror and --security")
            self._archives[architecture] = Archive(architecture, self._cache, mirror, security)
        return self._archives[architecture]

    def names(self) -> list[str]:
        """The kernels that are asked for, as "architecture/series"."""
        if self._options.kernel:
            return [f"{self._options.arch}/{self._options.kernel.name}"]
        asked = [name if "/" in name else f"{EVERY}/{name}" for name in self._options.names]
        if asked:
            return asked
        every = [f"{EVERY}/{series}" for series in self.archive(EVERY).kernels()]
        return every + [f"{architecture}/{series}" for architecture, series in ONE.items()]

    def listed(self) -> list[str]:
        """All that can be asked for."""
        return [f"{name}/{series}" for name in ARCHITECTURES for series in self.archive(name).kernels()]

    def run(self, name: str) -> report.Result:
        """Boot one kernel."""
        architecture, _, series = name.partition("/")
        steps = {
            "doctor": "python3 -m machrv doctor",
            "demo": "python3 -m machrv demo",
            "tests": f"python3 -m pytest {self._options.tests}",
        }
        system, wheel = self._system(architecture)
        kernel, modules = self._kernel(architecture, series)
        machine.overlay(self._work / "overlay", wheel, modules, steps)
        initrd = self._work / "initrd"
        machine.pack(self._work / "overlay", initrd)
        together = self._work / "together"
        with together.open("wb") as into:
            for part in (system, initrd):
                into.write(part.read_bytes())
        log = self._cache / "logs" / f"{architecture}-{series}.txt"
        log.parent.mkdir(exist_ok=True)
        options = self._options
        said = machine.boot(architecture, kernel, together, log, options.accel, options.memory, options.limit)
        return report.read(name, list(steps), said)

    def _kernel(self, architecture: str, series: str) -> tuple[Path, Path | None]:
        """The image, and the folder of its modules."""
        if self._options.kernel:
            return self._options.kernel, self._options.modules
        found = self.archive(architecture).kernels()
        if series not in found:
            raise Unavailable(f"there is no kernel {series} for {architecture}; there are {', '.join(found)}")
        folder = self.archive(architecture).kernel(found[series])
        [image] = [path for path in folder.rglob("vmlinuz*") if path.is_file()]
        modules = [path for path in folder.glob("usr/lib/modules/*") if path.is_dir()]
        return image, modules[0] if modules else None

    def _system(self, architecture: str) -> tuple[Path, Path]:
        """The packed system around the kernel, and the project's wheel for it."""
        if architecture not in self._made:
            missing = machine.missing_tools(architecture)
            if missing:
                raise Unavailable(
                    f"install first: {', '.join(missing)} (apt install qemu-system-x86 qemu-system-arm cpio)"
                )
            dist = self._work / architecture
            dist.mkdir()
            [wanted] = [one for one in build.LINUX if one.architecture == architecture and one.library != build.MUSL]
            build.linux(dist, self._work, wanted)
            [wheel] = dist.glob("*.whl")
            root: Path = self._options.root or self.archive(architecture).system(machine.PACKAGES)
            packed = machine.pack(root, self._work / f"{architecture}.cpio", machine.LEFT_OUT)
            self._made[architecture] = packed, wheel
        return self._made[architecture]


def main() -> int:
    """One kernel after the other; then the table."""
    options = parser().parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="machrv-platforms-", dir=os.environ.get("TMPDIR")) as work:
        platforms = Platforms(options, Path(work))
        try:
            if options.list:
                print(*platforms.listed(), sep="\n")
                return 0
            for name in platforms.names():
                print(f"{name} ...", file=sys.stderr, flush=True)
                began = monotonic()
                try:
                    result = platforms.run(name)
                except Unavailable as error:
                    result = report.nothing(name, str(error))
                results.append(result)
                state = "ok" if result.green else f"NOT GREEN {result.trouble}"
                print(f"  {state}, {monotonic() - began:.0f} s: {result.tests}", file=sys.stderr, flush=True)
                for reason in sorted(set(result.skipped)):
                    print(f"    skipped: {reason}", file=sys.stderr, flush=True)
        except (Unavailable, Failure) as error:
            print(f"tests.platforms: {error}", file=sys.stderr)
            return 2
    print(report.table(results))
    return 0 if all(result.green for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
