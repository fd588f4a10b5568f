"""The public names of machrv, for those who check types. (The module itself would have a child read all of this.)"""

__version__: str
from machrv.audit import AuditToken as AuditToken
from machrv.errors import (
    MachError as MachError,
    MessageFormatError as MessageFormatError,
    PeerRejectedError as PeerRejectedError,
    RendezvousTimeout as RendezvousTimeout,
    RightError as RightError,
    ServerNotFoundError as ServerNotFoundError,
    UnsupportedError as UnsupportedError,
)
from machrv.files import fileport as fileport, fileport_fd as fileport_fd
from machrv.kernel import Kernel as Kernel, current as current
from machrv.launching import launch as launch
from machrv.memory import (
    MemoryObject as MemoryObject,
    MemoryObjectError as MemoryObjectError,
    ReadOnlyMemoryError as ReadOnlyMemoryError,
)
from machrv.constants import Disposition as Disposition
from machrv.message import (
    GuardedPortDescriptor as GuardedPortDescriptor,
    Message as Message,
    OutOfLineDescriptor as OutOfLineDescriptor,
    OutOfLinePortsDescriptor as OutOfLinePortsDescriptor,
    PortDescriptor as PortDescriptor,
    Trailer as Trailer,
)
from machrv.preloading import preload as preload
from machrv.received import (
    destroy_message as destroy_message,
    take_reply_right as take_reply_right,
    take_rights as take_rights,
)
from machrv.rendezvous import RendezvousClient as RendezvousClient
from machrv.rendezvous.direct import DirectRendezvousClient as DirectRendezvousClient
from machrv.rendezvous import (
    base_bundle_id as base_bundle_id,
    four_char_code as four_char_code,
    set_base_bundle_id as set_base_bundle_id,
)
from machrv.rendezvous.policy import (
    ENFORCE_PEER_REQUIREMENTS as ENFORCE_PEER_REQUIREMENTS,
    VALIDATE_PEER_REQUIREMENTS as VALIDATE_PEER_REQUIREMENTS,
    Feature as Feature,
    PeerValidationPolicy as PeerValidationPolicy,
    Verdict as Verdict,
    peer_validation_policy as peer_validation_policy,
    set_verdict_callback as set_verdict_callback,
)
from machrv.rendezvous.port import (
    KeyFormatError as KeyFormatError,
    RegistrationError as RegistrationError,
    RendezvousPort as RendezvousPort,
)
from machrv.rendezvous.registry import LockNotHeldError as LockNotHeldError, ProcessGoneError as ProcessGoneError
from machrv.rendezvous.server import (
    DirectRendezvousServer as DirectRendezvousServer,
    RendezvousServer as RendezvousServer,
    RendezvousServerBase as RendezvousServerBase,
)
from machrv.rendezvous.steps import RendezvousPermissionError as RendezvousPermissionError
from machrv.requirement import (
    Requirement as Requirement,
    RequirementError as RequirementError,
    UnsupportedRequirementError as UnsupportedRequirementError,
)
from machrv.requirement.process import ProcessRequirement as ProcessRequirement
from machrv.rights import (
    PortSet as PortSet,
    ReceiveRight as ReceiveRight,
    SendOnceRight as SendOnceRight,
    SendRight as SendRight,
    take_right as take_right,
)
from machrv.transfer import ReceiveTimeout as ReceiveTimeout, SendTimeout as SendTimeout

__all__: list[str]

class MachrvError(Exception): ...
class RendezvousError(MachrvError): ...
