"""ProcessRequirement: what is asked of a process, how it is put together, and whether it is met.

The names are those of Chromium, base/mac/process_requirement.h of 2025, in Python's spelling; those below the line in
the builder have no counterpart there.
"""

# The vocabulary, and the combinations that make no sense or let the wrong ones in. What must never happen here: a question
# that is dropped, weakened or understood as another one; or finding anything out about a process: that is the evaluator's,
# one per platform. What a platform cannot check is refused when the requirement is built, never when it is evaluated.

from __future__ import annotations

import os
import sys

from machrv.errors import RequirementError, UnsupportedRequirementError
from machrv.rights.cgroup import hierarchy, is_unit
from machrv.requirement.requirement import Requirement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType
    from typing import Any, Protocol, TypeAlias

    from typing_extensions import Self

    from machrv.message import AuditToken
    from machrv.requirement.darwin import Signature

    class Evaluator(Protocol):
        """What a platform makes of what was asked."""

        def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
            """Why the process does not fulfil it; None if it does."""


_TEAMS = ("has_same_team_identifier", "team_identifier")
_CERTIFICATE_TYPES = (
    "has_same_certificate_type",
    "developer_id_certificate_type",
    "app_store_certificate_type",
    "development_certificate_type",
)

#: Of each group, at most one may be asked.
_EXCLUSIVE = (
    ("identifier", "identifier_is_one_of"),
    ("signed_with_same_identity", *_TEAMS),
    ("signed_with_same_identity", *_CERTIFICATE_TYPES),
    ("parent_is_this_process", "is_parent_of_this_process"),
)


