"""Linux: what can be found out about a process there, and whether it is what was asked."""

# What belongs here: one function for each thing that may be asked. What must never happen here: a name or a number that
# the process chose itself, taken for what it is. Its command line, its name, its environment and its working directory
# are its own words, and so is the text of the link /proc/PID/exe: a process in a mount namespace of its own has any
# path it likes. Files are compared by what they are (device and inode), looked up by this process.

from __future__ import annotations

import os
import sys
from errno import EAGAIN

from machrv.errors import RequirementError, UnsupportedError, UnsupportedRequirementError
from machrv.requirement.image import digest_mismatch
from machrv.rights.cgroup import hierarchy, id_of, unit_of
from machrv.rights.pinned import PinnedProcess, cgroup_id, own_number, parent_number
from machrv.requirement.requirement import Mismatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from machrv.message.audit import AuditToken
    from machrv.requirement.darwin import Signature

    Check = Callable[[PinnedProcess, Any], "str | None"]

_ON_LINUX = sys.platform.startswith("linux")

#: Why the rest of the vocabulary is refused.
UNSUPPORTED_BECAUSE = (
    "Linux knows no signatures of running programs. It can check digest(), identifier() (a path), "
    "signed_with_same_identity() (the same file), user(), group(), cgroup(), systemd_unit(), security_label() and the two of "
    "parents"
)


class LinuxEvaluator:
    """Holds a process against what was asked."""

    __slots__ = ("_asked",)

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = dict(asked)

    def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
        """Why the process is not what was asked; None if it is. What cannot be looked at is not what was asked.

        Raises UnsupportedError anywhere but on Linux.
        """
        if not _ON_LINUX:
            raise UnsupportedError("this requirement is for Linux: only there can it be checked")
        try:
            with PinnedProcess(audit_token) as process:
                for name, wanted in self._asked.items():
                    reason = _CHECKS[name](process, wanted)
                    if reason is not None:
                        return reason
                process.confirm()
        except (OSError, OverflowError) as error:  # A number that no process can have.
            return Mismatch(f"it could not be looked at: {error}", getattr(error, "errno", None))
        return None


def evaluator(asked: Mapping[str, Any], own_signature: Signature | None) -> LinuxEvaluator:
    """What holds processes against `asked`. Raises RequirementError for what can never be met here."""
    identifiers = [*filter(None, [asked.get("identifier")]), *asked.get("identifier_is_one_of", ())]
    for path in identifiers:
        if not os.path.isabs(path):
            raise RequirementError(
                f"on Linux an identifier is the absolute path of the program's file: {path!r} is none. A script's "
                "program is its interpreter"
            )
    if identifiers and "check_dynamic_validity_only" in asked:
        raise UnsupportedRequirementError(
            "on Linux an identifier is a file on the disk, and check_dynamic_validity_only() is not to look there: ask "
            "for signed_with_same_identity() or digest() instead"
        )
    if not _ON_LINUX:
        return LinuxEvaluator(asked)  # To be looked at.
    if "security_label" in asked:
        _check_labels_exist()
    if "cgroup" in asked or "systemd_unit" in asked:
        _check_cgroups_are_told()
    for name, kind in (("user", "uid"), ("group", "gid")):
        if name in asked:
            _check_id_is_known(name, kind, asked[name])
    return LinuxEvaluator(asked)


def _check_id_is_known(name: str, kind: str, wanted: int) -> None:
    """In a user namespace that does not know all ids, one id stands for all that it does not know."""
    with open(f"/proc/sys/kernel/overflow{kind}", encoding="ascii") as overflow:
        if int(overflow.read()) != wanted:
            return
    with open(f"/proc/self/{kind}_map", encoding="ascii") as known:
        if known.read().split() != ["0", "0", str(0xFFFFFFFF)]:
            raise UnsupportedRequirementError(
                f"{name}({wanted}) cannot be checked: in this user namespace {wanted} stands for every {name} that it "
                "does not know"
            )


def _check_labels_exist() -> None:
    try:
        with open("/proc/self/attr/current", "rb") as file:
            if file.read().strip(b"\0\n"):
                return
        cause = "this process itself has no label"
    except OSError as error:
        cause = str(error)
    raise UnsupportedRequirementError(
        f"security_label() cannot be checked: no security module of this system labels processes ({cause})"
    )


