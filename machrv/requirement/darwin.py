"""macOS: a requirement in the language of Security.framework, and a process held against it.

The text can be built and read on any platform. Its pieces are the requirements of Apple's technical note TN3127; as in
Chromium (base/mac/process_requirement.cc of 2025), a Developer ID is told by the certificate of the authority (marker
6.2.6) and the leaf (6.1.13), the App Store by the leaf (6.1.9), development by the authority (6.2.1).

Where Chromium makes a requirement that everybody meets, this refuses to make one: where this process itself has no
identity (unsigned, ad-hoc signed), and for an identifier without a team, since anybody can sign with any identifier.
"""

# What belongs here: the text, and what is asked of the framework in which order. What must never happen here: a pid.
# The framework finds a process by its audit token, which another process with that pid does not have; nor does the same
# one after an exec.

from __future__ import annotations

from collections import namedtuple

from machrv.errors import RequirementError, UnsupportedRequirementError
from machrv.log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NamedTuple

    from machrv.message.audit import AuditToken
    from machrv.requirement.security import SecurityFramework

SUPPORTED = frozenset(
    "identifier identifier_is_one_of signed_with_same_identity has_same_team_identifier has_same_certificate_type "
    "team_identifier developer_id_certificate_type app_store_certificate_type development_certificate_type "
    "check_dynamic_validity_only".split()
)

#: Why the rest of the vocabulary is refused.
UNSUPPORTED_BECAUSE = (
    "macOS judges a process by its code signature: ask for a team and a certificate type, and an identifier"
)

#: What a server sends of its Info.plist at most: MACHRV_CHROMIUM_MAX_INFO_PLIST_SIZE.
MAX_INFO_PLIST_SIZE = 18 * 1024

#: errSecCSUnsigned
_UNSIGNED = -67062

_MARKER = "field.1.2.840.113635.100"

#: By certificate type, as `Signature` names them.
CERTIFICATE_TYPES = {
    "developer_id": f"(anchor apple generic and certificate 1[{_MARKER}.6.2.6] exists "
    f"and certificate leaf[{_MARKER}.6.1.13] exists)",
    "app_store": f"(anchor apple generic and certificate leaf[{_MARKER}.6.1.9] exists)",
    "development": f"(anchor apple generic and certificate 1[{_MARKER}.6.2.1] exists)",
}

if TYPE_CHECKING:

    class _Signature(NamedTuple):
        team_identifier: str
        certificate_type: str

else:  # The same without `typing`, which a child would pay for.
    _Signature = namedtuple("Signature", "team_identifier certificate_type")


class Signature(_Signature):
    """What this process is signed with.

    `team_identifier` is a string, "" where there is none; `certificate_type` one of "developer_id", "app_store",
    "development", "" where it is none of them (unsigned, ad-hoc signed, part of the system).
    """

    __slots__ = ()


def requirement_text(asked: Mapping[str, Any], own_signature: Signature | None = None) -> str:
    """What was asked, as SecRequirementCreateWithString reads it.

    `own_signature` is what this process is signed with, where that is asked for; None asks the system. Raises
    RequirementError where it would let anybody in, UnsupportedRequirementError where this process has no identity.
    """
    identifiers = [*filter(None, [asked.get("identifier")]), *asked.get("identifier_is_one_of", ())]
    team = _team(asked, own_signature)
    certificate_type = _certificate_type(asked, own_signature)
    if not team:
        raise RequirementError(
            "an identifier without a team is unsafe: anybody can sign a program with any identifier. Ask for a team and "
            "a certificate type too, or for signed_with_same_identity()"
        )
    clauses = []
    if identifiers:
        clause = " or ".join(f"identifier {_quoted(identifier)}" for identifier in identifiers)
        clauses.append(f"({clause})" if len(identifiers) > 1 else clause)
    clauses += [f"certificate leaf[subject.OU] = {_quoted(team)}", CERTIFICATE_TYPES[certificate_type]]
    return " and ".join(clauses)


def _quoted(word: str) -> str:
    if '"' in word or "\\" in word:
        raise RequirementError(f"{word!r} cannot be written in a requirement: it has a quote or a backslash in it")
    return f'"{word}"'


def _team(asked: Mapping[str, Any], own_signature: Signature | None) -> str:
    if "has_same_team_identifier" in asked or "signed_with_same_identity" in asked:
        return str(_own("team_identifier", own_signature))
    return str(asked.get("team_identifier", ""))


