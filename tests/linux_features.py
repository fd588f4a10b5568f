"""What the running kernel has, found by trying: a test that needs some of it says so, and is skipped where it is missing.

What must never happen here: an answer read off a version number.
"""

from __future__ import annotations

import pytest

from machrv.doctor.linux import FEATURES, features

#: By the names that `machrv doctor` has for them.
HAS = features()


def needs(*names: str) -> pytest.MarkDecorator:
    """For a test of what Linux can only do with all of these features."""
    assert FEATURES.keys() >= set(names)
    missing = [name for name in names if not HAS[name]]
    return pytest.mark.skipif(bool(missing), reason=f"this kernel has no {', '.join(missing)}")
