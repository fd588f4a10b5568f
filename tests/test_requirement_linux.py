"""Who a process is, as far as Linux tells, each question answered with yes and with no; and which process it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from machrv import AuditToken, UnsupportedError, current
from machrv.requirement import linux as linux_module
from machrv.rights.pinned import PinnedProcess

from .conftest import PATIENCE
from .processes import WAITS, Start, ask, cat, needs_root, python, start, token_of, wait_for_program, why_not

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux")

__all__ = ["cat", "start"]  # fixtures

# -- who it is -----------------------------------------------------------------------------------------------------------


def test_a_user_is_all_of_its_user_ids(start: Start) -> None:
    """This user's processes are this user's, and nobody else's."""
    process = start("cat")
    assert why_not(ask().user(os.getuid()).group(os.getgid()), process) is None
    reason = why_not(ask().user(os.getuid() + 1), process)
    assert reason is not None and str(os.getuid()) in reason


@needs_root
@pytest.mark.parametrize("ids", [(0, 4321, 4321), (4321, 0, 4321), (4321, 4321, 0)])
def test_a_process_that_can_become_another_user_is_neither(start: Start, ids: tuple[int, int, int]) -> None:
    """Real, effective and saved must agree."""
    process = python(start, f"import os; os.setresuid{ids}; {WAITS}")
    assert why_not(ask().user(4321), process) is not None
    assert why_not(ask().user(0), process) is not None


@needs_root
def test_another_users_process_is_that_users(start: Start) -> None:
    """By the kernel's word on the process, with supplementary groups."""
    process = start("cat", user=4321, group=4322, extra_groups=[4323, 4324])
    assert why_not(ask().user(4321).group(4322), process) is None
    assert why_not(ask().group(4324), process) is None
    assert why_not(ask().user(0), process) is not None
    reason = why_not(ask().group(4321), process)
    assert reason is not None and "4322, 4323, 4324" in reason


