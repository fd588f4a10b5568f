"""Whether requirements count: the two features, and the policy that follows from them.

    feature                       Chromium's name                              default
    VALIDATE_PEER_REQUIREMENTS    MachPortRendezvousValidatePeerRequirements   off
    ENFORCE_PEER_REQUIREMENTS     MachPortRendezvousEnforcePeerRequirements    off

The policy is the stricter of two: what the program's features say, and what its environment says. So an environment
can tighten what the code asked for and never loosen it. Names, numbers and defaults are those of Chromium,
base/apple/mach_port_rendezvous_mac.cc of 2025, where a valid number in a child's environment wins either way.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from types import TracebackType
    from typing import ClassVar

    from typing_extensions import Self

    from machrv.requirement import Requirement

#: Where a child finds its parent's policy, as a decimal number. The missing letter is Chromium's.
POLICY_VARIABLE = "MACH_PORT_RENDEZVOUS_PEER_VALDATION"


class _Members(type):
    def __iter__(cls) -> Iterator[PeerValidationPolicy]:
        return iter(_policies)

    def __len__(cls) -> int:
        return len(_policies)

    def __contains__(cls, value: object) -> bool:
        return value in _policies


class PeerValidationPolicy(int, metaclass=_Members):
    """What a requirement leads to: an `int` with a name. (Not an `enum.IntEnum`: a child pays for that import.)

    NO_VALIDATION: it is not looked at. VALIDATE_ONLY: the peer is judged, the verdict reported, and the rendezvous goes
    on. ENFORCE: a peer that does not meet it gets nothing, and nothing is taken from it.
    """

    name: str

    NO_VALIDATION: ClassVar[PeerValidationPolicy]
    VALIDATE_ONLY: ClassVar[PeerValidationPolicy]
    ENFORCE: ClassVar[PeerValidationPolicy]

    def __new__(cls, value: int) -> PeerValidationPolicy:
        """The policy with this number. Raises ValueError if there is none."""
        for policy in _policies:
            if policy == value:
                return policy
        raise ValueError(f"{value!r} is no peer validation policy: they are 0, 1 and 2")

    @property
    def value(self) -> int:
        """The number, as a plain `int`."""
        return int(self)

    def __repr__(self) -> str:
        return f"PeerValidationPolicy.{self.name}"


_policies: list[PeerValidationPolicy] = []
for _name in ("NO_VALIDATION", "VALIDATE_ONLY", "ENFORCE"):
    _policy = int.__new__(PeerValidationPolicy, len(_policies))
    _policy.name = _name
    setattr(PeerValidationPolicy, _name, _policy)
    _policies.append(_policy)


class Override:
    """One override of a feature, in force until `end()` or the end of its `with`."""

    __slots__ = ("_feature", "enabled")

    #: What the feature is switched to.
    enabled: bool

    def __init__(self, feature: Feature, enabled: bool) -> None:
        self._feature = feature
        self.enabled = enabled
        feature.overrides.append(self)

    def end(self) -> None:
        """Undo it, whatever was overridden since. Idempotent."""
        # By identity, and a new list: another thread may be reading the old one.
        self._feature.overrides = [other for other in self._feature.overrides if other is not self]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


class Feature:
    """Something that is on or off in the whole process. `name` is Chromium's."""

    __slots__ = ("name", "enabled_by_default", "overrides")

    name: str  #: Chromium's name for it.
    enabled_by_default: bool  #: What holds where nothing is overridden.
    overrides: list[Override]  #: Those in force, the latest last.

    def __init__(self, name: str, enabled_by_default: bool = False) -> None:
        self.name = name
        self.enabled_by_default = enabled_by_default
        self.overrides = []

    @property
    def enabled(self) -> bool:
        """What the latest override says that is still in force, otherwise the default."""
        overrides = self.overrides
        return overrides[-1].enabled if overrides else self.enabled_by_default

    def override(self, enabled: bool) -> Override:
        """Switch the feature on or off, at once and for every thread.

        In a `with` it ends with the block; otherwise it lasts until `end()` is called on what is returned, or for as
        long as the process does.
        """
        return Override(self, enabled)

    def __repr__(self) -> str:
        return f"<Feature {self.name}: {'on' if self.enabled else 'off'}>"


#: Whether requirements are evaluated at all.
VALIDATE_PEER_REQUIREMENTS = Feature("MachPortRendezvousValidatePeerRequirements")
#: Whether a peer that does not meet its requirement is refused. Includes evaluating them.
ENFORCE_PEER_REQUIREMENTS = Feature("MachPortRendezvousEnforcePeerRequirements")


def peer_validation_policy() -> PeerValidationPolicy:
    """The policy that is in force: what the features say, unless the environment asks for more."""
    asked = PeerValidationPolicy.NO_VALIDATION
    if ENFORCE_PEER_REQUIREMENTS.enabled:
        asked = PeerValidationPolicy.ENFORCE
    elif VALIDATE_PEER_REQUIREMENTS.enabled:
        asked = PeerValidationPolicy.VALIDATE_ONLY
    return max(asked, _policy_in(os.environ) or asked)


def add_feature_state_to_environment(environment: MutableMapping[str, str]) -> None:
    """Put the policy into the environment of a child that is to be launched. A stricter one in it stays."""
    policy = peer_validation_policy()
    environment[POLICY_VARIABLE] = str(max(policy, _policy_in(environment) or policy).value)


def _policy_in(environment: MutableMapping[str, str]) -> PeerValidationPolicy | None:
    """What an environment asks for; None if nothing, or nothing that is a policy."""
    value = environment.get(POLICY_VARIABLE, "")
    return _policies[int(value)] if value in ("0", "1", "2") else None


def wants_info_plist(requirement: Requirement | None) -> bool:
    """Whether a server that is to be held against `requirement` must send its Info.plist data."""
    return (
        requirement is not None
        and requirement.needs_info_plist
        and peer_validation_policy() != PeerValidationPolicy.NO_VALIDATION
    )
