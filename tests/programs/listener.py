"""A child that has the end of a channel, under "chan", and looks at it when nobody is left there; see tests/test_channel.py."""

from machrv import Channel, ChannelClosedError, RendezvousClient

with RendezvousClient.connect(timeout=30) as client:
    channel = client.take_channel("chan")

with channel:
    while True:  # Until the other end is closed: then this says so, though messages wait.
        try:
            channel.send(b"are you there?", timeout=30)
        except ChannelClosedError:
            break
    messages = list(channel)
    answer = messages[0].rights.pop(0)
    assert isinstance(answer, Channel)
    with answer:
        answer.send_object([message.data.decode() for message in messages])
