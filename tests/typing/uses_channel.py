"""Two ends that talk, requests, and what a received message owns."""

from __future__ import annotations

from typing_extensions import assert_type

from machrv import (
    AuditToken,
    Channel,
    ChannelClosedError,
    ChannelMessage,
    MemoryObject,
    Message,
    NoSenders,
    ReceivedMessage,
    ReceiveRight,
    RendezvousClient,
    RequestDropped,
    Sender,
    SenderGoneError,
    SendOnceRight,
    SendRight,
    aio,
    launch,
)


def looking(message: ReceivedMessage, token: AuditToken) -> None:
    """Who sent it, as the kernel knows the process."""
    sender = message.sender
    assert_type(sender, Sender)
    try:
        assert_type(sender.exe + sender.cgroup + sender.label, str)
        assert_type(Sender(token).pidfd + sender.cgroup_id + sender.pid, int)
    except SenderGoneError as error:
        gone: LookupError = error
        print(gone, sender.audit_token)


def talking(file: int) -> None:
    """Bytes, rights and objects, there and back."""
    ours, theirs = Channel.pair()
    assert_type(ours, Channel)
    launch(["child"], {"talk": theirs})
    with ours, ReceiveRight.allocate() as port:
        ours.send(b"bytes", [port.make_send()], timeout=1)
        ours.send_object({"an": "object"})
        assert_type(ours.poll(0.1), bool)
        assert_type(ours.fileno() + file, int)
        with ours.receive(timeout=1) as message:
            assert_type(message, ChannelMessage)
            assert_type(message.data, bytes)
            message.reply(message.data)
            message.reply_object(message.object())
        print(ours.receive_object(timeout=1))
        try:
            assert_type(ours.request(b"question", timeout=1), ChannelMessage)
        except RequestDropped as dropped:
            end: EOFError = dropped
            raise end
        except ChannelClosedError as gone:
            end = gone
        for message in ours:
            print(message.rights)
    assert_type(ours.closed, bool)
    assert_type(theirs.moving_right(), ReceiveRight)
    ours.close()


def taking(message: ChannelMessage) -> None:
    """What came along, each as what it is to be."""
    assert_type(message.take(0, SendOnceRight), SendOnceRight)
    assert_type(message.take_send_right(), SendRight)
    assert_type(message.take_receive_right(1), ReceiveRight)
    assert_type(message.take_memory(2), MemoryObject)
    assert_type(message.take_channel(3), Channel)
    assert_type(message.take_file(4).read(), str)
    assert_type(message.take_file(5, "rb").read(), bytes)
    assert_type(message.take_file(mode="rb").read(), bytes)
    assert_type(message.take_socket(6).fileno() + message.take_fd(7), int)
    assert_type(message.audit_token, AuditToken)
    message.close()


def asking(right: SendRight, port: ReceiveRight) -> None:
    """A request, and the message that asks, which owns what it brought."""
    with right.request(Message(body=b"2+3 "), timeout=1) as answer:
        assert_type(answer, ReceivedMessage)
        assert_type(answer.audit_token, AuditToken)
        assert_type(answer.sender, Sender)
    try:
        with port.receive(timeout=1, wait_for_senders=False) as message:
            if message.reply_right is not None:
                message.reply(Message())
            print(message.rights)
    except NoSenders as nobody:
        end: EOFError = nobody
        print(end)


def claiming(client: RendezvousClient) -> None:
    """An end that the parent handed over."""
    channel = client.take_channel("talk")
    assert channel is not None
    channel.close()


async def on_a_loop(right: SendRight) -> None:
    """The same, without keeping the loop."""
    assert_type(await aio.request(right, Message(), timeout=1), ReceivedMessage)
    ours, theirs = aio.Channel.pair()
    theirs.close()
    async with ours:
        await ours.send(b"bytes")
        assert_type(await ours.receive(1), ChannelMessage)
        assert_type(await ours.request(b"question"), ChannelMessage)
        await ours.send_object([1])
        print(await ours.receive_object())
        assert_type(await ours.poll(0.1), bool)
        async for message in ours:
            assert_type(message, ChannelMessage)