class Builder:
    """Collects what is asked of a process: `ProcessRequirement.Builder().identifier("/usr/bin/x").user(0).build()`.

    Every method but `build` returns the builder, and may be called at most once. A process must fulfil all that is
    asked. A bad value or a second call raises RequirementError at once, what does not go together does so in `build`.
    """

    def __init__(self, platform: str = sys.platform, own_signature: Signature | None = None) -> None:
        """For `platform`, a value of sys.platform: a requirement for another one can be built and read, not evaluated.

        `own_signature` stands in for the signature of this process (macOS; None: ask the system).
        """
        self._platform = platform
        self._own_signature = own_signature
        self._asked: dict[str, Any] = {}

    def _ask(self, name: str, value: object = True) -> Self:
        if name in self._asked:
            raise RequirementError(f"{name}() was called before: each may be asked at most once")
        self._asked[name] = value
        return self

    def identifier(self, identifier: str) -> Self:
        """Which program it is. macOS: the identifier in its code signature. Linux: the absolute path of its file."""
        return self._ask("identifier", _identifier(identifier))

    def identifier_is_one_of(self, identifiers: Iterable[str]) -> Self:
        """As `identifier`, where several will do."""
        if isinstance(identifiers, str):
            raise RequirementError("identifier_is_one_of takes several identifiers: for one, use identifier()")
        found = tuple(map(_identifier, identifiers))
        if not found:
            raise RequirementError("identifier_is_one_of needs at least one identifier: nobody is one of none")
        return self._ask("identifier_is_one_of", found)

    def signed_with_same_identity(self) -> Self:
        """It is the same as this process. macOS: same team and same certificate type. Linux: it runs the same file."""
        return self._ask("signed_with_same_identity")

    def has_same_team_identifier(self) -> Self:
        """macOS: signed by the team that signed this process. Ask for a certificate type too."""
        return self._ask("has_same_team_identifier")

    def has_same_certificate_type(self) -> Self:
        """macOS: signed with the type of certificate that this process is signed with. Ask for a team too."""
        return self._ask("has_same_certificate_type")

    def team_identifier(self, team_identifier: str) -> Self:
        """macOS: signed by this team. Ask for a certificate type too."""
        if not isinstance(team_identifier, str) or not (team_identifier.isascii() and team_identifier.isalnum()):
            raise RequirementError(f"a team identifier consists of ASCII letters and digits: not {team_identifier!r}")
        return self._ask("team_identifier", team_identifier)

    def developer_id_certificate_type(self) -> Self:
        """macOS: signed with a Developer ID certificate, for distribution outside the App Store. Ask for a team too."""
        return self._ask("developer_id_certificate_type")

    def app_store_certificate_type(self) -> Self:
        """macOS: signed by the App Store. Ask for a team too."""
        return self._ask("app_store_certificate_type")

    def development_certificate_type(self) -> Self:
        """macOS: signed with a certificate for development, which cannot be distributed. Ask for a team too."""
        return self._ask("development_certificate_type")

    def check_dynamic_validity_only(self) -> Self:
        """Judge what runs, not what lies on the disk by now, so that a pending update does no harm.

        macOS: the signature is checked against the Info.plist data that the peer sends, so only a server can be judged
        so. Linux: what runs is judged anyway; not together with an identifier, which is a file on the disk.
        """
        return self._ask("check_dynamic_validity_only")

    # -- without a counterpart in Chromium; Linux only ----------------------------------------------------------------

    def digest(self, digest: str | bytes) -> Self:
        """Linux: what the file that it runs contains.

        Its fs-verity measurement where the file has one, or the SHA-256 of its contents: 32 bytes (64 for a measurement
        with SHA-512), or as many in hexadecimal, with or without "sha256:" or "sha512:" in front.
        """
        return self._ask("digest", _digest(digest))

    def user(self, uid: int) -> Self:
        """Linux: its real, effective and saved user id are all `uid`."""
        return self._ask("user", _number("user", uid))

    def group(self, gid: int) -> Self:
        """Linux: `gid` is its effective group id or one of its supplementary groups."""
        return self._ask("group", _number("group", gid))

    def cgroup(self, path: str) -> Self:
        """Linux: it is in this control group of cgroup2, or below: "/system.slice/web.service", with or without the mount point.

        The group is told by the process's pidfd and compared by its id, not by its name. What may move a process there is
        the system's to decide: usually root, and the user of a group that was delegated.
        """
        return self._ask("cgroup", _cgroup(path))

    def systemd_unit(self, unit: str, uid: int | None = None) -> Self:
        """Linux: systemd runs it as part of this unit: "web.service". Of the system's manager, or of the user's `uid`.

        As `cgroup`: the unit is the one that its control group is of.
        """
        if not isinstance(unit, str) or not is_unit(unit):
            raise RequirementError(
                f"a unit is a service, scope, socket, mount or swap, such as 'web.service': not {unit!r}"
            )
        return self._ask("systemd_unit", (unit, None if uid is None else _number("user", uid)))

    def parent_is_this_process(self) -> Self:
        """Linux: it is a child of this process. For a server that judges its clients."""
        return self._ask("parent_is_this_process")

    def is_parent_of_this_process(self) -> Self:
        """Linux: this process is its child. For a client that judges its server: nobody else can be that."""
        return self._ask("is_parent_of_this_process")

    def security_label(self, label: str) -> Self:
        """Linux: its label by the security module that is in force (an SELinux context, an AppArmor profile)."""
        if not isinstance(label, str) or not label.strip() or "\0" in label:
            raise RequirementError(f"a security label is a string that is not empty: not {label!r}")
        return self._ask("security_label", label)

    # -----------------------------------------------------------------------------------------------------------------

    def build(self) -> ProcessRequirement:
        """The requirement.

        Raises UnsupportedRequirementError (an UnsupportedError) for what the platform cannot check, and RequirementError
        for a contradiction, for a combination that others could meet too easily, and where nothing is asked.
        """
        evaluators = self._evaluators()
        for name in self._asked:
            if name not in evaluators.SUPPORTED:
                raise UnsupportedRequirementError(f"{name}() cannot be checked here: {evaluators.UNSUPPORTED_BECAUSE}")
        self._check_combinations()
        return ProcessRequirement(self._asked, evaluators.evaluator(self._asked, self._own_signature))

    def _evaluators(self) -> ModuleType:
        if self._platform.startswith("linux"):
            import machrv.requirement.linux as linux  # Of one platform, as below.

            return linux
        if self._platform == "darwin":
            import machrv.requirement.darwin as darwin

            return darwin
        raise UnsupportedRequirementError(
            f"there are no requirements for the platform {self._platform!r}: there are for 'linux' and 'darwin'"
        )

    def _check_combinations(self) -> None:
        for group in _EXCLUSIVE:
            asked = [f"{name}()" for name in group if name in self._asked]
            if len(asked) > 1:
                raise RequirementError(f"{' and '.join(asked)} exclude each other: ask one of them")
        if not self._asked.keys() - {"check_dynamic_validity_only"}:
            raise RequirementError("nothing is asked, so every process would do: ask something, or set no requirement")
        team = next((name for name in _TEAMS if name in self._asked), None)
        certificate_type = next((name for name in _CERTIFICATE_TYPES if name in self._asked), None)
        if team and not certificate_type:
            raise RequirementError(
                f"{team}() without a certificate type is unsafe: anybody can make a certificate that names the team. "
                "Ask for a type too: developer_id_certificate_type(), has_same_certificate_type(), ..."
            )
        if certificate_type and not team:
            raise RequirementError(
                f"{certificate_type}() without a team is unsafe: everybody who has such a certificate would do. "
                "Ask for a team too: has_same_team_identifier() or team_identifier()"
            )