def test_an_id_that_stands_for_all_unknown_ones_is_unsupported() -> None:
    """In a user namespace that maps one user, 65534 is everybody else."""
    with open("/proc/sys/kernel/overflowuid") as file:
        overflow = int(file.read())
    code = (
        "from machrv import ProcessRequirement, UnsupportedError\n"
        "builder = ProcessRequirement.Builder\n"
        f"for ask in (builder().user, builder().group):\n"
        "    try:\n"
        f"        ask({overflow}).build()\n"
        "    except UnsupportedError as error:\n"
        "        assert 'does not know' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError('it was built')\n"
        "builder().user(0).build()\n"
    )
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not permitted here")
    subprocess.run([*unshare, sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_a_child_has_this_process_for_a_parent(start: Start) -> None:
    """A child has, a grandchild has not, nor has this process itself."""
    code = f"import subprocess; c = subprocess.Popen(['cat']); print(c.pid, flush=True); c.wait()"
    child = start(sys.executable, "-c", code)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    requirement = ask().parent_is_this_process().build()
    assert requirement.validate(token_of(child.pid))
    reason = requirement.mismatch(token_of(grandchild))
    assert reason is not None and str(child.pid) in reason
    assert not requirement.validate(current().audit_token())


def test_this_process_has_one_parent(start: Start) -> None:
    """Its parent is, its child is not."""
    requirement = ask().is_parent_of_this_process().build()
    assert requirement.validate(token_of(os.getppid()))
    child = start("cat")
    reason = requirement.mismatch(token_of(child.pid))
    assert reason is not None and str(os.getppid()) in reason


def test_labels_where_there_are_none_are_unsupported() -> None:
    """Without a security module that labels processes, nobody could ever be refused or let in by one."""
    try:
        label = Path("/proc/self/attr/current").read_bytes().strip(b"\0\n").decode()
    except OSError:
        label = ""
    if label:
        requirement = ask().security_label(label).build()
        assert requirement.validate(current().audit_token())
        assert not ask().security_label(label + "x").build().validate(current().audit_token())
    else:
        with pytest.raises(UnsupportedError, match="no security module"):
            ask().security_label("unconfined").build()


def test_a_label_is_the_whole_label(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the security module writes it, without its end of line; not a part of it."""
    monkeypatch.setattr(linux_module, "_check_labels_exist", lambda: None)
    read = PinnedProcess._read
    monkeypatch.setattr(
        PinnedProcess, "_read", lambda self, name: "web (enforce)\n" if name == "attr/current" else read(self, name)
    )
    process = start("cat")
    assert why_not(ask().security_label("web (enforce)"), process) is None
    reason = why_not(ask().security_label("web"), process)
    assert reason is not None and "web (enforce)" in reason


def test_everything_that_is_asked_counts(start: Start, cat: Path) -> None:
    """One thing that does not match is enough."""
    process = start(cat)
    all_true = ask().identifier(str(cat)).user(os.getuid()).group(os.getgid()).parent_is_this_process()
    assert why_not(all_true, process) is None
    assert why_not(all_true.digest(bytes(32)), process) is not None


# -- which process it is -------------------------------------------------------------------------------------------------


def test_a_process_that_is_gone_meets_nothing(start: Start) -> None:
    """Not while it is a zombie, and not when it was waited for."""
    process = start("cat")
    token, requirement = token_of(process.pid), ask().user(os.getuid()).build()
    assert requirement.validate(token)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert requirement.mismatch(token) is not None
    process.wait()
    assert requirement.mismatch(token) is not None


@pytest.mark.parametrize(
    "token",
    [
        AuditToken.KERNEL,
        AuditToken(pid=0, pidversion=1),
        AuditToken(pid=2**31 - 1, pidversion=1),
        AuditToken(pid=2**32 - 1, pidversion=1),
        AuditToken(pid=os.getpid()),
        AuditToken(pid=os.getpid(), pidversion=1),
    ],
)
def test_a_token_of_nobody_meets_nothing(token: AuditToken) -> None:
    """No such process, or not the one that has the pid."""
    assert ask().user(os.getuid()).build().mismatch(token) is not None


def test_a_program_that_changes_under_the_look_is_refused(start: Start, cat: Path) -> None:
    """What was found out about the first program is not true of the second."""
    process = python(start, f"import os; print(flush=True); os.read(0, 3); os.execv({str(cat)!r}, ['cat'])")
    with PinnedProcess(token_of(process.pid)) as pinned:
        assert os.path.samestat(os.fstat(pinned.image()), os.stat("/proc/self/exe"))
        pinned.confirm()
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        wait_for_program(process, "cat")
        with pytest.raises(ProcessLookupError, match="another program"):
            pinned.confirm()


def test_a_process_that_exits_under_the_look_is_refused(start: Start) -> None:
    """The descriptor of its directory does not come to mean its successor."""
    process = start("cat")
    with PinnedProcess(token_of(process.pid)) as pinned:
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError):
            pinned.confirm()
        with pytest.raises(OSError):
            pinned.status("Uid")
        pinned.close()
        pinned.close()


def test_what_was_found_out_is_confirmed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that exits after the last question, and before the answer, is not what was asked."""
    process = start("cat")
    requirement = ask().user(os.getuid()).build()
    token = token_of(process.pid)

    def check_and_kill(pinned: PinnedProcess, wanted: int) -> None:
        assert linux_module._user(pinned, wanted) is None
        process.kill()
        process.wait()

    monkeypatch.setitem(linux_module._CHECKS, "user", check_and_kill)
    reason = requirement.mismatch(token)
    assert reason is not None and "exited" in reason


@needs_root
def test_a_pid_of_another_namespace_is_not_taken_for_one_of_this() -> None:
    """In a pid namespace that looks at its parent's /proc, the numbers there are others: process 1 is not this one."""
    code = (
        "import os, subprocess\n"
        "from machrv import AuditToken, ProcessRequirement, current\n"
        "assert os.getpid() == 1 and os.readlink('/proc/self') != '1'\n"
        "ask = ProcessRequirement.Builder\n"
        "assert ask().signed_with_same_identity().user(0).build().mismatch(current().audit_token()) is None\n"
        "child = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n"
        "with current().open_process(child.pid) as process:\n"
        "    token = AuditToken(pid=child.pid, pidversion=process.pidversion)\n"
        "assert ask().parent_is_this_process().build().mismatch(token) is None\n"
        "reason = ask().signed_with_same_identity().build().mismatch(token)\n"
        "assert reason is not None and 'cat' in reason, reason\n"
        "assert ask().is_parent_of_this_process().build().mismatch(token) is not None\n"
        "child.communicate()\n"
    )
    unshare = ["unshare", "--pid", "--fork"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("pid namespaces are not permitted here")
    subprocess.run([*unshare, sys.executable, "-c", code], check=True, timeout=PATIENCE)


@needs_root
def test_what_cannot_be_looked_at_is_refused() -> None:
    """A process without the right to see another one's program does not take its word for it."""
    code = (
        "import os\n"
        "from machrv import AuditToken, ProcessRequirement, current\n"
        "parent = current().open_process(os.getppid())\n"
        "token = AuditToken(pid=parent.pid, pidversion=parent.pidversion)\n"
        "requirement = ProcessRequirement.Builder().signed_with_same_identity().build()\n"
        "assert requirement.mismatch(token) is None\n"
        "os.setuid(4321)\n"
        "reason = requirement.mismatch(token)\n"
        "assert reason is not None and 'Permission denied' in reason, reason\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
