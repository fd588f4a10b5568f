"""What the Linux kernel calls without CFFI: the second module in the library of `machrv._mach`."""

from _frozen_importlib_external import PathFinder  # importlib.machinery's, without what else that imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _direct() -> "Any":
    """See machrv/native/python/module.c. Where there is none, as on macOS, the first one: it has all constants."""
    spec = PathFinder.find_spec("machrv._mach", __import__("machrv").__path__)
    if spec is not None and spec.loader is not None:
        try:
            module: Any = spec.loader.create_module(type(spec)("machrv._direct", spec.loader, origin=spec.origin))
            spec.loader.exec_module(module)
            return module
        except ImportError:
            pass
    from machrv._mach import lib

    return lib


#: what is called without CFFI of the compiled module
direct: "Any" = _direct()
