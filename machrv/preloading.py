"""Loading all at once what machrv otherwise loads when it is first needed.

What belongs here: what has to be there before a process gives up reading files. What must never happen here: an import
of this module by another one; who wants it, calls it.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

#: Whole programs, and what is for those who ask for it by name.
_APART = ("machrv.__main__", "machrv.aio", "machrv.anatomy", "machrv.cli", "machrv.doctor", "machrv.trace")
_OF_LINUX = ("machrv.kernel.linux", "machrv.requirement.linux")
_OF_MACOS = ("machrv.kernel.darwin", "machrv.requirement.darwin", "machrv.requirement.security")
#: What functions of machrv import of the standard library.
_STANDARD = ("array", "errno", "fcntl", "hashlib", "logging", "mmap", "select", "subprocess", "threading", "warnings")


def preload() -> None:
    """Import every module that machrv may need later in this process, and have its kernel ready.

    A child pays for what it imports, so machrv imports late. A process that is about to lose its way to the files (it
    changes its user, its root, or enters a sandbox) calls this first: afterwards machrv imports nothing any more.
    `machrv.aio` is for you to import, if you use it. Calling it twice does nothing. Raises ImportError.
    """
    import machrv
    from machrv.kernel import current

    skipped = (*_APART, *(_OF_MACOS if sys.platform.startswith("linux") else _OF_LINUX))
    for found in pkgutil.walk_packages(machrv.__path__, "machrv."):
        if not any(found.name == name or found.name.startswith(f"{name}.") for name in skipped):
            import_module(found.name)
    for name in _STANDARD:
        import_module(name)
    for name in machrv.__all__:
        getattr(machrv, name)
    current()
