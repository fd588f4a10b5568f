"""The exception tree, and every return code's name against the headers themselves."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machrv import (
    Message,
    PortSet,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousPort,
    SendOnceRight,
    SendRight,
    SendTimeout,
    aio,
    errors,
    fileport,
    fileport_fd,
)
from machrv.errors import (
    MachError,
    MachrvError,
    MessageFormatError,
    PeerRejectedError,
    RendezvousError,
    RendezvousTimeout,
    RightError,
    ServerNotFoundError,
    UnsupportedError,
    symbol_of,
)
from machrv.rights.right import Right

ERRORS_PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
INCLUDE = Path(__file__).resolve().parent.parent / "include" / "machrv"


def codes_in(header: str, pattern: str) -> list[tuple[str, int]]:
    """(name, value) of the #defines in a header that match."""
    text = (INCLUDE / header).read_text()
    return [(name, int(value, 0)) for name, value in re.findall(rf"#define ({pattern}) (\w+)\n", text)]


KERN = [pair for pair in codes_in("kern_return.h", r"KERN_\w+") if pair[0] != "KERN_RETURN_MAX"]
MACH_MSG = [pair for pair in codes_in("message.h", r"MACH_(?:SEND|RCV)_\w+") if pair[1] >= 0x10000000]
BOOTSTRAP = [pair for pair in codes_in("bootstrap.h", r"BOOTSTRAP_\w+") if pair[1] >= 1100]


def test_the_headers_were_read() -> None:
    """The tables below are what is in the headers, not nothing."""
    assert 57 == len(KERN)
    assert 41 == len(MACH_MSG)
    assert 7 == len(BOOTSTRAP)


@pytest.mark.parametrize(("name", "code"), KERN + MACH_MSG + BOOTSTRAP)
def test_every_code_has_its_symbol(name: str, code: int) -> None:
    """A code in any of the three namespaces is shown by the name that its header gives it."""
    error = MachError(code, "some_call")
    assert name == error.symbol
    number = hex(code) if code >= 0x10000000 else str(code)
    assert str(error).startswith(f"some_call: {name} ({number})")


def test_nothing_but_return_codes_is_a_symbol() -> None:
    """An option or a port type that shares a number with nothing is not taken for a return code."""
    symbol_of(0)
    assert {code for _, code in KERN + MACH_MSG + BOOTSTRAP} == set(errors._symbols)


def test_special_bits_are_named_beside_the_code() -> None:
    """MACH_RCV_BODY_ERROR comes with bits that say what was short: each has its name."""
    both = 0x1000400C | 0x2000 | 0x0400
    assert "MACH_RCV_BODY_ERROR|MACH_MSG_IPC_SPACE|MACH_MSG_VM_KERNEL" == symbol_of(both)
    assert "MACH_SEND_INVALID_MEMORY|MACH_MSG_VM_SPACE" == symbol_of(0x1000000C | 0x1000)


@pytest.mark.parametrize("code", [141, 0x100, 0x1000400C | 0x0200, 0x10004FFF, -308, 1 << 31, 0x2005])
def test_a_code_without_a_name_is_shown_as_a_number(code: int) -> None:
    """An unknown code is no KeyError; its number is in the text, once."""
    error = MachError(code, "bootstrap_look_up")
    assert f"{code:#x}" == error.symbol
    assert str(error) in (f"bootstrap_look_up: {code}", f"bootstrap_look_up: {code:#x}")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1100, "sandbox" if sys.platform == "darwin" else "machrv doctor"),
        (1101, "another live process"),
        (1102, "nobody has checked this name in"),
        (15, "nothing"),
    ],
)
def test_the_text_says_what_it_usually_means(code: int, words: str) -> None:
    """Codes that people meet say what is behind them."""
    assert words in str(MachError(code, "bootstrap_check_in"))


def test_every_meaning_belongs_to_a_code() -> None:
    """No explanation is keyed by a name that no code has."""
    assert set(errors._MEANING) <= {name for name, _ in KERN + MACH_MSG + BOOTSTRAP}


def test_too_large_says_how_large() -> None:
    """The size of the message that did not fit is an attribute, and in the text."""
    error = MachError(0x10004004, "mach_msg", 4096)
    assert 4096 == error.size
    assert "4096 bytes" in str(error)


