"""What pyproject.toml cannot say: the compiled module, and the tag of its wheel."""

import platform
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

if sys.implementation.name != "cpython":
    sys.exit(
        f"machrv cannot be installed for {platform.python_implementation()}: it needs CPython 3.10 or newer. What a fork, an exit "
        "and the end of an object do to rights is CPython's way, and it has been tried with no other. Install it with CPython: "
        "'python3 -m pip install machrv'."
    )

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build_ffi  # noqa: E402  (only importable once the line above has run)

# The stable ABI and free threading exclude each other: such an interpreter gets a wheel of its own.
stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    cmdclass={"build_ext": build_ffi.build_ext},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if stable_abi else {},
)
