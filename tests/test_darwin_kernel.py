"""The macOS kernel's calls: what they are given, what they give back, and what their errors say. Over the stand-in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.kernel import Kernel, PortStatus
from machrv.kernel.darwin import DarwinKernel
from machrv.message import Disposition
from tests.standin import Killed, LibSystem
from tests.standin.fixtures import mac
from tests.standin.kernel import StandInKernel
from tests.standin.signatures import SIGNATURES

__all__ = ["mac"]

RECEIVE, SEND = lib.MACH_PORT_RIGHT_RECEIVE, lib.MACH_PORT_RIGHT_SEND


# -- whose library it is ----------------------------------------------------------------------------------------------


def test_any_library_with_these_functions_will_do() -> None:
    """Another stand-in, of plain Python functions and with nothing else about it, serves as well."""
    task = LibSystem()
    plain = SimpleNamespace(
        **{name: getattr(task.functions, name) for name in SIGNATURES}, bootstrap_port=task.bootstrap_port
    )
    kernel: Kernel = DarwinKernel(plain)
    name = kernel.mach_port_allocate(RECEIVE)
    kernel.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    assert dict(kernel.mach_port_names()) == {name: lib.MACH_PORT_TYPE_SEND_RECEIVE}
    task.end()


def test_only_what_is_called_is_needed() -> None:
    """The library is asked for a function when it is called, and for nothing when the kernel is made."""
    kernel = DarwinKernel(SimpleNamespace(mach_task_self=lambda: 1, mach_port_deallocate=lambda task, name: 15))
    with pytest.raises(MachError, match="mach_port_deallocate: KERN_INVALID_NAME"):
        kernel.mach_port_deallocate(7)


def test_every_function_that_is_declared_is_called() -> None:
    """Those of include/machrv/mach.h are the kernel's methods; the others stand somewhere in what only macOS has."""
    import machrv.kernel.darwin as package

    text = "".join(path.read_text() for path in Path(package.__path__[0]).glob("*.py"))
    for name in SIGNATURES:
        assert hasattr(Kernel, name) or f".{name}(" in text or name == "mach_task_self", name


# -- ports ------------------------------------------------------------------------------------------------------------


def test_reply_ports_are_made_for_replies(mac: StandInKernel) -> None:
    """The kernel is told what the port is for; nothing but the receive right is made."""
    name = mac.mach_reply_port()
    assert mac.task.functions.reply_ports == {name}
    assert dict(mac.mach_port_names()) == {name: lib.MACH_PORT_TYPE_RECEIVE}
    with pytest.raises(Killed):  # What the stand-in would do to a library that moves one.
        mac.mach_port_extract_right(name, Disposition.MOVE_RECEIVE)


def test_where_reply_ports_are_unknown_a_plain_port_serves(mac: StandInKernel) -> None:
    """A kernel that refuses MPO_REPLY_PORT is asked for a port without."""
    mac.task.functions.knows_reply_ports = False
    name = mac.mach_reply_port()
    assert mac.task.functions.reply_ports == set()
    assert mac.mach_port_type(name) == lib.MACH_PORT_TYPE_RECEIVE


