"""What the kernel knows of the very process that sent a message; and requirements by control group and systemd unit."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("about Linux", allow_module_level=True)

from machrv import (
    AuditToken,
    Channel,
    Message,
    ReceiveRight,
    RendezvousServer,
    Sender,
    SenderGoneError,
    UnsupportedRequirementError,
    current,
    launch,
)
from machrv.requirement import linux as linux_module
from machrv.rights.cgroup import hierarchy, unit_of

from .conftest import PATIENCE
from .processes import Start, ask, cat, start, token_of, why_not

__all__ = ["cat", "start"]  # fixtures

SENDS = """
import sys
from machrv import *
with RendezvousClient.connect() as rights, rights.take("port", SendRight) as port:
    port.send(Message(1))
sys.stdin.read()
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of this test's own, gone afterwards with those in it."""
    top = hierarchy()
    if top is None:
        pytest.skip("no cgroup2 here")
    path = Path(top) / f"machrv-{uuid.uuid4().hex}.slice"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    own = Path(f"{top}{Sender(current().audit_token()).cgroup}/cgroup.procs")
    yield path
    for folder in sorted([path, *(inner for inner in path.rglob("*") if inner.is_dir())], reverse=True):
        for pid in (folder / "cgroup.procs").read_text().split():
            own.write_text(pid)
        folder.rmdir()


def move(process: subprocess.Popen[bytes], group: Path) -> None:
    """Put a process into a control group."""
    (group / "cgroup.procs").write_text(str(process.pid))


def test_who_sent_a_message(server: RendezvousServer) -> None:
    """While it runs; and afterwards nobody, whatever has its number then."""
    with ReceiveRight.allocate() as port:
        child = launch([sys.executable, "-c", SENDS], {"port": port.make_send()}, stdin=subprocess.PIPE)
        with port.receive(PATIENCE) as message:
            sender = message.sender
            assert sender.pid == child.pid
            assert os.path.samefile(sender.exe, sys.executable)
            with open(f"/proc/{child.pid}/cgroup") as file:
                assert f"0::{sender.cgroup}\n" in file.read()
            fd = sender.pidfd
            assert not os.get_inheritable(fd) and select.select([fd], [], [], 0)[0] == []
            child.communicate(timeout=PATIENCE)
            assert select.select([fd], [], [], PATIENCE)[0] == [fd]
            os.close(fd)
            for look in ("exe", "cgroup", "cgroup_id", "label", "pidfd"):
                with pytest.raises(LookupError, match=f"process {child.pid} is gone"):
                    getattr(sender, look)
            assert sender.pid == child.pid and sender.audit_token == message.audit_token


def test_a_channels_message_has_a_sender_too() -> None:
    """Here it is this process."""
    ours, theirs = Channel.pair()
    with ours, theirs:
        theirs.send(b"x")
        with ours.receive(PATIENCE) as message:
            assert os.path.samefile(message.sender.exe, "/proc/self/exe")


def test_a_process_with_the_same_number_is_not_the_sender() -> None:
    """Nor is one that nobody knows: pidversion 0. The kernel itself is no process."""
    token = current().audit_token()
    for pidversion in (token.pidversion ^ 1, 0):
        with pytest.raises(SenderGoneError, match="gone"):
            Sender(AuditToken(*token[:7], pidversion)).exe
    with pytest.raises(LookupError, match="the kernel sent this"):
        Sender(AuditToken.KERNEL).exe
    assert os.path.samefile(Sender(token).exe, "/proc/self/exe")


def test_what_may_not_be_seen_is_no_lookup_error(start: Start) -> None:
    """A process without a label, where no module labels: an OSError of its own."""
    process = start("cat")
    try:
        label = Sender(token_of(process.pid)).label
    except OSError as error:
        assert not isinstance(error, (ProcessLookupError, LookupError))
    else:
        assert label


# -- requirements --------------------------------------------------------------------------------------------------------


