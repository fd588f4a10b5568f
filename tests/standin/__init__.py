"""A stand-in for libSystem, for tests: its functions, with Apple's signatures, over a Linux port space.

`LibSystem()` is one task. It is called as `machrv._mach.lib` is on macOS: every argument is converted to the C type
that include/machrv/darwin.h declares, and the function gets it through a C call, so that a wrong type, a number that
does not fit or a structure laid out otherwise is an error here too.

What belongs here: what libSystem and the kernel behind it do with a caller's memory. What must never happen here: being
easier on the caller than Apple's is, or anything that the adapter would have to know.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    import pytest

    pytest.skip("the stand-in for libSystem runs over a Linux port space", allow_module_level=True)

from .libsystem import LibSystem
from .ports import Killed

__all__ = ["Killed", "LibSystem"]