def _check_cgroups_are_told() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        cgroup_id(pidfd)
        cause = "" if hierarchy() else "cgroup2 is not mounted"
    except OSError as error:
        cause = str(error)
    finally:
        os.close(pidfd)
    if cause:
        raise UnsupportedRequirementError(f"cgroup() and systemd_unit() cannot be checked here: {cause}")


# -- one for each thing that may be asked: why the process is not `wanted`, None if it is ---------------------------------


def _identifier(process: PinnedProcess, wanted: str) -> str | None:
    return _identifier_is_one_of(process, (wanted,))


def _identifier_is_one_of(process: PinnedProcess, wanted: tuple[str, ...]) -> str | None:
    image = os.fstat(process.image())
    for path in wanted:
        try:
            if os.path.samestat(image, os.stat(path)):
                return None
        except OSError:
            pass  # Not there: then the process does not run it.
    return f"it runs {_shown(process)}, which is not the file that is now at {' or '.join(map(repr, wanted))}"


def _signed_with_same_identity(process: PinnedProcess, wanted: bool) -> str | None:
    if os.path.samestat(os.fstat(process.image()), os.stat("/proc/self/exe")):
        return None
    return f"it runs {_shown(process)}, and this process {os.readlink('/proc/self/exe')!r}"


def _digest(process: PinnedProcess, wanted: str) -> str | None:
    found = digest_mismatch(process.image(), wanted)
    return None if found is None else f"{_shown(process)}, which it runs, has the digest {found}"


def _user(process: PinnedProcess, wanted: int) -> str | None:
    real, effective, saved, _ = map(int, process.status("Uid"))
    if real == effective == saved == wanted:
        return None
    return f"its real, effective and saved user ids are {real}, {effective} and {saved}"


def _group(process: PinnedProcess, wanted: int) -> str | None:
    groups = {int(process.status("Gid")[1]), *map(int, process.status("Groups"))}
    return None if wanted in groups else f"its groups are {', '.join(map(str, sorted(groups)))}"


def _parent_is_this_process(process: PinnedProcess, wanted: bool) -> str | None:
    parent = int(process.status("PPid")[0])
    return None if parent == own_number() else f"its parent is process {parent}"


def _is_parent_of_this_process(process: PinnedProcess, wanted: bool) -> str | None:
    # It runs (`confirm`), so the number is its own, and this process's parent has no other.
    parent = parent_number()
    return None if parent == process.number else f"the parent of this process is process {parent}"


def _cgroup(process: PinnedProcess, wanted: str) -> str | None:
    number = process.cgroup_id()
    try:
        if id_of(wanted) == number:
            return None
    except FileNotFoundError:
        return f"there is no cgroup {wanted!r}"
    path = _cgroup_path(process, number)
    return None if path.startswith(f"{wanted.rstrip('/')}/") else f"its cgroup is {path!r}"


def _systemd_unit(process: PinnedProcess, wanted: tuple[str, int | None]) -> str | None:
    path = _cgroup_path(process, process.cgroup_id())
    return None if unit_of(path) == wanted else f"its cgroup is {path!r}"


def _cgroup_path(process: PinnedProcess, number: int) -> str:
    """The path of the process's cgroup, which is the one with this id."""
    path = process.cgroup()
    try:
        if id_of(path) == number:
            return path
    except FileNotFoundError:
        pass
    raise OSError(EAGAIN, f"its cgroup {path!r} is not the one it is in: it was moved, or is hidden from this process")


def _security_label(process: PinnedProcess, wanted: str) -> str | None:
    found = process.security_label()
    return None if found == wanted else f"its security label is {found!r}"


def _check_dynamic_validity_only(process: PinnedProcess, wanted: bool) -> str | None:
    return None  # What runs is all that is ever looked at: see `evaluator`.


def _shown(process: PinnedProcess) -> str:
    """The path of what it runs, for a person to read: anybody can make that say anything."""
    return repr(os.readlink(f"/proc/self/fd/{process.image()}"))


_CHECKS: dict[str, Check] = {
    "identifier": _identifier,
    "identifier_is_one_of": _identifier_is_one_of,
    "signed_with_same_identity": _signed_with_same_identity,
    "check_dynamic_validity_only": _check_dynamic_validity_only,
    "digest": _digest,
    "user": _user,
    "group": _group,
    "parent_is_this_process": _parent_is_this_process,
    "is_parent_of_this_process": _is_parent_of_this_process,
    "cgroup": _cgroup,
    "systemd_unit": _systemd_unit,
    "security_label": _security_label,
}

SUPPORTED = frozenset(_CHECKS)