def test_a_control_group_is_told_by_its_id(start: Start, group: Path) -> None:
    """It, and what is below; by either way to write it."""
    top = hierarchy()
    name = f"/{group.relative_to(str(top))}"
    inner = group / "web.service" / "inner"
    inner.mkdir(parents=True)
    process = start("cat")
    requirement = ask().cgroup(name)
    reason = why_not(requirement, process)
    assert reason is not None and "its cgroup is" in reason
    for place in (group, inner):
        move(process, place)
        for written in (name, f"{name}/", str(group)):
            assert why_not(ask().cgroup(written), process) is None
        assert Sender(token_of(process.pid)).cgroup_id == place.stat().st_ino
        assert Sender(token_of(process.pid)).cgroup == f"/{place.relative_to(str(top))}"
    for other in (f"{name}/web.servic", f"{name}/inner", f"{name}x"):
        assert why_not(ask().cgroup(other), process) is not None
    assert why_not(ask().cgroup("/"), process) is None


def test_a_systemd_unit_is_its_control_group(start: Start, group: Path) -> None:
    """Whatever the unit has below its own; no other unit, and no user's."""
    process = start("cat")
    inner = group / "web.service" / "other.service"
    inner.mkdir(parents=True)
    for place in (group / "web.service", inner):
        move(process, place)
        assert why_not(ask().systemd_unit("web.service"), process) is None
        for refused in (ask().systemd_unit("other.service"), ask().systemd_unit("web.service", 1000)):
            reason = why_not(refused, process)
            assert reason is not None and "its cgroup is" in reason
    move(process, group)
    assert why_not(ask().systemd_unit("web.service"), process) is not None


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/web.service", ("web.service", None)),
        ("/system.slice/system-a.slice/a@1.service/x/y", ("a@1.service", None)),
        ("/init.scope", ("init.scope", None)),
        ("/system.slice/_cgroup.service", ("cgroup.service", None)),
        ("/user.slice/user-5.slice/user@5.service/app.slice/editor.service/sub", ("editor.service", 5)),
        ("/user.slice/user-5.slice/user@5.service/init.scope", ("init.scope", 5)),
        ("/user.slice/user-5.slice/user@5.service", ("user@5.service", None)),
        ("/user.slice/user-5.slice/user@5.service/app.slice", ("user@5.service", None)),
        ("/user.slice/user-5.slice/session-2.scope", ("session-2.scope", None)),
        ("/system.slice/user@5.service/web.service", ("user@5.service", None)),
        ("/system.slice", None),
        ("/", None),
        ("/docker/0123/system.slice/web.service", None),
        ("/../web.service", None),
    ],
)
def test_which_unit_a_control_group_is_of(path: str, unit: tuple[str, int | None] | None) -> None:
    """As systemd lays them out: what somebody else has made below a unit is that unit's."""
    assert unit_of(path) == unit


def test_a_path_that_is_not_the_groups_is_not_believed(
    start: Start, group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text in /proc only leads there: here, a lie about another group."""
    (group / "web.service").mkdir()
    process = start("cat")
    name = f"/{group.relative_to(str(hierarchy()))}"
    monkeypatch.setattr("machrv.rights.pinned.PinnedProcess.cgroup", lambda self: f"{name}/web.service")
    for requirement in (ask().systemd_unit("web.service"), ask().cgroup(name)):
        reason = why_not(requirement, process)
        assert reason is not None and "not the one it is in" in reason
    monkeypatch.setattr("machrv.rights.pinned.PinnedProcess.cgroup", lambda self: "/not/there")
    assert why_not(ask().systemd_unit("web.service"), process) is not None


def test_where_the_kernel_does_not_tell_it_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.13, and without cgroup2: when the requirement is built."""
    monkeypatch.setattr(linux_module, "hierarchy", lambda: None)
    with pytest.raises(UnsupportedRequirementError, match="cgroup2 is not mounted"):
        ask().cgroup("/x").build()
    monkeypatch.setattr("machrv.rights.pinned._GET_INFO", 0xC040FF7F)
    with pytest.raises(UnsupportedRequirementError, match="Linux 6.13"):
        ask().systemd_unit("x.service").build()
    with pytest.raises(OSError, match="Linux 6.13"):
        Sender(current().audit_token()).cgroup_id
