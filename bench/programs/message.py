"""One message: `message.py WAY within|between|fresh|channel|request|files SIZE RIGHTS`, or for the child of one,
`message.py echo|fresh|channel|reply SIZE RIGHTS`.
See bench.peers.message."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter_ns, thread_time_ns

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.measure import answer, repeated  # noqa: E402
from bench.peers.message import CHILDREN, WAYS  # noqa: E402

if sys.argv[1] in CHILDREN:
    CHILDREN[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
else:
    with WAYS[sys.argv[1], sys.argv[2]](int(sys.argv[3]), int(sys.argv[4])) as work:
        answer(repeated(work, thread_time_ns if sys.argv[2] == "within" else perf_counter_ns))
