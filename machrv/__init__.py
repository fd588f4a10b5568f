"""Mach port rendezvous for Python: a parent hands port rights to a child that it has just launched.

What belongs here: the public names. What must never happen here: an import that a caller did not ask for. Every name is
imported when it is first used, since a child pays for every module before it does anything useful.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    from machrv.rendezvous.client import RendezvousClient as RendezvousClient
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


class MachrvError(Exception):
    """The base of every exception of machrv; `machrv.errors` has the others."""


class RendezvousError(MachrvError):
    """A rendezvous did not come about. The message says why, as far as it can be known."""


#: Where each public name comes from that is not above. (Those two are, since a child that is to hear of them may not be
#: able to load anything.)
_MODULES = {
    "machrv.audit": "AuditToken",
    "machrv.constants": "Disposition",
    "machrv.errors": "MachError MessageFormatError PeerRejectedError RendezvousTimeout RightError ServerNotFoundError UnsupportedError",
    "machrv.files": "fileport fileport_fd",
    "machrv.kernel": "Kernel current",
    "machrv.launching": "launch",
    "machrv.memory": "MemoryObject MemoryObjectError ReadOnlyMemoryError",
    "machrv.message": "GuardedPortDescriptor Message OutOfLineDescriptor OutOfLinePortsDescriptor PortDescriptor Trailer",
    "machrv.preloading": "preload",
    "machrv.received": "destroy_message take_reply_right take_rights",
    "machrv.rendezvous.client": "RendezvousClient",
    "machrv.rendezvous.direct": "DirectRendezvousClient",
    "machrv.rendezvous": "base_bundle_id four_char_code set_base_bundle_id",
    "machrv.rendezvous.policy": "ENFORCE_PEER_REQUIREMENTS VALIDATE_PEER_REQUIREMENTS Feature PeerValidationPolicy Verdict peer_validation_policy set_verdict_callback",
    "machrv.rendezvous.port": "KeyFormatError RegistrationError RendezvousPort",
    "machrv.rendezvous.registry": "LockNotHeldError ProcessGoneError",
    "machrv.rendezvous.server": "DirectRendezvousServer RendezvousServer RendezvousServerBase",
    "machrv.rendezvous.steps": "RendezvousPermissionError",
    "machrv.requirement": "Requirement RequirementError UnsupportedRequirementError",
    "machrv.requirement.process": "ProcessRequirement",
    "machrv.rights": "PortSet ReceiveRight SendOnceRight SendRight take_right",
    "machrv.transfer": "ReceiveTimeout SendTimeout",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted([*_HOMES, "MachrvError", "RendezvousError"])


if not TYPE_CHECKING:  # A checker is to know what there is, and that there is nothing else.

    def __getattr__(name: str) -> object:
        value: object
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                value = version("machrv")  # As pyproject.toml says it: there is no second place.
            except PackageNotFoundError:  # An AttributeError, so that hasattr() and tools that look around go on.
                raise AttributeError("machrv has no version until it is installed: 'pip install -e .'") from None
        elif name in _HOMES:
            module = __import__(_HOMES[name], fromlist=(name,))  # Not importlib: it costs more than the rest.
            value = getattr(module, name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> "list[str]":
    return sorted(set(globals()) | set(_HOMES))
