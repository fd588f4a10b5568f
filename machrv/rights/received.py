"""The rights in a message that was decoded by hand, taken as owned objects; one from `receive` owns them already."""

# What must never happen here: a name that both an object and the caller give up: take a right once, or destroy the message
# (`destroy_message`), not both.

from __future__ import annotations

from machrv.kernel import current
from machrv.rights.incoming import ReceivedMessage
from machrv.rights.kinds import ReceiveRight, SendOnceRight, SendRight, rights_of, take_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel import Kernel
    from machrv.message import Message
    from machrv.rights.kinds import OwnedRight


def take_rights(message: Message, kernel: Kernel | None = None) -> list[OwnedRight | None]:
    """Every right in the descriptors of a received message, in order, those of out-of-line arrays too, owned.

    For messages that were decoded by hand; of what `receive` returned, it empties `message.rights`. The right to reply to
    is not among them: see `take_reply_right`. None stands for a right whose port died on the way.
    """
    if isinstance(message, ReceivedMessage):
        taken, message.rights = message.rights, []
        return taken
    kernel = kernel if kernel is not None else current()
    return [right for descriptor in message.descriptors for right in rights_of(descriptor, kernel)]


def take_reply_right(message: Message, kernel: Kernel | None = None) -> SendRight | SendOnceRight | None:
    """The right to answer a received message with, owned; None if it brought none, or one that is dead.

    For messages that were decoded by hand; of what `receive` returned, it takes `message.reply_right`.
    """
    if isinstance(message, ReceivedMessage):
        answer, message.reply_right = message.reply_right, None
        return answer
    right = take_right(message.remote_port, message.remote_disposition, kernel)
    return None if isinstance(right, ReceiveRight) else right