def _certificate_type(asked: Mapping[str, Any], own_signature: Signature | None) -> str:
    if "has_same_certificate_type" in asked or "signed_with_same_identity" in asked:
        return str(_own("certificate_type", own_signature))
    return next((kind for kind in CERTIFICATE_TYPES if f"{kind}_certificate_type" in asked), "")


def _own(what: str, own_signature: Signature | None) -> str:
    """One of the words of this process's signature, not empty."""
    if own_signature is None:
        own_signature = _own_signature(_framework())
    word: str = getattr(own_signature, what)
    if not word or (what == "certificate_type" and word not in CERTIFICATE_TYPES):
        raise UnsupportedRequirementError(
            f"this process has no {what.replace('_', ' ')} that another one could be held against ({word!r}): it is not "
            "signed, signed ad hoc, or part of the system. Name the team and the certificate type instead"
        )
    return word


def _own_signature(framework: SecurityFramework) -> Signature:
    """What the system says of this process's signature."""
    category = framework.certificate_type()
    if category is None:  # Before macOS 13.
        category = _tried_category(framework)
    return Signature(framework.team_identifier(), category)


def _tried_category(framework: SecurityFramework) -> str:
    """As the system would say it: the first whose requirement this process fulfils. What runs is judged, not the disk."""
    info_plist = framework.info_plist(outer_bundle(framework.main_bundle_path()))
    status = framework.own_validity(None, info_plist)
    if status == _UNSIGNED:
        return ""
    if status:
        raise UnsupportedRequirementError(
            f"the signature of this process is not valid, so it has no certificate type to hold others against: status {status}"
        )
    return next((kind for kind, text in CERTIFICATE_TYPES.items() if framework.own_validity(text, info_plist) == 0), "")


def outer_bundle(path: bytes) -> bytes:
    """The application that a bundle is in, the outermost one; the bundle itself if it is in none."""
    parts = path.split(b"/")
    first = next((number for number, part in enumerate(parts) if part.endswith(b".app")), len(parts) - 1)
    return b"/".join(parts[: first + 1])


def _framework() -> SecurityFramework:
    from machrv.requirement.security import SecurityFramework

    return SecurityFramework.load()


class DarwinEvaluator:
    """Holds a process against a requirement text."""

    __slots__ = ("text", "_dynamic_only", "_framework")

    def __init__(self, text: str, dynamic_only: bool, framework: SecurityFramework | None = None) -> None:
        """`framework`: None is the system's, opened when it is needed."""
        self.text: str = text
        self._dynamic_only = dynamic_only
        self._framework = framework

    def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
        """Why the process is not what the text says; None if it is. Raises UnsupportedError anywhere but on macOS."""
        if self._dynamic_only:
            if not info_plist:
                return "it sent no Info.plist data, and only what runs was to be judged"
            if len(info_plist) > MAX_INFO_PLIST_SIZE:
                return (
                    f"it sent {len(info_plist)} bytes of Info.plist data: at most {MAX_INFO_PLIST_SIZE} are looked at"
                )
        framework = self._framework if self._framework is not None else _framework()
        return framework.check(audit_token, self.text, info_plist if self._dynamic_only else None)


def evaluator(asked: Mapping[str, Any], own_signature: Signature | None) -> DarwinEvaluator:
    """What holds processes against `asked`. Raises as `requirement_text`."""
    return DarwinEvaluator(requirement_text(asked, own_signature), "check_dynamic_validity_only" in asked)


def info_plist(framework: SecurityFramework | None = None) -> bytes:
    """The Info.plist data of the outermost application that this process belongs to; b"" where it has none, or too much.

    As in Chromium (OuterBundleCachedInfoPlistData): a server in a helper speaks for the application around it.
    """
    framework = framework if framework is not None else _framework()
    own = framework.main_bundle_path()
    outer = outer_bundle(own)
    data = framework.info_plist(outer if outer != own else b"")
    if len(data) <= MAX_INFO_PLIST_SIZE:
        return data
    log().warning(
        "the Info.plist data of this process has %d bytes: more than %d are not sent, so a client that judges only what "
        "runs will refuse this server",
        len(data),
        MAX_INFO_PLIST_SIZE,
    )
    return b""
