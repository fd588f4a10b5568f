"""Faults in waiting, on a loop and without one."""

from __future__ import annotations

from .fault import Fault

C = "machrv/native/linux/"

FAULTS = [
    Fault(
        "a message can be cancelled between its receipt and its return",
        "machrv/rights/awaiting.py",
        "        try:\n            return attempt()\n        except ReceiveTimeout",
        "        try:\n            message = attempt()\n            await take_turn()\n            return message\n        except ReceiveTimeout",
        ("test_aio_cancel.py::test_receives_that_have_their_message_at_once_are_cancelled",),
        (("    waited = False\n    await take_turn()\n", "    waited = False\n"),),
    ),
    Fault(
        "cancelled waiters pile up",
        "machrv/rights/loops.py",
        "            try:\n                self._waiting.remove(future)\n            except ValueError:\n                pass\n",
        "            pass\n",
        ("test_aio_cancel.py::test_receives_that_time_out_leave_nothing_behind",),
    ),
    Fault(
        "who receives one message after the other never lets the loop go on",
        "machrv/rights/loops.py",
        "    if next(_steps) % _BURST == 0:\n",
        "    if next(_steps) < 0:\n",
        ("test_aio.py::test_who_receives_without_a_pause_lets_others_run",),
    ),
    Fault(
        "a receive on a loop waits for ever",
        "machrv/rights/loops.py",
        "        timer = None if deadline is None else self._loop.call_at(deadline, _wake, future)\n        try:\n            await future\n        finally:\n            if timer is not None:\n                timer.cancel()\n            try:",
        "        timer = None\n        try:\n            await future\n        finally:\n            if timer is not None:\n                timer.cancel()\n            try:",
        ("test_aio_cancel.py::test_receives_that_time_out_leave_nothing_behind",),
    ),
    Fault(
        "a signal does not end a wait that asks for it",
        f"{C}ipc_mqueue.c",
        "        if (result == -EINTR && option & MACH_RCV_INTERRUPT) {",
        "        if (false) {",
        ("test_linux_waiting.py::test_signals_are_let_in_while_a_receive_blocks",),
    ),
    Fault(
        "who waits for room is served by nobody",
        f"{C}ipc_send.c",
        "local ? -1 : socket->fd, POLLOUT, deadline",
        "local ? -1 : socket->fd, POLLPRI, deadline",
        ("test_linux_order.py::test_a_sender_waits_for_room_and_loses_nothing",),
    ),
    Fault(
        "a wait goes on past its time",
        f"{C}ipc_mqueue.c",
        "now_monotonic() + (int64_t)timeout * 1000000 :",
        "now_monotonic() + (int64_t)timeout * 1000000 + 15000000000 :",
        ("test_linux_waiting.py::test_one_deadline_covers_send_and_receive",),
    ),
]
