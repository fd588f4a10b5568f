"""The public names of machrv, for those who check types. (The module itself would have a child read all of this.)"""

from machrv.channel import (
    Channel as Channel,
    ChannelMessage as ChannelMessage,
)
from machrv.constants import (
    Disposition as Disposition,
)
from machrv.errors import (
    ChannelClosedError as ChannelClosedError,
    CopyError as CopyError,
    KeyFormatError as KeyFormatError,
    KeyNotFoundError as KeyNotFoundError,
    LockNotHeldError as LockNotHeldError,
    MachError as MachError,
    MachrvError as MachrvError,
    MemoryObjectError as MemoryObjectError,
    MessageFormatError as MessageFormatError,
    NoSenders as NoSenders,
    PeerRejectedError as PeerRejectedError,
    ProcessGoneError as ProcessGoneError,
    ReadOnlyMemoryError as ReadOnlyMemoryError,
    ReceiveTimeout as ReceiveTimeout,
    RegistrationError as RegistrationError,
    RendezvousError as RendezvousError,
    RendezvousPermissionError as RendezvousPermissionError,
    RendezvousTimeout as RendezvousTimeout,
    RequestDropped as RequestDropped,
    RequirementError as RequirementError,
    RightError as RightError,
    SendTimeout as SendTimeout,
    SenderGoneError as SenderGoneError,
    ServerNotFoundError as ServerNotFoundError,
    UnsupportedError as UnsupportedError,
    UnsupportedRequirementError as UnsupportedRequirementError,
)
from machrv.kernel import (
    Kernel as Kernel,
    current as current,
)
from machrv.message import (
    AuditToken as AuditToken,
    GuardedPortDescriptor as GuardedPortDescriptor,
    Message as Message,
    OutOfLineDescriptor as OutOfLineDescriptor,
    OutOfLinePortsDescriptor as OutOfLinePortsDescriptor,
    PortDescriptor as PortDescriptor,
    Trailer as Trailer,
)
from machrv.rendezvous.client import (
    DirectRendezvousClient as DirectRendezvousClient,
    RendezvousClient as RendezvousClient,
)
from machrv.rendezvous.keys import (
    four_char_code as four_char_code,
)
from machrv.rendezvous.launch import (
    Child as Child,
    launch as launch,
)
from machrv.rendezvous.names import (
    base_bundle_id as base_bundle_id,
    set_base_bundle_id as set_base_bundle_id,
)
from machrv.rendezvous.policy import (
    ENFORCE_PEER_REQUIREMENTS as ENFORCE_PEER_REQUIREMENTS,
    VALIDATE_PEER_REQUIREMENTS as VALIDATE_PEER_REQUIREMENTS,
    Feature as Feature,
    PeerValidationPolicy as PeerValidationPolicy,
    peer_validation_policy as peer_validation_policy,
)
from machrv.rendezvous.port import (
    RendezvousPort as RendezvousPort,
)
from machrv.rendezvous.server import (
    DirectRendezvousServer as DirectRendezvousServer,
    RendezvousServer as RendezvousServer,
    RendezvousServerBase as RendezvousServerBase,
)
from machrv.rendezvous.verdict import Verdict as Verdict, set_verdict_callback as set_verdict_callback
from machrv.requirement import (
    ProcessRequirement as ProcessRequirement,
    Requirement as Requirement,
)
from machrv.rights import (
    PortSet as PortSet,
    ReceiveRight as ReceiveRight,
    ReceivedMessage as ReceivedMessage,
    SendOnceRight as SendOnceRight,
    SendRight as SendRight,
    destroy_message as destroy_message,
    fileport as fileport,
    fileport_fd as fileport_fd,
    take_reply_right as take_reply_right,
    take_right as take_right,
    take_rights as take_rights,
)
from machrv.rights.memory import (
    MemoryObject as MemoryObject,
)
from machrv.rights.sender import (
    Sender as Sender,
)

__version__: str
__all__: list[str]
