"""Debian's packages, of any architecture and release, by way of this machine's apt. Nothing is installed, or run."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

#: Where Debian keeps kernels: its releases from the oldest that is still mended to the newest.
SUITES = ("bullseye-security", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid")
#: The release that the system around the kernel is taken from.
SYSTEM = "trixie"
#: Debian's names of the architectures that Python names otherwise.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_SERIES = re.compile(r"^linux-(?:image|binary)-(\d+\.\d+)\.\d\S*-cloud-\w+$")


class Unavailable(Exception):
    """Something is not to be had here; says what."""


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command prints; Unavailable with all it said, if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:3])} ...: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def own_mirror(label: str) -> str | None:
    """The address that this machine's own apt has for Debian, or for Debian-Security."""
    if shutil.which("apt-get") is None:
        return None
    for line in run("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)").splitlines():
        found, _, address = line.partition("|")
        if found == label:
            return address.rstrip("/")
    return None


class Archive:
    """One architecture's packages. `cache` keeps what was downloaded."""

    def __init__(self, architecture: str, cache: Path, mirror: str, security: str) -> None:
        self.architecture = architecture
        self._debian = ARCHITECTURES[architecture]
        self._folder = cache / f"apt-{self._debian}"
        self._mirror, self._security = mirror, security

    def kernels(self) -> dict[str, list[str]]:
        """The newest package of each series of kernels, and what must be downloaded with it: by series, such as "6.12"."""
        pattern = f"^linux-(image|binary)-[0-9].*-cloud-{self._debian}$"
        said = self._apt("kernels", SUITES, "apt-cache", "search", "--names-only", pattern)
        names = [line.split()[0] for line in said.splitlines()]
        newest: dict[str, str] = {}
        for name in sorted(names, key=_version):
            match = _SERIES.match(name)
            # Where there is a linux-binary-..., linux-image-... of the same version is an empty package.
            if match and not (name.startswith("linux-image-") and name.replace("-image-", "-binary-", 1) in names):
                newest[match[1]] = name
        together = {series: [name] for series, name in newest.items()}
        for name in newest.values():
            if name.startswith("linux-binary-"):
                together[_SERIES.match(name)[1]].append(name.replace("-binary-", "-modules-", 1))  # type: ignore[index]
        return dict(sorted(together.items(), key=lambda item: _version(item[0])))

    def kernel(self, packages: list[str]) -> Path:
        """A folder with the unpacked packages of one kernel."""
        folder = self._folder / packages[0]
        if not folder.exists():
            debs = self._folder / "kernels" / "debs"
            shutil.rmtree(debs, ignore_errors=True)
            debs.mkdir(parents=True)
            self._apt("kernels", SUITES, "apt-get", "-qq", "download", *packages, cwd=debs)
            unpack(debs.glob("*.deb"), folder)
        return folder

    def system(self, packages: Iterable[str]) -> Path:
        """A folder with these packages of SYSTEM and all that they need, unpacked; made once."""
        folder = self._folder / "root"
        if not folder.exists():
            self._apt("system", (SYSTEM,), "apt-get", "-qq", "clean")
            install = ("-qq", "-y", "--no-install-recommends", "--download-only", "install")
            self._apt("system", (SYSTEM,), "apt-get", *install, *packages)
            unpack((self._folder / "system" / "cache" / "archives").glob("*.deb"), folder)
        return folder

    def _apt(self, name: str, suites: Iterable[str], *command: str, cwd: Path | None = None) -> str:
        """apt over these suites alone, with lists and a state of its own: a machine on which nothing is installed."""
        folder = self._folder / name
        lists = folder / "lists"
        sources = []
        for suite in suites:
            # An index's signature is checked; not its age, since mirrors that stand still have sid's of some weeks ago.
            address = self._security if suite.endswith("-security") else self._mirror
            sources.append(f"deb [check-valid-until=no] {address} {suite} main\n")
        for part in (lists / "partial", folder / "cache" / "archives" / "partial"):
            part.mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text("".join(sources))
        (folder / "status").touch()
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": lists,
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": self._debian,
            "APT::Architectures": self._debian,
            "APT::Sandbox::User": "",
        }
        given = [f"-o{key}={value}" for key, value in options.items()]
        if not any(path.is_file() and path.name != "lock" for path in lists.iterdir()):
            run("apt-get", *given, "-qq", "update")
        return run(command[0], *given, *command[1:], cwd=cwd)


def unpack(packages: Iterable[Path], folder: Path) -> None:
    """Unpack into `folder`, which is there if all went well. What a package would do when installed is not done."""
    made = folder.with_name(folder.name + ".part")
    shutil.rmtree(made, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (made / "usr" / name).mkdir(parents=True)
        (made / name).symlink_to(f"usr/{name}")
    for package in sorted(packages):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as tar:
            untar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(made)]
            done = subprocess.run(untar, stdin=tar.stdout, capture_output=True, text=True)
        if done.returncode or tar.returncode:
            raise Unavailable(f"{package.name} cannot be unpacked: {done.stderr.strip()[-400:]}")
    made.rename(folder)


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]