def test_a_reply_port_that_cannot_be_made_is_an_error(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the unknown flag is got around; a full port space is not."""
    monkeypatch.setattr(mac.task.functions, "mach_port_construct", lambda *_: lib.KERN_NO_SPACE)
    with pytest.raises(MachError, match="mach_port_construct: KERN_NO_SPACE"):
        mac.mach_reply_port()


def test_ports_are_constructed_and_destructed(mac: StandInKernel) -> None:
    """A queue limit, a context and a send right come with the port; both rights go with one call."""
    name = mac.mach_port_construct(lib.MPO_INSERT_SEND_RIGHT, context=0xFFFFFFFFFFFFFFFF, queue_limit=77)
    assert mac.mach_port_get_attributes(name, lib.MACH_PORT_LIMITS_INFO) == 77
    assert mac.mach_port_get_context(name) == 0xFFFFFFFFFFFFFFFF
    assert mac.mach_port_get_refs(name, SEND) == 1
    mac.mach_port_destruct(name, -1)
    assert mac.mach_port_names() == []


def test_attributes_are_read_and_set(mac: StandInKernel) -> None:
    """The status has its fields in their places; flavors that the seam lacks, and limits of no size, are errors."""
    name = mac.mach_port_allocate(RECEIVE)
    mac.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    mac.mach_port_set_attributes(name, lib.MACH_PORT_LIMITS_INFO, 9)
    status = mac.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
    assert status == PortStatus(0, 0, 1, 9, 0, 0, True, False, False, 0)
    assert type(status.srights) is bool
    for flavor in (lib.MACH_PORT_TEMPOWNER, 99):
        with pytest.raises(MachError, match="mach_port_get_attributes: KERN_INVALID_ARGUMENT"):
            mac.mach_port_get_attributes(name, flavor)
        with pytest.raises(MachError, match="mach_port_set_attributes: KERN_INVALID_ARGUMENT"):
            mac.mach_port_set_attributes(name, flavor, 1)
    for limit in (-1, lib.MACH_PORT_QLIMIT_MAX + 1, 1 << 32):
        with pytest.raises(MachError, match="mach_port_set_attributes: KERN_INVALID_VALUE"):
            mac.mach_port_set_attributes(name, lib.MACH_PORT_LIMITS_INFO, limit)
    assert mac.mach_port_get_attributes(name, lib.MACH_PORT_LIMITS_INFO) == 9


def test_the_names_are_copied_and_their_memory_is_given_back(
    mac: StandInKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the copying fails; an empty space is no special case."""
    assert mac.mach_port_names() == []
    names = {mac.mach_port_allocate(RECEIVE) for _ in range(2000)}
    assert {name for name, _ in mac.mach_port_names()} == names
    assert mac.task.functions.memory == {}

    def unpack(*_: object) -> Any:
        raise MemoryError

    # An ffi that has everything but room.
    cramped = SimpleNamespace(new=ffi.new, cast=ffi.cast, unpack=unpack)
    with pytest.raises(MemoryError):
        DarwinKernel(mac.task, cramped).mach_port_names()
    assert mac.task.functions.memory == {}


def test_a_notification_is_asked_for_and_its_predecessor_returned(mac: StandInKernel) -> None:
    """The right that was registered before comes back as the caller's."""
    name, notify = mac.mach_port_allocate(RECEIVE), mac.mach_port_allocate(RECEIVE)
    mac.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    arguments = (name, lib.MACH_NOTIFY_NO_SENDERS, 0, notify, Disposition.MAKE_SEND_ONCE)
    assert mac.mach_port_request_notification(*arguments) == 0
    previous = mac.mach_port_request_notification(*arguments)
    assert mac.mach_port_type(previous) == lib.MACH_PORT_TYPE_SEND_ONCE


# -- bootstrap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["bootstrap_check_in", "bootstrap_look_up"])
@pytest.mark.parametrize("name", ["x" * 128, "é" * 64, "before\0after"], ids=["128 bytes", "64 letters", "NUL"])
def test_a_name_that_launchd_would_cut_is_refused(
    mac: StandInKernel, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    """What fits is 127 bytes in UTF-8 without a NUL; a longer name is refused here, and launchd is not asked."""
    monkeypatch.setattr(mac.task.functions, call, None)
    with pytest.raises(MachError) as raised:
        getattr(mac, call)(name)
    assert raised.value.code == lib.KERN_INVALID_ARGUMENT
    assert repr(name) in str(raised.value) and ("127" in str(raised.value) or "NUL" in str(raised.value))


@pytest.mark.parametrize("name", ["x" * 127, "é" * 63, "org.machrv.MachPortRendezvousServer.1"])
def test_a_name_that_fits_is_checked_in_and_found(mac: StandInKernel, name: str) -> None:
    """127 bytes, of one byte each or of several."""
    other = StandInKernel()
    try:
        mac.bootstrap_check_in(name)
        assert other.mach_port_type(other.bootstrap_look_up(name)) == lib.MACH_PORT_TYPE_SEND
    finally:
        other.close()


# Of a sandbox nobody hears but on a Mac, whichever kernel is asked.
SANDBOX = "a sandbox denies mach-register or mach-lookup" if sys.platform == "darwin" else "`machrv doctor` says which"


@pytest.mark.parametrize(
    ("code", "symbol", "advice"),
    [
        (1100, "BOOTSTRAP_NOT_PRIVILEGED", SANDBOX),
        (1101, "BOOTSTRAP_NAME_IN_USE", "another live process has checked this name in"),
        (1102, "BOOTSTRAP_UNKNOWN_SERVICE", "nobody has checked this name in"),
    ],
)
@pytest.mark.parametrize("call", ["bootstrap_check_in", "bootstrap_look_up"])
def test_launchd_s_refusals_are_explained(
    mac: StandInKernel, monkeypatch: pytest.MonkeyPatch, call: str, code: int, symbol: str, advice: str
) -> None:
    """The text has the call, the name, the symbol, the number and what is likely the cause."""
    monkeypatch.setattr(mac.task.functions, call, lambda *_: code)
    with pytest.raises(MachError) as raised:
        getattr(mac, call)("org.example.service")
    text = str(raised.value)
    assert raised.value.code == code and raised.value.symbol == symbol
    for part in (call, "'org.example.service'", symbol, str(code), advice):
        assert part in text


# -- fileports, identity ----------------------------------------------------------------------------------------------


def test_a_descriptor_becomes_a_right_and_back(mac: StandInKernel) -> None:
    """The same open file, by a descriptor of its own that a child does not inherit; each side stays its owner's."""
    read, write = os.pipe()
    name = mac.fileport_makeport(write)
    os.close(write)
    assert mac.mach_port_type(name) == lib.MACH_PORT_TYPE_SEND
    fd = mac.fileport_makefd(name)
    assert not os.get_inheritable(fd)
    os.write(fd, b"good")
    assert os.read(read, 10) == b"good"
    os.close(fd)
    os.close(read)


def test_what_is_no_fileport_is_said_to_be_none(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such name, another kind of right, a closed descriptor, and no room for one: each has its own code."""
    name = mac.mach_port_allocate(RECEIVE)
    with pytest.raises(MachError, match="mach_port_type: KERN_INVALID_NAME"):
        mac.fileport_makefd(name + 0x1000)
    with pytest.raises(MachError, match="fileport_makefd: KERN_INVALID_RIGHT"):
        mac.fileport_makefd(name)
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    with pytest.raises(MachError, match="fileport_makeport of descriptor .*Bad file descriptor.*KERN_INVALID_ARGUMENT"):
        mac.fileport_makeport(write)

    def fileport_makefd(_: int) -> int:
        ffi.errno = 24
        return -1

    monkeypatch.setattr(mac.task.functions, "fileport_makefd", fileport_makefd)
    with pytest.raises(MachError, match="fileport_makefd .Too many open files.: KERN_RESOURCE_SHORTAGE"):
        mac.fileport_makefd(name)


def test_the_own_audit_token_is_the_kernel_s_word(mac: StandInKernel) -> None:
    """All eight words come from task_info, those above 2^31 too."""
    token = mac.audit_token()
    assert token == mac.task.functions.kernel.audit_token()
    assert token.pid == os.getpid() and token.auid == 0xFFFFFFFF


# -- the stand-in itself ----------------------------------------------------------------------------------------------


def test_the_stand_in_is_called_through_c(mac: StandInKernel) -> None:
    """A number that does not fit into the C type, a pointer to something else, one argument too few: all errors."""
    with pytest.raises(OverflowError):
        mac.task.mach_port_deallocate(1, -1)
    with pytest.raises(TypeError):
        mac.task.mach_port_allocate(1, RECEIVE, ffi.new("mach_port_status_t *"))
    with pytest.raises(TypeError):
        mac.task.mach_port_destroy(1)
    with pytest.raises(AttributeError):
        mac.task.mach_port_rename


def test_the_stand_in_has_all_that_is_declared() -> None:
    """Each function of include/machrv/darwin.h has one that stands behind it."""
    task = LibSystem()
    for name in SIGNATURES:
        assert callable(getattr(task, name)) and callable(getattr(task.functions, name)), name
    task.end()


def test_the_stand_in_is_as_hard_as_a_hardened_process() -> None:
    """A name given up twice ends a hardened process, and is an error in another one."""
    for hardened in (False, True):
        mac = StandInKernel(hardened)
        with pytest.raises(Killed if hardened else MachError):
            mac.mach_port_deallocate(0x4203)
        mac.close()
