"""The rights in a received message, taken as owned objects."""

# What must never happen here: a name that both an object and the caller give up: take a right once, or destroy the message
# (`machrv.rights.transfer.destroy_message`), not both.

from __future__ import annotations

from machrv.kernel import current
from machrv.message import GuardedPortDescriptor, Message, OutOfLinePortsDescriptor, PortDescriptor
from machrv.rights.kinds import ReceiveRight, SendOnceRight, SendRight, take_right
from machrv.rights.transfer import copied_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.kernel import Kernel
    from machrv.rights.kinds import OwnedRight


def take_rights(message: Message, kernel: Kernel | None = None) -> list[OwnedRight | None]:
    """Every right in the descriptors of a received message, in order, those of out-of-line arrays too, owned.

    The right to reply to is not among them: see `take_reply_right`. None stands for a right whose port died on the way.
    """
    kernel = kernel if kernel is not None else current()
    rights: list[OwnedRight | None] = []
    for descriptor in message.descriptors:
        rights += _rights_of(descriptor, kernel)
    return rights


def _rights_of(descriptor: Any, kernel: Kernel) -> list[OwnedRight | None]:
    if isinstance(descriptor, (PortDescriptor, GuardedPortDescriptor)):
        return [take_right(descriptor.name, descriptor.disposition, kernel)]
    if isinstance(descriptor, OutOfLinePortsDescriptor):
        names = copied_in(kernel, descriptor).names
        return [take_right(name, descriptor.disposition, kernel) for name in names]
    return []


def take_reply_right(message: Message, kernel: Kernel | None = None) -> SendRight | SendOnceRight | None:
    """The right to answer a received message with, owned; None if it brought none, or one that is dead."""
    right = take_right(message.remote_port, message.remote_disposition, kernel)
    return None if isinstance(right, ReceiveRight) else right
