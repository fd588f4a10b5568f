"""Mach port rendezvous for Python: a parent hands port rights to a child that it has just launched.

machrv.launch                   start a child, with ports for it
machrv.RendezvousClient         in the child: take them
machrv.Channel                  two ends that talk: bytes of any length, rights, files
machrv.ReceiveRight             a port; `make_send` gives rights to it, `receive` what was sent
machrv.Message                  what is sent: bytes, and rights
machrv.aio                      the same on an event loop
machrv.errors                   what can go wrong
"""

# Every name is imported when it is first used, since a child pays for every module before it does anything useful. Their
# types are in __init__.pyi.

from os import environ

#: Where each public name comes from.
_MODULES = {
    "machrv.channel": "Channel ChannelMessage",
    "machrv.constants": "Disposition",
    "machrv.errors": "ChannelClosedError CopyError KeyFormatError KeyNotFoundError LockNotHeldError MachError MachrvError MemoryObjectError MessageFormatError NoSenders PeerRejectedError ProcessGoneError ReadOnlyMemoryError ReceiveTimeout RegistrationError RendezvousError RendezvousPermissionError RendezvousTimeout RequestDropped RequirementError RightError SendTimeout SenderGoneError ServerNotFoundError UnsupportedError UnsupportedRequirementError",
    "machrv.kernel": "Kernel current",
    "machrv.message": "AuditToken GuardedPortDescriptor Message OutOfLineDescriptor OutOfLinePortsDescriptor PortDescriptor Trailer",
    "machrv.rendezvous.client": "DirectRendezvousClient RendezvousClient",
    "machrv.rendezvous.keys": "four_char_code",
    "machrv.rendezvous.launch": "Child launch",
    "machrv.rendezvous.names": "base_bundle_id set_base_bundle_id",
    "machrv.rendezvous.policy": "ENFORCE_PEER_REQUIREMENTS VALIDATE_PEER_REQUIREMENTS Feature PeerValidationPolicy peer_validation_policy",
    "machrv.rendezvous.port": "RendezvousPort",
    "machrv.rendezvous.server": "DirectRendezvousServer RendezvousServer RendezvousServerBase",
    "machrv.rendezvous.verdict": "Verdict set_verdict_callback",
    "machrv.requirement": "ProcessRequirement Requirement",
    "machrv.rights": "PortSet ReceiveRight ReceivedMessage SendOnceRight SendRight destroy_message fileport fileport_fd take_reply_right take_right take_rights",
    "machrv.rights.memory": "MemoryObject",
    "machrv.rights.sender": "Sender",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    value: object
    if name in _HOMES:
        value = getattr(__import__(_HOMES[name], fromlist=(name,)), name)  # Not importlib: it costs more than the rest.
    elif name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # Late: few ask.

        try:
            value = version("machrv")  # As pyproject.toml says it: there is no second place.
        except PackageNotFoundError:  # An AttributeError, so that hasattr() and tools that look around go on.
            raise AttributeError("machrv has no version until it is installed: 'pip install -e .'") from None
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *_HOMES} - {"environ"})


if "MACHRV_TRACE" in environ:  # Of the rest, nothing is loaded for it.
    import machrv.trace.begin
if environ.get("MACHRV_PORTS", "0") != "0":
    import machrv.doctor.begin
