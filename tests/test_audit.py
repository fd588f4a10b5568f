"""Audit tokens: eight words, compared whole."""

from __future__ import annotations

import copy
import pickle
import struct

import pytest

from machrv.message.audit import AuditToken
from machrv.errors import MessageFormatError

WORDS = (4294967295, 501, 20, 502, 21, 4242, 100005, 7)
NAMES = ("auid", "euid", "egid", "ruid", "rgid", "pid", "asid", "pidversion")


@pytest.mark.parametrize(("index", "name"), list(enumerate(NAMES)))
def test_each_word_has_its_name(index: int, name: str) -> None:
    """The words stand in XNU's order: the pid is the sixth, not the first."""
    image = struct.pack("=8I", *(1 << bit for bit in range(8)))
    assert 1 << index == getattr(AuditToken.from_bytes(image), name)
    assert 9 == getattr(AuditToken(**{name: 9}), name)


def test_a_token_is_32_bytes_and_back() -> None:
    """Building and parsing are each other's inverse."""
    token = AuditToken(*WORDS)
    assert struct.pack("=8I", *WORDS) == bytes(token)
    assert token == AuditToken.from_bytes(bytes(token))
    assert token == AuditToken.from_bytes(memoryview(bytearray(bytes(token))))
    assert 32 == AuditToken.SIZE


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_bytes_of_another_size_are_refused(size: int) -> None:
    """A token cut short, or with something behind it, is no token."""
    with pytest.raises(MessageFormatError, match=f"32 bytes: found {size}"):
        AuditToken.from_bytes(bytes(size))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("word", [-1, 1 << 32, 1.5, "1", None])
def test_a_word_that_does_not_fit_is_refused(name: str, word: object) -> None:
    """A token cannot be built that has no bytes; the message names the word."""
    with pytest.raises(MessageFormatError, match=f"^{name} "):
        AuditToken(**{name: word})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_that_differ_in_one_word_are_different(name: str) -> None:
    """Any word counts: the same pid with another pidversion is another process."""
    token = AuditToken(*WORDS)
    words = dict(zip(NAMES, WORDS))
    other = AuditToken(**{**words, name: words[name] ^ 1})
    assert token != other
    assert 2 == len({token, other, AuditToken(*WORDS)})


def test_only_the_all_zero_token_is_the_kernels() -> None:
    """One bit anywhere makes it a task's."""
    assert AuditToken.KERNEL.is_kernel
    assert AuditToken.KERNEL == AuditToken.from_bytes(bytes(32)) == AuditToken()
    assert "AuditToken.KERNEL" == repr(AuditToken())
    for name in NAMES:
        assert not AuditToken(**{name: 1}).is_kernel


def test_a_token_reads_by_its_names() -> None:
    """The repr names every word, and evaluates to the token."""
    token = AuditToken(*WORDS)
    assert "pid=4242" in repr(token)
    assert token == eval(repr(token))


def test_a_token_can_be_copied_and_pickled() -> None:
    """It crosses to another process of the same program."""
    token = AuditToken(*WORDS)
    for again in (copy.copy(token), copy.deepcopy(token), pickle.loads(pickle.dumps(token))):
        assert token == again
        assert type(again) is AuditToken


def test_a_token_cannot_be_changed() -> None:
    """It is a value: neither its words nor anything new can be set."""
    with pytest.raises(AttributeError):
        AuditToken().pid = 1
    with pytest.raises(AttributeError):
        AuditToken().other = 1  # type: ignore[attr-defined]
