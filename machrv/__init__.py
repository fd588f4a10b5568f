"""Mach port rendezvous for Python: a parent hands port rights to a child that it has just launched.

What belongs here: the public names. What must never happen here: an import that a caller did not ask for. Every name is
imported when it is first used, since a child pays for every module before it does anything useful. Their types are in
__init__.pyi.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.


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
    "machrv.rendezvous.direct": "DirectRendezvousClient",
    "machrv.rendezvous": "RendezvousClient base_bundle_id four_char_code set_base_bundle_id",
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


def _names() -> "list[str]":
    return sorted(["MachrvError", "RendezvousError", *" ".join(_MODULES.values()).split()])


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value = version("machrv")  # As pyproject.toml says it: there is no second place.
        except PackageNotFoundError:  # An AttributeError, so that hasattr() and tools that look around go on.
            raise AttributeError("machrv has no version until it is installed: 'pip install -e .'") from None
    elif name == "__all__":
        value = _names()
    else:
        for home, names in _MODULES.items():
            if name in names.split():
                value = getattr(__import__(home, fromlist=(name,)), name)  # Not importlib: it costs more than the rest.
                break
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *_names()})
