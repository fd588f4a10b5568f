"""Asking on the loop: one request, one answer."""

# What must never happen here: an await between an answer taken and its return, or a reply port that outlives its request.

from __future__ import annotations

import asyncio

from machrv.rights.awaiting import received, sent
from machrv.rights.kinds import answered, ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.message import Message
    from machrv.rights.incoming import ReceivedMessage
    from machrv.rights.kinds import SendRight


async def request(right: SendRight, message: Message, timeout: float | None = None) -> ReceivedMessage:
    """Send `message` and wait for the answer, as `right.request` does; the loop goes on meanwhile.

    `timeout` in seconds covers both. Raises as `right.request`. Cancelled before it was sent, the caller owns what it owned
    before; cancelled after that, the answer is destroyed when it comes.

        answer = await aio.request(port, Message(body=b"2+3 "), timeout=5)
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    answers = await sent(right, lambda: ask(right, message, 0), timeout)
    try:
        left = None if deadline is None else max(0.0, deadline - loop.time())
        answer = await received(answers, lambda: answers.receive(timeout=0), left)
    except BaseException:
        answers.close()
        raise
    return answered(right, answers, answer)
