"""A child with one end of a channel, under "chan", which does as it is told by the channel; see tests/test_channel.py."""

import itertools
import os
import signal
import socket
import sys
import tempfile
import time

from machrv import Channel, ChannelMessage, MemoryObject, Message, ReceiveRight, RendezvousClient, fileport_fd


def give(message: ChannelMessage) -> None:
    """One of each kind, with something in it."""
    ours, theirs = socket.socketpair()
    mine, yours = Channel.pair()
    inbox, filled = ReceiveRight.allocate(), ReceiveRight.allocate()
    with tempfile.TemporaryFile() as file, MemoryObject.from_bytes(b"given") as memory, ours, theirs, mine, inbox:
        file.write(b"given")
        file.seek(0)
        ours.send(b"given")
        mine.send(b"given")
        with filled.make_send() as right:
            right.send(Message(3))
        message.reply(b"given", [file, theirs, memory, inbox.make_send(), filled, yours])
        inbox.receive(30).close()  # Until what was given was used.


with RendezvousClient.connect(timeout=30) as client:
    if sys.argv[1:] == ["claim-nothing"]:
        sys.exit(0)
    channel = client.take_channel("chan")
assert channel is not None

with channel:
    if sys.argv[1:2] == ["flood"]:
        for number in itertools.count():
            channel.send(number.to_bytes(4, "big") + bytes(int(sys.argv[2])))
    for message in channel:
        with message:
            word = message.data.partition(b" ")[0]
            if word == b"echo":
                channel.send(message.data, [right for right in message.rights if right is not None])
                message.rights.clear()
            elif word == b"answer":
                message.reply(message.data, message.rights)
            elif word == b"drop":
                message.close()
            elif word == b"read":
                with os.fdopen(fileport_fd(message.rights[0]), "rb") as file:
                    message.reply(file.read())
            elif word == b"memory":
                with message.rights[0].map() as view:
                    message.reply(bytes(view))
            elif word == b"give":
                give(message)
            elif word == b"over":
                with message.rights.pop(0) as other:
                    other.send(b"over another channel")
            elif word == b"object":
                message.reply_object({"pid": os.getpid(), "said": message.data.decode()})
            elif word == b"sleep":
                time.sleep(600)
            elif word == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
