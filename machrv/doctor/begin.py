"""Give the account of this process: imported by `machrv` where MACHRV_PORTS in the environment asks for it."""

from __future__ import annotations

from machrv.doctor.giving import give
from machrv.kernel.choice import observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel import Kernel


def _given(kernel: Kernel) -> Kernel:
    if kernel.name == "linux":
        give()
    return kernel


observe(_given)
