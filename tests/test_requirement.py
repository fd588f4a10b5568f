"""Requirements as they are built: what may be asked, what is refused and why, and the text that macOS reads."""

from __future__ import annotations

import sys

import pytest

from machrv import (
    AuditToken,
    MachrvError,
    ProcessRequirement,
    RequirementError,
    UnsupportedError,
    UnsupportedRequirementError,
    current,
)
from machrv.requirement.process import Builder
from machrv.requirement.darwin import Signature, requirement_text

DEVELOPER_ID = (
    "(anchor apple generic and certificate 1[field.1.2.840.113635.100.6.2.6] exists "
    "and certificate leaf[field.1.2.840.113635.100.6.1.13] exists)"
)
APP_STORE = "(anchor apple generic and certificate leaf[field.1.2.840.113635.100.6.1.9] exists)"
DEVELOPMENT = "(anchor apple generic and certificate 1[field.1.2.840.113635.100.6.2.1] exists)"
TEAM = 'certificate leaf[subject.OU] = "ABCDEFG"'


def mac(own: Signature | None = Signature("ABCDEFG", "developer_id")) -> Builder:
    """A builder of requirements for macOS, in a process with this signature."""
    return ProcessRequirement.Builder("darwin", own)


def linux() -> Builder:
    """A builder of requirements for Linux."""
    return ProcessRequirement.Builder("linux")


# -- the text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("builder", "text"),
    [
        (mac().team_identifier("ABCDEFG").developer_id_certificate_type(), f"{TEAM} and {DEVELOPER_ID}"),
        (mac().team_identifier("ABCDEFG").app_store_certificate_type(), f"{TEAM} and {APP_STORE}"),
        (mac().team_identifier("ABCDEFG").development_certificate_type(), f"{TEAM} and {DEVELOPMENT}"),
        (mac().has_same_team_identifier().app_store_certificate_type(), f"{TEAM} and {APP_STORE}"),
        (mac().has_same_team_identifier().has_same_certificate_type(), f"{TEAM} and {DEVELOPER_ID}"),
        (mac().signed_with_same_identity(), f"{TEAM} and {DEVELOPER_ID}"),
        (mac(Signature("XYZ", "development")).signed_with_same_identity(),
         f'certificate leaf[subject.OU] = "XYZ" and {DEVELOPMENT}'),
        (mac().identifier("com.example.A").signed_with_same_identity(),
         f'identifier "com.example.A" and {TEAM} and {DEVELOPER_ID}'),
        (mac().identifier_is_one_of(["com.example.A"]).signed_with_same_identity(),
         f'identifier "com.example.A" and {TEAM} and {DEVELOPER_ID}'),
        (mac().identifier_is_one_of(["com.example.A", "b", "c d"]).team_identifier("ABCDEFG").app_store_certificate_type(),
         f'(identifier "com.example.A" or identifier "b" or identifier "c d") and {TEAM} and {APP_STORE}'),
        (mac().check_dynamic_validity_only().signed_with_same_identity(), f"{TEAM} and {DEVELOPER_ID}"),
    ],
)  # fmt: skip
def test_the_text_is_what_security_framework_reads(builder: Builder, text: str) -> None:
    """Every clause that was asked, in parentheses where the language needs them, whatever the order of asking."""
    assert builder.build().text == text


def test_only_the_dynamic_check_needs_the_servers_info_plist() -> None:
    """Then a client asks for it in its request."""
    assert not mac().signed_with_same_identity().build().needs_info_plist
    assert mac().signed_with_same_identity().check_dynamic_validity_only().build().needs_info_plist


@pytest.mark.parametrize("identifier", ['com.example" or anchor apple', "back\\slash", '"'])
def test_an_identifier_cannot_end_its_own_quotes(identifier: str) -> None:
    """What would need escaping is refused, and so cannot add to the requirement."""
    with pytest.raises(RequirementError, match="quote or a backslash"):
        mac().identifier(identifier).signed_with_same_identity().build()


