"""What is asked of Security.framework: every call for real, with arguments and ownership, against one that stands in.

The stand-in (tests/standin/security.c) has the frameworks' prototypes and counts its objects. What only a Mac can show
is that the frameworks answer so.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from errno import EINVAL, ENOENT, EPERM
from pathlib import Path
from typing import Any

import pytest

from machrv import AuditToken, UnsupportedError, UnsupportedRequirementError, current
from machrv.requirement import darwin
from machrv.requirement.info_plist import own_info_plist
from machrv.requirement.darwin import MAX_INFO_PLIST_SIZE, DarwinEvaluator, Signature, requirement_text
from machrv.requirement.security import SecurityFramework

SOURCE = Path(__file__).parent / "standin" / "security.c"
TOKEN = AuditToken(1, 2, 3, 4, 5, 6, 7, 8)
TEXT = 'identifier "a" and \N{LATIN SMALL LETTER U WITH DIAERESIS}'


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stand-in, compiled."""
    path = tmp_path_factory.mktemp("standin") / "security.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(path), str(SOURCE)], check=True)
    return ctypes.CDLL(str(path), use_errno=True)


class Standin(SecurityFramework):
    """The framework's calls over the stand-in."""

    def __init__(self, library: Any) -> None:
        super().__init__(library, library, library)
        self.library = library

    def set(self, name: str, value: int | bytes) -> None:
        """What it answers from now on."""
        if isinstance(value, bytes):
            (ctypes.c_char * (65 if name == "answer_team" else 1024)).in_dll(self.library, name).value = value
        else:
            ctypes.c_int.in_dll(self.library, name).value = value

    def number(self, name: str, kind: Any = ctypes.c_long) -> int:
        """What it was asked last."""
        return int(kind.in_dll(self.library, name).value)

    def bytes(self, name: str, size: int) -> bytes:
        """The same, for bytes."""
        return ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(self.library, name)), size)


ANSWERS = {
    "answer_requirement": 0,
    "answer_guest": 0,
    "answer_check": 0,
    "answer_team_errno": 0,
    "answer_category": -1,
    "answer_no_bundle": 0,
    "answer_own": 0,
}


@pytest.fixture
def framework(library: Any) -> Iterator[Standin]:
    """The stand-in with its usual answers; in the end, everything that it created was given back."""
    framework = Standin(library)
    for name, value in ANSWERS.items():
        framework.set(name, value)
    framework.set("answer_team", b"")
    framework.set("answer_fulfilled", b"")
    framework.set("answer_path", b"/usr/bin")
    yield framework
    assert framework.number("live", ctypes.c_int) == 0


def test_a_process_is_found_by_its_audit_token(framework: Standin) -> None:
    """All 32 bytes of it, and the text as it was built; what lies on the disk counts too."""
    assert DarwinEvaluator(TEXT, False, framework).mismatch(TOKEN, b"not looked at") is None
    assert framework.bytes("asked_token", 32) == bytes(TOKEN)
    assert framework.bytes("asked_text", len(TEXT.encode()) + 1) == TEXT.encode() + b"\0"
    assert framework.number("asked_dynamic") == 0 and framework.number("asked_plist_length") == -1


def test_the_dynamic_check_takes_the_servers_info_plist(framework: Standin) -> None:
    """Data with zeros in it, at most 18 KiB, and none is no."""
    evaluator = DarwinEvaluator(TEXT, True, framework)
    for data in (b"<plist>\0</plist>", b"x" * MAX_INFO_PLIST_SIZE):
        assert evaluator.mismatch(TOKEN, data) is None
        assert framework.number("asked_dynamic") == 1
        assert framework.bytes("asked_plist", framework.number("asked_plist_length")) == data
    assert MAX_INFO_PLIST_SIZE == 18 * 1024
    for data, reason in ((b"", "no Info.plist"), (b"x" * (MAX_INFO_PLIST_SIZE + 1), "at most 18432")):
        found = evaluator.mismatch(TOKEN, data)
        assert found is not None and reason in found


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("answer_check", -67050, "does not fulfil"),
        ("answer_check", -67062, "not signed"),
        ("answer_check", -67030, "Info.plist"),
        ("answer_check", -1, "status -1"),
        ("answer_guest", -67065, "no such process"),
        ("answer_guest", 100003, "no such process"),
    ],
)
def test_any_other_status_is_a_no_with_a_reason(framework: Standin, answer: str, status: int, reason: str) -> None:
    """And nothing that was created on the way is left."""
    framework.set(answer, status)
    found = DarwinEvaluator(TEXT, False, framework).mismatch(TOKEN, b"")
    assert found is not None and reason in found and found.status == status  # type: ignore[attr-defined]


def test_a_text_that_cannot_be_read_is_an_error(framework: Standin) -> None:
    """It names the text and the status."""
    framework.set("answer_requirement", -67053)
    with pytest.raises(OSError, match="-67053"):
        DarwinEvaluator(TEXT, False, framework).mismatch(TOKEN, b"")


