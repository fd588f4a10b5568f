"""`machrv doctor`: what it says of this system, of one that lacks something, and of what it finds in the directory."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machrv import SendRight
from machrv._mach import lib
from machrv.cli import main
from machrv.doctor import claim, directory, linux, names, surroundings
from machrv.doctor.findings import OK, WARNING, WRONG, Finding
from machrv.errors import MachError
from machrv.kernel import current

from .conftest import PATIENCE, Program

DOCTOR = [sys.executable, "-m", "machrv", "doctor"]
ROOT = Path(__file__).resolve().parent.parent

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bootstrap directory of this test's own, not made yet."""
    path = tmp_path / "machrv"
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", str(path))
    return path


def findings(*arguments: str, status: int = 0, **popen: Any) -> dict[str, dict[str, Any]]:
    """What a doctor process of its own finds, by what it is about."""
    done = subprocess.run([*DOCTOR, "--json", *arguments], capture_output=True, text=True, timeout=PATIENCE, **popen)
    assert done.returncode == status, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is (status == 0)
    return {finding["what"]: finding for finding in report["findings"]}


def of(room: Iterator[Finding]) -> dict[str, Finding]:
    """The findings of a room by what they are about."""
    return {finding.what: finding for finding in room}


# -- the whole --------------------------------------------------------------------------------------------------------


