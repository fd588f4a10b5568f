"""Who a peer must be: requirements, and how each platform finds out.

requirement Requirement: the interface that the server and the client evaluate
process     ProcessRequirement: what is asked of a process, how it is put together, and the answer
linux       what Linux can check; image: the program that it runs
darwin      what macOS can check, as text; security: Security.framework
info_plist  what a server says of itself on macOS
"""

# What must never happen here: rights, and policy. A requirement answers yes or no; what follows from the answer is decided
# in `machrv.rendezvous.verdict`. Nor may a requirement ever say yes because it could not look: what cannot be checked is
# refused when it is built.

from machrv.errors import (
    RequirementError as RequirementError,
    UnsupportedRequirementError as UnsupportedRequirementError,
)
from machrv.requirement.process import ProcessRequirement as ProcessRequirement
from machrv.requirement.requirement import Requirement as Requirement