def test_a_format_error_says_where() -> None:
    """The offset is an attribute and stands first in the text; without a buffer there is none."""
    assert "offset 24: expected a descriptor count" == str(MessageFormatError("expected a descriptor count", 24))
    assert 24 == MessageFormatError("expected", 24).offset
    assert "expected" == str(MessageFormatError("expected"))


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (MachError, (MachrvError,)),
        (MessageFormatError, (MachrvError, ValueError)),
        (RightError, (MachrvError,)),
        (RendezvousError, (MachrvError,)),
        (PeerRejectedError, (RendezvousError,)),
        (ServerNotFoundError, (RendezvousError,)),
        (RendezvousTimeout, (RendezvousError, TimeoutError)),
        (UnsupportedError, (MachrvError,)),
    ],
)
def test_an_exception_is_what_a_caller_would_expect(kind: type[Exception], bases: tuple[type[Exception], ...]) -> None:
    """Each is machrv's, and the builtin's where there is one; MachError is not an OSError: its codes are no errnos."""
    assert bases == kind.__bases__


@pytest.mark.parametrize(
    "error", [MachError(0x10004004, "mach_msg", 7), MessageFormatError("expected", 3), RendezvousTimeout("late")]
)
def test_an_exception_survives_pickling(error: Exception) -> None:
    """One that crosses to another process through multiprocessing reads as it did."""
    again = pickle.loads(pickle.dumps(error))
    assert type(error) is type(again)
    assert str(error) == str(again)
    assert vars(error) == vars(again)


SOURCE = Path(errors.__file__).parent