@pytest.mark.parametrize("team", ["", "AB CD", 'A"', "ÄÖ", "A-B", "٣"])
def test_a_team_identifier_is_letters_and_digits(team: str) -> None:
    """ASCII only."""
    with pytest.raises(RequirementError, match="letters and digits"):
        mac().team_identifier(team)


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (mac().has_same_team_identifier(), "has_same_team_identifier.. without a certificate type is unsafe"),
        (mac().team_identifier("ABC"), "team_identifier.. without a certificate type is unsafe"),
        (mac().developer_id_certificate_type(), "developer_id_certificate_type.. without a team is unsafe"),
        (mac().app_store_certificate_type().identifier("a"), "without a team is unsafe"),
        (mac().development_certificate_type(), "without a team is unsafe"),
        (mac().has_same_certificate_type(), "without a team is unsafe"),
        (mac().identifier("com.example.A"), "an identifier without a team is unsafe"),
        (mac().identifier("a").identifier_is_one_of(["a"]), "exclude each other"),
        (mac().has_same_team_identifier().team_identifier("A").app_store_certificate_type(), "exclude each other"),
        (mac().signed_with_same_identity().has_same_team_identifier(), "exclude each other"),
        (mac().signed_with_same_identity().team_identifier("A"), "exclude each other"),
        (mac().signed_with_same_identity().has_same_certificate_type(), "exclude each other"),
        (mac().signed_with_same_identity().app_store_certificate_type(), "exclude each other"),
        (mac().team_identifier("A").app_store_certificate_type().development_certificate_type(), "exclude each other"),
        (mac(), "nothing is asked"),
        (mac().check_dynamic_validity_only(), "nothing is asked"),
        (linux(), "nothing is asked"),
        (linux().check_dynamic_validity_only(), "nothing is asked"),
        (linux().parent_is_this_process().is_parent_of_this_process(), "exclude each other"),
        (linux().identifier("com.example.A"), "absolute path"),
        (linux().identifier_is_one_of(["/bin/sh", "sh"]), "absolute path"),
    ],
)
def test_what_contradicts_itself_or_is_unsafe_is_refused(builder: Builder, reason: str) -> None:
    """In `build`, with the reason; catchable as the library's own or as a ValueError."""
    with pytest.raises(RequirementError, match=reason) as caught:
        builder.build()
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, MachrvError)
    assert not isinstance(caught.value, UnsupportedError)


@pytest.mark.parametrize(
    "builder",
    [
        linux().team_identifier("ABC"),
        linux().team_identifier("ABC").developer_id_certificate_type(),
        linux().has_same_team_identifier(),
        linux().has_same_certificate_type(),
        linux().app_store_certificate_type(),
        linux().development_certificate_type().user(0),
        linux().identifier("/bin/sh").check_dynamic_validity_only(),
        mac().digest(bytes(32)),
        mac().signed_with_same_identity().user(0),
        mac().group(0),
        mac().parent_is_this_process(),
        mac().is_parent_of_this_process(),
        mac().security_label("x"),
        mac().cgroup("/x"),
        mac().systemd_unit("x.service", 5),
        ProcessRequirement.Builder("win32").identifier("x"),
    ],
)
def test_what_a_platform_cannot_check_is_unsupported(builder: Builder) -> None:
    """Refused in `build`, never passed over."""
    with pytest.raises(UnsupportedRequirementError) as caught:
        builder.build()
    assert isinstance(caught.value, UnsupportedError) and isinstance(caught.value, RequirementError)


@pytest.mark.parametrize(
    "own", [Signature("", ""), Signature("ABC", ""), Signature("", "app_store"), Signature("A", "x")]
)
def test_a_process_without_an_identity_has_nothing_to_compare(own: Signature) -> None:
    """Unsigned, ad-hoc signed, part of the system: no requirement that everybody would meet, but an error."""
    with pytest.raises(UnsupportedRequirementError, match="not signed"):
        mac(own).signed_with_same_identity().build()


@pytest.mark.parametrize(
    "ask",
    [
        lambda b: b.identifier("/a"),
        lambda b: b.identifier_is_one_of(["/a"]),
        lambda b: b.signed_with_same_identity(),
        lambda b: b.has_same_team_identifier(),
        lambda b: b.has_same_certificate_type(),
        lambda b: b.team_identifier("A"),
        lambda b: b.developer_id_certificate_type(),
        lambda b: b.app_store_certificate_type(),
        lambda b: b.development_certificate_type(),
        lambda b: b.check_dynamic_validity_only(),
        lambda b: b.digest(bytes(32)),
        lambda b: b.user(0),
        lambda b: b.group(0),
        lambda b: b.parent_is_this_process(),
        lambda b: b.is_parent_of_this_process(),
        lambda b: b.security_label("l"),
        lambda b: b.cgroup("/a"),
        lambda b: b.systemd_unit("a.service"),
    ],
)
@pytest.mark.parametrize("builder", [mac, linux])
def test_each_is_asked_at_most_once(ask: object, builder: object) -> None:
    """The second call is an error, though it says the same."""
    assert callable(ask) and callable(builder)
    asked = ask(builder())
    with pytest.raises(RequirementError, match="at most once"):
        ask(asked)


