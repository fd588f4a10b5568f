"""What a port space of so many names costs: `names.py COUNT`. Prints JSON: microseconds of this thread's
time and bytes, for one name each.

A name is a receive right with a send right. `message` is one sent and received through one of them, `look` is
mach_port_type, `list` is mach_port_names for each name that it returns. The bytes are the pages that the process grows by.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from time import thread_time_ns

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.programs.registrations import resident  # noqa: E402
from machrv import Disposition, Message, current  # noqa: E402
from machrv.message import MACH_PORT_RIGHT_RECEIVE, MACH_RCV_MSG, MACH_SEND_MSG  # noqa: E402

count = int(sys.argv[1])
kernel = current()
COMMON = 2000


def one() -> int:
    """A name with both rights."""
    name = kernel.mach_port_allocate(MACH_PORT_RIGHT_RECEIVE)
    kernel.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    return name


def exchange(name: int) -> None:
    """One empty message to the port, and out of it."""
    kernel.mach_msg(Message().encode_to(name, Disposition.COPY_SEND), MACH_SEND_MSG)
    kernel.mach_msg(None, MACH_RCV_MSG, receive_name=name)


def spent(began: int, times: int) -> float:
    """Microseconds each."""
    return (thread_time_ns() - began) / times / 1000


for _ in range(100):  # What is set up on first use is not what each costs.
    first = one()
    exchange(first)
    kernel.mach_port_destroy(first)
figures = {}
gc.collect()
gc.freeze()
before, began = resident(), thread_time_ns()
names = [one() for _ in range(count)]
figures["make"] = spent(began, count)
gc.collect()
figures["resident"] = (resident() - before) / count
middle = names[count // 2]
exchange(middle)
began = thread_time_ns()
for _ in range(COMMON):
    exchange(middle)
figures["message"] = spent(began, COMMON)
began = thread_time_ns()
for _ in range(COMMON):
    kernel.mach_port_type(middle)
figures["look"] = spent(began, COMMON)
began = thread_time_ns()
assert len(kernel.mach_port_names()) >= count
figures["list"] = spent(began, count)
began = thread_time_ns()
for name in names:
    kernel.mach_port_destroy(name)
figures["destroy"] = spent(began, count)
print(json.dumps(figures))
