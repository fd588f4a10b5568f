"""The compiled module: every name that include/machrv/*.h declares. Built by build_ffi.py."""

from typing import Any

ffi: Any
lib: Any