@pytest.mark.parametrize("value", [-1, 0xFFFFFFFF, 1 << 40, "0", None, 1.0, True])
def test_an_id_is_a_number_that_an_account_can_have(value: object) -> None:
    """Not 2**32 - 1, which stands for no id."""
    for ask in (linux().user, linux().group):
        with pytest.raises(RequirementError):
            ask(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [b"", bytes(31), bytes(33), "", "0" * 63, "g" * 64, "0" * 128 + "0", "md5:" + "0" * 64, "sha512:" + "0" * 64, 5],
)
def test_a_digest_has_the_length_of_one(value: object) -> None:
    """32 or 64 bytes, or their hexadecimal digits, with the right algorithm in front or none."""
    with pytest.raises(RequirementError, match="digest"):
        linux().digest(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [bytes(32), "0" * 64, "SHA256:" + "0" * 64, bytearray(32)])
def test_a_digest_may_be_written_as_tools_write_it(value: str | bytes) -> None:
    """Bytes, digits, or digits after the algorithm."""
    assert repr(linux().digest(value).build()) == f"ProcessRequirement(digest='sha256:{'0' * 64}')"


@pytest.mark.parametrize("value", ["", None, b"/bin/sh", "with\nnewline", "\0"])
def test_an_identifier_is_a_string_that_can_be_printed(value: object) -> None:
    """It goes into logs, and into the requirement's text."""
    with pytest.raises(RequirementError):
        mac().identifier(value)  # type: ignore[arg-type]
    with pytest.raises(RequirementError):
        mac().identifier_is_one_of([value])  # type: ignore[list-item]


def test_one_of_several_needs_several() -> None:
    """A bare string is a mistake (its characters are not identifiers), and nobody is one of none."""
    with pytest.raises(RequirementError, match="several"):
        mac().identifier_is_one_of("com.example.A")
    with pytest.raises(RequirementError, match="at least one"):
        mac().identifier_is_one_of([])


@pytest.mark.parametrize("value", ["", "  ", "a\0", 3])
def test_a_security_label_is_a_string(value: object) -> None:
    """And not an empty one."""
    with pytest.raises(RequirementError):
        linux().security_label(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["", "system.slice", "/a/../b", "/a\0", 3])
def test_a_control_group_is_an_absolute_path(value: object) -> None:
    """From the top of the hierarchy, straight down."""
    with pytest.raises(RequirementError, match="control group"):
        linux().cgroup(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["", "web", "system.slice", "a/b.service", ".service", "x\n.service", 3])
def test_a_unit_has_processes(value: object) -> None:
    """A slice has none of its own."""
    with pytest.raises(RequirementError, match="unit"):
        linux().systemd_unit(value)  # type: ignore[arg-type]
    with pytest.raises(RequirementError):
        linux().systemd_unit("a.service", -1)


# -- what comes of it ----------------------------------------------------------------------------------------------------


def test_the_two_requirements_for_tests_do_not_look_at_anybody() -> None:
    """One is always met, one never, by whatever token."""
    for token in (AuditToken(), AuditToken(pid=1), current().audit_token()):
        assert ProcessRequirement.always_matches_for_testing().validate(token)
        assert not ProcessRequirement.never_matches_for_testing().validate(token)
        assert ProcessRequirement.never_matches_for_testing().mismatch(token)


def test_a_requirement_says_what_was_asked() -> None:
    """In the words of the builder."""
    requirement = mac().identifier("com.example.A").signed_with_same_identity().build()
    assert repr(requirement) == "ProcessRequirement(identifier='com.example.A', signed_with_same_identity)"


def test_a_builder_can_go_on_after_build() -> None:
    """What was built does not change with it."""
    builder = mac().signed_with_same_identity()
    first = builder.build()
    second = builder.identifier("a").build()
    assert first.text != second.text and first.text == f"{TEAM} and {DEVELOPER_ID}"


@pytest.mark.skipif(sys.platform == "darwin", reason="here such a requirement can be evaluated")
def test_a_requirement_for_another_platform_is_not_evaluated() -> None:
    """Unsupported, not met and not failed."""
    with pytest.raises(UnsupportedError, match="macOS"):
        mac().signed_with_same_identity().build().validate(current().audit_token())
    with pytest.raises(UnsupportedError, match="macOS"):
        requirement_text({"signed_with_same_identity": True})
