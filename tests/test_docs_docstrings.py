"""The examples in docstrings, which are shown in the reference, run.

An example is indented code, and says only what is of interest: what it needs, and what comes of it, is here.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent

import pytest

import machrv
from machrv import aio
from tests.pages import Reader

HEAD = """
import asyncio
import sys
from asyncio.subprocess import PIPE

from machrv import Channel, Message, ReceiveRight, RendezvousClient, aio, fileport_fd, launch

command = [sys.executable, "child.py"]

TALKER = '''
from machrv import RendezvousClient

with RendezvousClient.connect() as rights:
    channel = rights.take_channel("chan")
with channel:
    channel.send(channel.receive(30).data)
'''
"""

#: Around each example, at EXAMPLE: what it needs, and what must be true afterwards.
AROUND = {
    "launch": """
        with ReceiveRight.allocate() as inbox, open("log.txt", "w") as open_file:
            EXAMPLE
            assert child.returncode == 0 and not open_file.closed
        """,
    "aio.receive": """
        with ReceiveRight.allocate() as port, port.make_send() as right:
            right.send(Message(5))
            EXAMPLE
            assert message.id == 5
        """,
    "aio.send": """
        with ReceiveRight.allocate() as inbox, ReceiveRight.allocate() as other:
            right = other.make_send()
            with inbox.make_send() as port:
                EXAMPLE
            assert right.closed
            with inbox.receive(0) as message:
                assert message.body == b"four" and len(message.rights) == 1
        """,
    "aio.request": """
        async def serve():
            with await aio.receive(inbox) as message:
                message.reply(Message(5))
        with ReceiveRight.allocate() as inbox, inbox.make_send() as port:
            server = asyncio.create_task(serve())
            EXAMPLE
            await server
            assert answer.id == 5
        """,
    "SendRight.request": """
        def serve():
            with inbox.receive(30) as message:
                message.reply(Message(5))
        with ReceiveRight.allocate() as inbox, inbox.make_send() as port:
            server = asyncio.create_task(asyncio.to_thread(serve))
            await asyncio.sleep(0)
            EXAMPLE
            await server
            assert answer.id == 5
        """,
    "ReceivedMessage": """
        with ReceiveRight.allocate() as port, port.make_send() as to, ReceiveRight.allocate() as inbox:
            to.send(Message(5, descriptors=[inbox.make_send()]))
            EXAMPLE
            right.close()
        """,
    "Channel": """
        with open("child.py", "w") as child:
            child.write(TALKER)
        EXAMPLE
        """,
    "ChannelMessage": """
        from machrv import MemoryObject
        ours, channel = Channel.pair()
        with ours, channel, open("log", "a") as file, MemoryObject.create(3) as memory:
            ours.send(rights=[file, memory])
            EXAMPLE
            assert log.writable() and settings.size == 3
            log.close()
            settings.close()
        """,
    "ChannelMessage.take": """
        ours, channel = Channel.pair()
        with ours, channel:
            ours.send(rights=[ReceiveRight.allocate()])
            with channel.receive() as message:
                EXAMPLE
            port.close()
        """,
    "aio.Channel": """
        if len(sys.argv) > 1:
            with await aio.connect() as rights:
                EXAMPLE
        else:
            ours, theirs = aio.Channel.pair()
            async with ours:
                child = await aio.launch([sys.executable, sys.argv[0], "child"], {"chan": theirs})
                assert (await ours.request(b"echo", timeout=30)).data == b"echo"
                ours.close()
                assert await child.wait() == 0
        """,
    "aio.launch": """
        with ReceiveRight.allocate() as inbox:
            EXAMPLE
            assert inbox.receive(0).body == b"here" and child.returncode == 0
        """,
    "aio.connect": """
        if len(sys.argv) > 1:
            EXAMPLE
            with port:
                port.send(Message(body=b"here"))
        else:
            with ReceiveRight.allocate() as inbox:
                child = await aio.launch([sys.executable, sys.argv[0], "child"], {"port": inbox.make_send()})
                assert (await aio.receive(inbox, 30)).body == b"here" and await child.wait() == 0
        """,
    "aio.RendezvousServer": """
        with ReceiveRight.allocate() as inbox:
            ports = {"port": inbox.make_send()}
            EXAMPLE
            assert inbox.receive(0).body == b"here"
        """,
    "aio.LoopLock": """
        async with aio.RendezvousServer() as server:
            with ReceiveRight.allocate() as inbox:
                ports = {"port": inbox.make_send()}
                EXAMPLE
                assert (await aio.receive(inbox, 30)).body == b"here" and await child.wait() == 0
        """,
}

CHILD = """
from machrv import Message, RendezvousClient

with RendezvousClient.connect() as rights, rights.take_send_right("port") as port:
    port.send(Message(body=b"here"))
"""


def examples() -> Iterator[tuple[str, str]]:
    """Every example in the docstrings of public names, and whose it is."""
    public = {name: getattr(machrv, name) for name in machrv.__all__}
    public.update({f"aio.{name}": getattr(aio, name) for name in aio.__all__})
    for name, thing in list(public.items()):
        if isinstance(thing, type):
            public.update({f"{name}.{key}": getattr(thing, key) for key in vars(thing) if not key.startswith("_")})
    for name, thing in public.items():
        for code in re.findall(r"(?:^ {4}.*\n)+", f"{inspect.getdoc(thing)}\n", re.MULTILINE):
            yield name, dedent(code)


EXAMPLES = list(examples())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the examples are written on Linux")
@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_runs(name: str, code: str, tmp_path: Path) -> None:
    """In a program that has what it needs."""
    around = indent(dedent(AROUND[name]), "    ")
    place = re.search(r"^( *)EXAMPLE$", around, re.MULTILINE)
    assert place
    body = around.replace(place[0], indent(code, place[1]).rstrip())
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    (tmp_path / "example.py").write_text(
        f"{HEAD}\n\nasync def main():{body}\n\nasyncio.run(main())\n", encoding="utf-8"
    )
    Reader(f"the docstring of {name}", tmp_path).run([sys.executable, "example.py"])