def test_a_sound_system_is_told_so_and_a_child_proves_it(place: Path) -> None:
    """Every room reports, a real child claims, and it is measured. Nothing is left in the directory."""
    done = subprocess.run(DOCTOR, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout
    for words in (
        "Python\n",
        "Bootstrap directory",
        "Live check",
        "claimed a port and a file",
        "to claim",
        "machrv works here",
    ):
        assert words in done.stdout
    assert "Traceback" not in done.stderr
    assert {path.name for path in place.iterdir()} <= {".lock"}


def test_the_report_for_programs(place: Path) -> None:
    """Counts, fallbacks, and each finding with its section, state and words."""
    done = subprocess.run([*DOCTOR, "--json"], capture_output=True, text=True, timeout=PATIENCE)
    report = json.loads(done.stdout)
    assert report["ok"] is True and report["counts"]["wrong"] == 0
    assert sum(report["counts"].values()) == len(report["findings"])
    assert report["fallbacks"] == {
        finding["what"]: finding["fallback"] for finding in report["findings"] if finding["fallback"]
    }
    assert {"section", "what", "state", "found", "advice"} <= report["findings"][0].keys()


def test_in_this_process_it_leaves_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No descriptor, no name, no child: what every test is held to."""
    assert main(["doctor"]) == 0
    assert "machrv works here" in capsys.readouterr().out
    assert main(["doctor", "--quick"]) == 0
    assert "Live check" not in capsys.readouterr().out


def test_on_a_terminal_it_is_coloured(place: Path) -> None:
    """And it fits."""
    own, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen([*DOCTOR, "--quick"], stdout=other, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(other)
        output = b""
        try:
            while piece := os.read(own, 4096):
                output += piece
        except OSError:
            pass  # That is how a terminal ends.
        os.close(own)
        assert process.wait(PATIENCE) == 0
    assert b"\x1b[32mok" in output
    assert max(len(re.sub(rb"\x1b\[[0-9;]*m", b"", line)) for line in output.splitlines()) <= 80


def test_help_shows_examples() -> None:
    """What it is for, and what the exit status means."""
    done = subprocess.run([*DOCTOR, "--help"], capture_output=True, text=True)
    assert "examples:" in done.stdout and "--fix" in done.stdout and "exit status" in done.stdout


# -- Python -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be broken."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "machrv", folder / "machrv", ignore=shutil.ignore_patterns("__pycache__", "native"))
    return folder


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (None, None, "there is none in"),
        ("_mach.cpython-39-sparc-linux-gnu.so", b"x", "was built for another interpreter"),
        ("_mach.abi3.so", b"no library at all", "cannot be loaded"),
    ],
)
def test_a_module_that_does_not_fit(copy: Path, name: str | None, content: bytes | None, expected: str) -> None:
    """Missing, another interpreter's, broken: said, with what to do; other commands point to the doctor."""
    for built in (copy / "machrv").glob("_mach.*so"):
        built.unlink()
    if name is not None and content is not None:
        (copy / "machrv" / name).write_bytes(content)
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    found = findings(status=1, env=environment, cwd=copy)
    assert found["compiled module"]["state"] == WRONG and expected in found["compiled module"]["found"]
    assert "build" in found["compiled module"]["advice"]
    command = [sys.executable, "-m", "machrv", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=copy)
    assert done.returncode == 1 and "machrv doctor" in done.stderr and "Traceback" not in done.stderr


def test_a_module_of_another_version(copy: Path) -> None:
    """One that loads, but lacks what this version needs."""
    with (copy / "machrv" / "_mach.pyi").open("a") as file:
        file.write("    MACHRV_REALLY_NEW: int\n")
    found = findings("--quick", status=1, env={**os.environ, "PYTHONPATH": str(copy)}, cwd=copy)
    assert "lacks MACHRV_REALLY_NEW: it is of another version" in found["compiled module"]["found"]


def test_sources_that_are_newer_than_the_module(copy: Path) -> None:
    """In a clone whose C was changed."""
    (copy / "build_ffi.py").touch()
    (copy / "include").mkdir()
    (copy / "include" / "new.h").write_text("")
    os.utime(copy / "include" / "new.h", (2**31, 2**31))
    found = findings("--quick", env={**os.environ, "PYTHONPATH": str(copy)}, cwd=copy)
    assert found["its sources"]["state"] == WARNING and "include/new.h is newer" in found["its sources"]["found"]


# -- the kernel -------------------------------------------------------------------------------------------------------

SWITCHES = {
    "SO_PASSPIDFD": ("MACHRV_WITHOUT_PASSPIDFD", "may count as sent by whoever has its number"),
    "pidfs": ("MACHRV_WITHOUT_PIDFS", "by its start time"),
    "PIDFD_GET_INFO": ("MACHRV_WITHOUT_PIDFD_INFO", "reported as its real ones"),
    "SO_NETNS_COOKIE": ("MACHRV_WITHOUT_NETNS_COOKIE", "comes home only in the process that made it"),
    "pidfds of the gone": ("MACHRV_WITHOUT_PIDFD_OF_GONE", "counts as no process's in particular"),
    "MFD_NOEXEC_SEAL": ("MACHRV_WITHOUT_NOEXEC_SEAL", "could be made executable"),
}


@needs_linux
@pytest.mark.parametrize("feature", SWITCHES)
def test_a_feature_that_is_missing_is_told_with_what_it_costs(feature: str, place: Path) -> None:
    """Each feature switched off alone: a warning, the fallback in words; it still works."""
    switch, cost = SWITCHES[feature]
    if not linux.features()[feature]:
        pytest.skip(f"this kernel has no {feature}")
    everything = linux.features()
    lib.machrv_without(getattr(lib, switch))
    try:
        without = linux.features()
        found = of(linux.look())[feature]
    finally:
        lib.machrv_without(0)
    gone = {name for name, works in everything.items() if works and not without[name]}
    with_it = {"PIDFD_GET_INFO", linux.GONE} if feature == "SO_PASSPIDFD" else set()
    assert gone == {feature} | with_it & {name for name, works in everything.items() if works}
    assert found.state == WARNING and cost in found.found and cost in found.fallback


@needs_linux
def test_the_features_are_what_this_kernel_says(place: Path) -> None:
    """Every feature is looked at, and what is there is said to be."""
    assert linux.features().keys() == linux.FEATURES.keys()
    found = of(linux.look())
    for name, works in linux.features().items():
        assert (found[name].state == OK) == works


@needs_linux
def test_all_newer_features_missing_it_still_works(place: Path, tmp_path: Path) -> None:
    """As on Linux 5.3: fallbacks listed for programs, exit status 0, and the claim works in the child too."""
    switches = " | ".join(f"lib.{switch}" for switch, _ in SWITCHES.values())
    (tmp_path / "sitecustomize.py").write_text(f"from machrv._mach import lib\nlib.machrv_without({switches})\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([*DOCTOR, "--json"], capture_output=True, text=True, env=environment, timeout=PATIENCE)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["fallbacks"].keys() == SWITCHES.keys()
    assert any(finding["what"] == "a claim" and finding["state"] == OK for finding in report["findings"])


@needs_linux
def test_a_required_feature_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Without pidfd_open nothing works, and the exit status says so."""
    real = linux.features()
    monkeypatch.setattr(linux, "features", lambda: {**real, "pidfd_open": False})
    found = of(linux.look())["pidfd_open"]
    assert found.state == WRONG and "Linux 5.3" in found.advice
    assert main(["doctor", "--quick"]) == 1


# -- limits and sandboxes ---------------------------------------------------------------------------------------------


@needs_linux
def test_few_descriptors_are_a_warning(place: Path) -> None:
    """A low limit is said, with what it means; machrv works."""

    def low() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    found = findings(preexec_fn=low)["descriptors of a process"]
    assert found["state"] == WARNING and "200" in found["found"] and "ulimit -n" in found["advice"]


@needs_linux
def test_what_restricts_a_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter, a container, namespaces, a security module: each with what follows from it."""
    files = {
        "/proc/self/status": "Name:\tx\nNSpid:\t4711\t2\nSeccomp:\t2\n",
        "/proc/self/uid_map": "         0       1000          1\n",
        "/sys/kernel/security/lsm": "lockdown,yama,apparmor",
        "/proc/self/attr/current": "snap.thing (enforce)\n",
        "/proc/sys/kernel/yama/ptrace_scope": "0\n",
    }
    monkeypatch.setattr(surroundings, "_read", lambda path: files.get(path, ""))
    monkeypatch.setenv("container", "lxc")
    found = of(surroundings.sandboxes())
    assert found.keys() >= {"seccomp", "user namespace", "pid namespace", "security module", "ptrace", "container"}
    assert "a filter" in found["seccomp"].found and "2 here and 4711 outside" in found["pid namespace"].found


@needs_linux
def test_small_kernel_limits_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers that hold no large message, watches that run out, a full file table."""
    small = {
        "/proc/sys/net/core/wmem_default": "4096",
        "/proc/sys/net/core/somaxconn": "5",
        "/proc/sys/fs/epoll/max_user_watches": "100",
    }
    monkeypatch.setattr(surroundings, "_read", lambda path: small.get(path, ""))
    found = of(surroundings.limits())
    assert found["socket buffer"].state == found["epoll watches"].state == WARNING
    assert "5 children" in found["backlog"].found


# -- the bootstrap directory ------------------------------------------------------------------------------------------


@needs_linux
def test_where_the_directory_is_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path) -> None:
    """The variable that decides is named; one that is of no use too."""
    assert "by MACHRV_BOOTSTRAP_DIR" in of(directory.look())["place"].found
    monkeypatch.delenv("MACHRV_BOOTSTRAP_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert "by XDG_RUNTIME_DIR" in of(directory.look())["place"].found
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    assert "is no directory" in of(directory.look())["place"].found
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", "relative")
    assert of(directory.look())["place"].state == WARNING
    assert not place.exists()


@needs_linux
@pytest.mark.parametrize("fault", ["a link", "a file", "open to others", "somebody else's", "cannot be made"])
def test_an_unsound_directory_is_wrong_as_machrv_itself_finds(fault: str, place: Path, tmp_path: Path) -> None:
    """What the doctor calls wrong, a server refuses too; and the exit status is 1."""
    if fault == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    elif fault == "a file":
        place.write_text("")
    elif fault == "open to others":
        place.mkdir()
        place.chmod(0o755)
    elif fault == "somebody else's":
        if os.geteuid():
            pytest.skip("needs to be root, to make a directory of somebody else")
        place.mkdir(mode=0o700)
        os.chown(place, 12345, 12345)
    else:
        os.environ["MACHRV_BOOTSTRAP_DIR"] = str(tmp_path / "none" / "machrv")
    found = of(directory.look(fix=True))
    assert found["owner and mode"].state == WRONG and "MACHRV_BOOTSTRAP_DIR" in found["owner and mode"].advice
    assert "stale" not in found
    check = findings(status=1)["a claim"]
    assert check["state"] == WRONG and "BOOTSTRAP_NOT_PRIVILEGED" in check["found"]


@needs_linux
def test_a_parent_that_others_can_write_to_is_a_warning(place: Path, tmp_path: Path) -> None:
    """Whoever can rename the directory can put his own in its place."""
    place.mkdir(mode=0o700)
    tmp_path.chmod(0o777)
    assert of(directory.look())["the directories above"].state == WARNING
    tmp_path.chmod(0o1777)
    assert of(directory.look())["the directories above"].state == OK


@needs_linux
def test_a_path_too_long_for_a_socket_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It works all the same, by a detour that is said."""
    path = tmp_path / ("long" * 25)
    path.mkdir(mode=0o700)
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", str(path))
    found = of(directory.look())["path"]
    assert "/proc/self/fd" in found.found
    assert findings()["a claim"]["state"] == OK


def killed_server(place: Path, name: str) -> None:
    """A process that checks a name in and is killed."""
    code = f"import sys; from machrv import current; current().bootstrap_check_in({name!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL


@needs_linux
def test_stale_names_are_found_and_removed_on_demand_only(place: Path, tmp_path: Path) -> None:
    """Two names of killed processes, a live one, a file and links that are none of ours: only the two go."""
    kernel = current()
    killed_server(place, "org.example.one")
    live = kernel.bootstrap_check_in("org.example.live")
    killed_server(place, "org.example.two")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (place / "file").write_text("mine")
    (place / "link").symlink_to(victim)
    (place / ("." + "0" * 32)).write_text("looks like a socket's name, and is none")
    (place / "astray").symlink_to("../victim")
    try:
        before = sorted(os.listdir(place))
        found = of(directory.look())
        assert "org.example.live" in found["names in use"].found and "1" == found["names in use"].found[:1]
        stale = found["stale"]
        assert stale.state == WARNING and "--fix" in stale.advice
        assert stale.found == "1 left by processes that were killed: org.example.two"  # It has swept the other.
        assert sorted(os.listdir(place)) == before
        assert "removed" in findings("--fix", "--quick")
        gone = set(before) - set(os.listdir(place))
        assert "org.example.two" in gone and "org.example.live" not in gone
        assert {name for name in gone if not name.startswith(".")} <= {"org.example.one", "org.example.two"}
        assert victim.read_text() == "precious" and (place / "link").is_symlink() and (place / "file").exists()
        after = of(directory.look())
        assert after["stale"].state == OK and "file" in after["other files"].found
        SendRight.adopt(kernel.bootstrap_look_up("org.example.live")).close()
    finally:
        kernel.mach_port_destroy(live)


@needs_linux
def test_a_lock_that_somebody_holds_is_said(place: Path) -> None:
    """A process that hangs while it checks in keeps others from it."""
    code = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    place.mkdir(mode=0o700)
    with subprocess.Popen([sys.executable, "-c", code, place / ".lock"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        assert of(directory.look())["lock"].state == WARNING
        process.communicate()
    assert "lock" not in of(directory.look())


# -- names and requirements -------------------------------------------------------------------------------------------


def test_registering_and_looking_up_are_tried_apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may be denied alone, and then it is said what to allow; nothing is left."""
    found = of(names.look())
    assert {finding.state for finding in found.values()} == {OK} and len(found) == 2
    denied = MachError(lib.BOOTSTRAP_NOT_PRIVILEGED, "denied")

    def refuses(*_: object) -> int:
        raise denied

    kernel = type(current())
    with monkeypatch.context() as patched:
        patched.setattr(kernel, "bootstrap_look_up", refuses)
        found = of(names.look())
    assert found[names.REGISTER].state == OK and found[names.LOOK_UP].state == WRONG
    assert "RESOLVE_UNIX" in found[names.LOOK_UP].advice and "connect(2)" in found[names.LOOK_UP].advice
    with monkeypatch.context() as patched:
        patched.setattr(kernel, "bootstrap_check_in", refuses)
        found = of(names.look())
    assert found[names.REGISTER].state == WRONG and found[names.LOOK_UP].state == OK
    assert "MAKE_SOCK" in found[names.REGISTER].advice and "nameless=True" in found[names.REGISTER].advice
    with monkeypatch.context() as patched:
        patched.setattr(kernel, "bootstrap_check_in", refuses)
        patched.setattr(kernel, "name", "darwin")
        found = of(names.look())
    assert "(allow mach-register (global-name-prefix" in found[names.REGISTER].advice


@needs_linux
def test_in_a_sandbox_that_denies_registering(place: Path, program: Program) -> None:
    """Landlock, for real: looking up goes on, and children can be launched without a name. The advice says so."""
    place.mkdir(mode=0o700)
    command = [*program("shut_in", "landlock", place), *DOCTOR, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode == 77:
        pytest.skip("no Landlock here")
    assert done.returncode == 1, done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["registering a name"]["state"] == WRONG and "Landlock" in found["registering a name"]["advice"]
    assert found["looking a name up"]["state"] == OK
    assert found["a claim"]["state"] == WRONG and found["a claim without a name"]["state"] == OK


def test_do_i_meet_my_own_requirement(place: Path) -> None:
    """The same identity as this process's; and whatever is asked for."""
    found = findings("--quick", f"--require=user={os.getuid()}", "--require", "check_dynamic_validity_only")
    assert (
        found["the own identity"]["state"] == OK and "signed_with_same_identity()" in found["the own identity"]["found"]
    )
    assert found["--require"]["state"] == OK
    found = findings("--quick", "--require", f"user={os.getuid() + 1}", status=1)
    assert found["--require"]["state"] == WRONG and "its real, effective" in found["--require"]["found"]
    for text, why in (
        ("usr=0", "there is app_store"),
        ("user", "needs a value"),
        ("user=x", "a number"),
        ("team_identifier=A", "Linux"),
    ):
        found = findings("--quick", "--require", text, status=1)
        assert found["--require"]["state"] == WRONG and why in found["--require"]["found"], found["--require"]


# -- the claim --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ("import sys; sys.exit('no such thing')", "the child says: no such thing"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("import time; time.sleep(100)", "nothing was heard of the child"),
    ],
)
def test_a_child_that_does_not_come_through(
    child: str, expected: str, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """Its last words, its status, or that it was not heard of; it is gone afterwards."""
    monkeypatch.setattr(claim, "CHILD", [sys.executable, "-c", child])
    monkeypatch.setattr(claim, "PATIENCE", 0.3 if "nothing was heard" in expected else PATIENCE)
    found = of(claim.look())["a claim"]
    assert found.state == WRONG and expected in found.found


def test_a_room_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """A check that raises does not end the examination."""

    def broken() -> Iterator[Finding]:
        raise RuntimeError("no idea")

    if sys.platform.startswith("linux"):
        monkeypatch.setattr(surroundings, "limits", broken)
        assert main(["doctor", "--quick"]) == 0


def test_over_the_macos_kernel(place: Path) -> None:
    """What it tells where the kernel is macOS's, as far as a stand-in goes: its room, and the claim."""
    pytest.importorskip("tests.standin")
    site = Path(__file__).parent / "standin" / "site"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    found = findings(env=environment)
    assert found["ports"]["state"] == OK and found["a claim"]["state"] == OK
    assert "has not been run on a Mac" in found["experience"]["found"] and "pidfs" not in found
