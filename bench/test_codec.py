"""Messages to bytes and back: what a rendezvous sends, and the longer forms."""

from __future__ import annotations

import importlib.util
from time import thread_time_ns

import pytest

from bench.conftest import Held
from bench.measure import repeated
from bench.peers.codec import CODECS, Case, by_machrv

_CASES = {
    "request": Case(0),
    "reply, 1 port": Case(1),
    "reply, 5 ports": Case(5),
    "reply, 64 ports": Case(64),
    "5 ports, trailer": Case(5, trailer=True),
    "request, trailer": Case(0, trailer=True),
    "2 ports, 2 out-of-line": Case(2, 2),
}
_NEEDS = {"construct": "construct", "dissect.cstruct": "dissect"}


@pytest.mark.parametrize("direction", ["encode", "decode"])
@pytest.mark.parametrize("case", _CASES.values(), ids=list(_CASES))
def test_codec(held: Held, case: Case, direction: str) -> None:
    """Encode or decode, beside the same with other means; all of them make and take the same bytes."""
    name = next(name for name, known in _CASES.items() if known == case)
    image = by_machrv(case, b"")[0]()
    sides = {}
    for way, codec in CODECS.items():
        if importlib.util.find_spec(_NEEDS.get(way, "struct")) is None:
            continue  # The extra `bench` brings it.
        encode, decode = codec(case, image)
        assert encode() == image, way
        sides[way] = repeated(encode if direction == "encode" else decode, thread_time_ns)
    held(direction, name, sides, seconds=0.01)