def test_a_system_without_dynamic_checks_says_so(framework: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant that the framework does not export: unsupported, not met and not failed."""
    constant = SecurityFramework._constant
    monkeypatch.setattr(
        Standin,
        "_constant",
        lambda self, library, name: constant(self, library, name.replace("DynamicCode", "NoSuchThing")),
    )
    with pytest.raises(UnsupportedError, match="NoSuchThing"):
        DarwinEvaluator(TEXT, True, framework).mismatch(TOKEN, b"data")
    assert DarwinEvaluator(TEXT, False, framework).mismatch(TOKEN, b"") is None


@pytest.mark.parametrize(
    ("category", "certificate_type"),
    [(6, "developer_id"), (4, "app_store"), (3, "development"), (1, ""), (10, ""), (0, ""), (99, "")],
)
def test_the_system_says_what_this_process_is_signed_with(
    framework: Standin, monkeypatch: pytest.MonkeyPatch, category: int, certificate_type: str
) -> None:
    """Its team and the type of its certificate; other types (1: part of the system, 10: none) are no identity."""
    framework.set("answer_team", b"ABCDEFG")
    framework.set("answer_category", category)
    assert darwin._own_signature(framework) == Signature("ABCDEFG", certificate_type)
    assert framework.number("asked_pid") == os.getpid()
    monkeypatch.setattr(darwin, "_framework", lambda: framework)
    asked = {"signed_with_same_identity": True}
    if certificate_type:
        assert requirement_text(asked) == requirement_text(asked, Signature("ABCDEFG", certificate_type))
    else:
        with pytest.raises(UnsupportedRequirementError):
            requirement_text(asked)


@pytest.mark.parametrize(("error", "team"), [(ENOENT, ""), (EINVAL, ""), (EPERM, None)])
def test_a_process_without_a_team(framework: Standin, error: int, team: str | None) -> None:
    """Signed ad hoc or not at all: none. Another error is one."""
    framework.set("answer_team_errno", error)
    if team is None:
        with pytest.raises(PermissionError):
            framework.team_identifier()
    else:
        assert framework.team_identifier() == team


def test_an_older_system_is_asked_by_trying(framework: Standin) -> None:
    """Before macOS 13 the certificate's type is the first whose requirement this process itself fulfils, as it runs."""
    framework.set("answer_team", b"ABC")
    framework.set("answer_path", b"/Applications/Outer.app/Contents/Helpers/Inner.app")
    for kind in ("developer_id", "app_store", "development"):
        framework.set("answer_fulfilled", darwin.CERTIFICATE_TYPES[kind].encode())
        assert darwin._own_signature(framework) == Signature("ABC", kind)
    assert framework.bytes("asked_token", 32) == bytes(current().audit_token())
    assert framework.bytes("asked_plist", framework.number("asked_plist_length")) == b"Puter"
    framework.set("answer_fulfilled", b"another")
    assert darwin._own_signature(framework) == Signature("ABC", "")
    framework.set("answer_own", -67062)  # Not signed.
    framework.set("answer_fulfilled", darwin.CERTIFICATE_TYPES["app_store"].encode())
    assert darwin._own_signature(framework) == Signature("ABC", "")
    framework.set("answer_own", -67061)
    with pytest.raises(UnsupportedRequirementError, match="status -67061"):
        darwin._own_signature(framework)
    framework.set("answer_no_bundle", 1)  # No bundle: what runs is judged all the same.
    framework.set("answer_own", 0)
    assert darwin._own_signature(framework) == Signature("ABC", "app_store")
    assert framework.number("asked_dynamic") == 1 and framework.number("asked_plist_length") == -1


@pytest.mark.parametrize(
    ("path", "outer"),
    [
        (b"/Applications/A.app", b"/Applications/A.app"),
        (b"/Applications/A.app/Contents/Frameworks/A Framework.framework/Helpers/A Helper.app", b"/Applications/A.app"),
        (b"/Applications/A.app/Contents/MacOS", b"/Applications/A.app"),
        (b"/usr/local/bin", b"/usr/local/bin"),
        (b"", b""),
    ],
)
def test_the_outer_bundle_of_a_nested_one(path: bytes, outer: bytes) -> None:
    """The outermost application in its path."""
    assert darwin.outer_bundle(path) == outer


def test_the_info_plist_is_the_one_in_memory(framework: Standin, caplog: pytest.LogCaptureFixture) -> None:
    """Less what CoreFoundation put into it; a helper's is that of the application around it; nothing where there is no
    bundle, or where it is too large to be sent."""
    assert darwin.info_plist(framework) == b"Plist"
    framework.set("answer_path", b"/Applications/A.app/Contents/Helpers/B.app")
    assert darwin.info_plist(framework) == b"Puter"
    assert framework.bytes("asked_path", 20) == b"/Applications/A.app\0"
    framework.set("answer_no_bundle", 1)
    assert darwin.info_plist(framework) == b""
    assert not caplog.records

    class Large(Standin):
        def info_plist(self, path: bytes = b"") -> bytes:
            return b"x" * (MAX_INFO_PLIST_SIZE + 1)

    assert darwin.info_plist(Large(framework.library)) == b""
    assert "18433 bytes" in caplog.text


@pytest.mark.skipif(sys.platform == "darwin", reason="here it is there")
def test_elsewhere_there_is_no_such_framework() -> None:
    """It is opened when it is needed, and then the error says for what."""
    with pytest.raises(UnsupportedError, match="macOS"):
        SecurityFramework.load()
    assert own_info_plist() == b""


@pytest.mark.skipif(sys.platform != "darwin", reason="needs Security.framework")
def test_the_systems_framework_judges_this_process() -> None:
    """Not fulfilled, or not signed: but the text is read and the process found."""
    text = requirement_text({"team_identifier": "NOSUCHTEAM", "app_store_certificate_type": True})
    reason = DarwinEvaluator(text, False).mismatch(current().audit_token(), b"")
    assert reason is not None and "no such process" not in reason