def raised() -> Iterator[tuple[str, ast.expr]]:
    """Everything that machrv raises, and where."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node.exc


def texts(expression: ast.expr) -> Iterator[str]:
    """The messages in what is raised, a placeholder for what is filled in."""
    for argument in expression.args if isinstance(expression, ast.Call) else []:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
        elif isinstance(argument, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in argument.values)


def test_every_message_reads_as_one_sentence() -> None:
    """No word twice, no capital at the beginning and no full stop at the end: it stands behind "SomeError: "."""
    wrong = []
    for place, expression in raised():
        for text in texts(expression):
            words = re.search(r"\b(\w+) \1\b", text)
            if (
                words
                or "  " in text
                or text.removesuffix(", ...").endswith((".", "!", " "))
                or re.match(r"[A-Z][a-z]+ [a-z]", text)
            ):
                wrong.append(f"{place}: {text}")
    assert wrong == []


def test_nothing_public_is_raised_without_a_message() -> None:
    """Whoever gets one of our exceptions is told something; only what never leaves its module may do without."""
    ours = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert [
        place
        for place, expression in raised()
        if (isinstance(expression, ast.Name) and expression.id in ours)
        or (isinstance(expression, ast.Call) and getattr(expression.func, "id", "") in ours and not expression.args)
    ] == []


def test_every_code_that_is_raised_is_explained() -> None:
    """The symbol of a return code is not all that its reader gets, whichever code it is that machrv raises."""
    codes = set()
    for path in SOURCE.rglob("*.py"):
        codes |= set(re.findall(r"MachError\(\s*(?:lib|constants)\.(\w+)", path.read_text()))
    written_in_c = list((Path(__file__).parent.parent / "machrv").rglob("*.c"))  # What is installed has none.
    for path in written_in_c:
        codes |= set(re.findall(r"\b((?:KERN|MACH_SEND|MACH_RCV|BOOTSTRAP)_[A-Z_]+)\b", path.read_text()))
    codes &= {name for name, _ in KERN + MACH_MSG + BOOTSTRAP}
    codes -= {"KERN_SUCCESS", "BOOTSTRAP_SUCCESS"}
    assert len(codes) > (20 if written_in_c else 5)
    assert sorted(codes - set(errors._MEANING)) == []


def test_every_explanation_reads_as_part_of_a_sentence() -> None:
    """It stands behind "symbol (number): "."""
    for symbol, text in errors._MEANING.items():
        assert text[0].islower() and not text.endswith((".", " ")) and "  " not in text, symbol
        assert not re.search(r"\b(\w+) \1\b", text), symbol


def test_a_timeout_says_how_long_and_on_what() -> None:
    """For both directions, from a loop too; and it can still be pickled."""
    with ReceiveRight.allocate(queue_limit=1) as port, port.make_send() as right:
        where = f"port {port.name:#x})"
        with pytest.raises(ReceiveTimeout, match=r"\(0\.05 s, receiving from ") as caught:
            port.receive(timeout=0.05)
        assert str(caught.value).endswith(where) and str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        with pytest.raises(ReceiveTimeout, match="without a wait"):
            port.receive(timeout=0)
        with pytest.raises(ReceiveTimeout, match=r"\(0\.05 s"):
            asyncio.run(aio.receive(port, timeout=0.05))
        with pytest.raises(SendTimeout, match="without a wait"):
            while True:
                right.send(Message(1), timeout=0)
        with pytest.raises(SendTimeout, match=r"\(0\.05 s, sending to ") as late:
            right.send(Message(1), timeout=0.05)
        assert late.value.waited == 0.05
        with pytest.raises(SendTimeout, match=r"\(0\.05 s"):
            asyncio.run(aio.send(right, Message(1), timeout=0.05))


def test_what_is_no_message_is_refused_with_what_to_write() -> None:
    """Bytes are not sent as they are."""
    with ReceiveRight.allocate() as port, port.make_send() as right, port.make_send_once() as once:
        for one in (right, once):
            with pytest.raises(MessageFormatError, match=r"send\(Message\(body="):
                one.send(b"bytes")  # type: ignore[arg-type]
            assert not one.closed
        with pytest.raises(MessageFormatError, match=r"send\(Message\(body="):
            right.request(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(MessageFormatError, match=r"write|Message\(body=b'x'\)"):
        Message(b"x")  # type: ignore[arg-type]


def test_a_right_is_made_by_its_maker_and_the_text_says_which() -> None:
    """Not by its class, which takes names over."""
    makers = {
        ReceiveRight: "ReceiveRight.allocate()",
        SendRight: "make_send()",
        SendOnceRight: "make_send_once()",
        PortSet: "PortSet.allocate()",
    }
    for kind, maker in makers.items():
        with pytest.raises(TypeError) as caught:
            kind()
        assert maker in str(caught.value)


def test_a_spent_right_says_what_happened_to_it() -> None:
    """Closed, released, moved away, or made before fork; and no IndexError is behind that."""

    def why(right: Right) -> str:
        for use in (lambda: right.name, right.release):
            with pytest.raises(RightError) as caught:
                use()
            assert caught.value.__context__ is None
        return str(caught.value)

    with ReceiveRight.allocate() as port:
        right = port.make_send()
        right.close()
        assert why(right).endswith("it was closed")
        right = port.make_send()
        SendRight(right.release()).close()
        assert "it was released" in why(right)
        right = port.make_send()
        with port.make_send() as to:
            to.send(Message(1, descriptors=[right]))
        assert "moved away in a message" in why(right)
        port.receive(wait_for_senders=True).close()
        once = port.make_send_once()
        once.send(Message(1))
        assert "used: it sends one message" in why(once)
        port.receive(wait_for_senders=True)
        right = port.make_send()
        RendezvousPort.from_right(right).destroy()
        assert "moved into a RendezvousPort" in why(right)
        right = port.make_send()
        with pytest.raises(RightError):
            right.send(Message(1, descriptors=[right, right]))  # It fails, and is held again.
        right.close()
        assert why(right).endswith("it was closed")
        with port.make_send() as right:
            read, write = os.pipe()
            if not (pid := os.fork()):
                try:
                    right.name
                except RightError as error:
                    os.write(write, str(error).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            assert b"was made before fork" in os.read(read, 1000)
            os.close(read)
            os.close(write)


def test_what_is_too_large_is_told_the_limit_and_the_way_out() -> None:
    """The limit is what it says: so many bytes of body go, and not one more."""
    most = int(re.search(r"a body has ([\d,]+) bytes at most", ERRORS_PAGE.read_text())[1].replace(",", ""))  # type: ignore[index]
    with ReceiveRight.allocate() as port, port.make_send() as right:
        right.send(Message(1, bytes(most)))
        assert len(port.receive().body) == most
        for message in (Message(1, bytes(most + 1)), Message(1, descriptors=[right.copy() for _ in range(254)])):
            with pytest.raises(MachError, match="at most 64 MiB.*253 rights.*MemoryObject"):
                right.send(message)
            for descriptor in message.descriptors:
                descriptor.close()


def test_a_descriptor_that_is_not_open_is_an_oserror(tmp_path: Path) -> None:
    """EBADF, as everywhere in Python; files are taken as they are."""
    for number in (-1, 99_999, 2**40):
        with pytest.raises(OSError) as caught:
            fileport(number)
        assert caught.value.errno == errno.EBADF
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with open(tmp_path / "file", "w") as file, fileport(file) as right:
        fd = fileport_fd(right)
        assert os.path.sameopenfile(fd, file.fileno())
        os.close(fd)
    with pytest.raises(ValueError, match="closed"):
        fileport(file)
    with pytest.raises(TypeError, match="an open file, not a path"):
        fileport("notes.txt")  # type: ignore[arg-type]


def test_what_is_alive_at_the_end_of_python_says_nothing() -> None:
    """No "Exception ignored", wherever it is held."""
    code = (
        "import builtins, threading; from machrv import MemoryObject, ReceiveRight\n"
        "class Ring: pass\n"
        "ring = Ring(); ring.ring = ring; local = threading.local()\n"
        "for where in (builtins, ring, local, Ring):\n"
        "    where.memory = MemoryObject.create(1); where.port = ReceiveRight.allocate()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