def _identifier(identifier: object) -> str:
    if not isinstance(identifier, str) or not identifier or not identifier.isprintable():
        raise RequirementError(f"an identifier is a printable string that is not empty: not {identifier!r}")
    return identifier


def _number(what: str, value: object) -> int:
    # 2**32 - 1 is no id: it stands for "unchanged" and "unset".
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 0xFFFFFFFF:
        raise RequirementError(f"a {what} id is a number from 0 to 2**32 - 2: not {value!r}")
    return value


def _cgroup(path: object) -> str:
    """The path within cgroup2."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise RequirementError(f"a control group is an absolute path without '..': not {path!r}")
    path = os.path.normpath(path)
    top = hierarchy() if path.startswith("/sys/") and os.path.exists("/proc/self/mountinfo") else None
    return path[len(top) :] or "/" if top and f"{path}/".startswith(f"{top}/") else path


def _digest(digest: object) -> str:
    """The digest in hexadecimal, after its algorithm."""
    if isinstance(digest, (bytes, bytearray)):
        digest = digest.hex()
    if isinstance(digest, str):
        algorithm, _, number = digest.lower().rpartition(":")
        for name, digits in (("sha256", 64), ("sha512", 128)):
            if algorithm in ("", name) and len(number) == digits and not number.strip("0123456789abcdef"):
                return f"{name}:{number}"
    raise RequirementError(f"a digest is 32 or 64 bytes, or as many in hexadecimal: not {digest!r}")


_Builder = Builder


class ProcessRequirement(Requirement):
    """What a process must be. Immutable; make it with `ProcessRequirement.Builder()`.

    What each check is worth, and what it does not show, is in docs/security.md.
    """

    __slots__ = ("_asked", "_evaluator", "needs_info_plist")

    Builder: TypeAlias = _Builder

    def __init__(self, asked: Mapping[str, Any], evaluator: Evaluator) -> None:
        """For the builder: what was asked, by the names of its methods, and who finds out."""
        self._asked = dict(asked)
        self._evaluator = evaluator
        self.needs_info_plist: bool = "check_dynamic_validity_only" in asked

    @property
    def text(self) -> str | None:
        """The requirement as Security.framework reads it; None on platforms without such a language."""
        return getattr(self._evaluator, "text", None)

    def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
        """Whether the process that sent a message with this token meets the requirement, now.

        A token that is not from a received message's trailer proves nothing. `info_plist` is the server's Info.plist
        data: `check_dynamic_validity_only` on macOS needs it. Raises UnsupportedError for a requirement that was built
        for another platform; whatever else goes wrong is a no.
        """
        return self.mismatch(audit_token, info_plist) is None

    def mismatch(self, audit_token: AuditToken, info_plist: bytes = b"") -> str | None:
        """As `validate`, with the reason: why the process does not meet the requirement; None if it does."""
        return self._evaluator.mismatch(audit_token, info_plist)

    @staticmethod
    def always_matches_for_testing() -> ProcessRequirement:
        """A requirement that every process meets."""
        return ProcessRequirement({"always_matches_for_testing": True}, _Always())

    @staticmethod
    def never_matches_for_testing() -> ProcessRequirement:
        """A requirement that no process meets."""
        return ProcessRequirement({"never_matches_for_testing": True}, _Never())

    def __repr__(self) -> str:
        asked = (name if value is True else f"{name}={value!r}" for name, value in self._asked.items())
        return f"ProcessRequirement({', '.join(asked)})"


class _Always:
    def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
        return None


class _Never:
    def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
        return "no process ever does"
