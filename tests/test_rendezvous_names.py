"""Under which names a child looks for its parent."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from machrv import base_bundle_id, four_char_code, set_base_bundle_id
from machrv.rendezvous import SERVICE_NAME_VARIABLE, server_name, service_names
from machrv.errors import KeyFormatError
from machrv.rendezvous.keys import uint32_key

PARENT = os.getppid()


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(SERVICE_NAME_VARIABLE, raising=False)
    yield
    set_base_bundle_id("")


def test_the_name_is_the_base_bundle_id_and_the_pid() -> None:
    """As Chromium spells it."""
    assert base_bundle_id() == "org.machrv"
    assert server_name(12) == "org.machrv.MachPortRendezvousServer.12"
    set_base_bundle_id("com.google.Chrome")
    assert server_name(12) == "com.google.Chrome.MachPortRendezvousServer.12"
    assert service_names() == [f"com.google.Chrome.MachPortRendezvousServer.{PARENT}"]


def test_the_parents_pid_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was passed on from a grandparent comes second; one of the parent is the only one."""
    monkeypatch.setenv(SERVICE_NAME_VARIABLE, "org.machrv.MachPortRendezvousServer.1234567")
    assert service_names() == [server_name(PARENT), "org.machrv.MachPortRendezvousServer.1234567"]
    monkeypatch.setenv(SERVICE_NAME_VARIABLE, f"com.example.MachPortRendezvousServer.{PARENT}")
    assert service_names() == [f"com.example.MachPortRendezvousServer.{PARENT}"]


def test_a_base_bundle_id_that_was_set_rules_out_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program says counts for more than its environment."""
    monkeypatch.setenv(SERVICE_NAME_VARIABLE, f"org.machrv.MachPortRendezvousServer.{PARENT}")
    set_base_bundle_id("com.example")
    assert service_names() == [f"com.example.MachPortRendezvousServer.{PARENT}"]


def test_four_characters_are_a_key() -> None:
    """As C reads 'port'."""
    assert four_char_code("port") == 0x706F7274 == uint32_key("port")
    assert uint32_key(0) == 0 and uint32_key(2**32 - 1) == 2**32 - 1


@pytest.mark.parametrize("key", [-1, 2**32, "ports", "pørt€", "", 1.0, None, b"port"])
def test_what_is_no_uint32_is_no_key(key: object) -> None:
    """A typed error that is a ValueError too."""
    with pytest.raises(KeyFormatError) as caught:
        uint32_key(key)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
