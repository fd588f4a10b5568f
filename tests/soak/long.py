"""The soak: many children that claim, use, hold, flood, are refused and are killed, all at once, for a long time.

What belongs here: the mix, and the account of every right after every round. What must never happen here: a round that
is not accounted for. Each round registers one right of each kind for a child, and ends when the last of them is gone.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from time import monotonic

from machrv import Message, NoSenders, ProcessRequirement, ReceiveRight, RendezvousServer
from machrv.kernel import Kernel
from machrv.message import MACH_NOTIFY_SEND_ONCE

from .crew import GOOD, PATIENCE, Child, Nursery

#: what happens in a round, and how often of a thousand
MIX = {
    "claimed and used": 880,
    "refused": 40,
    "held, then killed": 20,
    "killed before it asks": 20,
    "killed while it asks": 20,
    "nothing registered": 10,
    "flood, then claimed": 10,
}


class Soak:
    """A server and its children. Call `run` under enforcement (see `__main__`), so that a requirement refuses."""

    def __init__(self, nursery: Nursery, children: int, seed: int = 0) -> None:
        self._nursery = nursery
        self._nursery_lock = threading.Lock()
        self._children = children
        self._seed = seed
        self.server = RendezvousServer.get_instance()
        self.kernel: Kernel = self.server.kernel
        self.counts: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.samples: list[tuple[int, int, int]] = []
        self._lock = threading.Lock()
        self._left = 0

    def run(self, claims: int) -> float:
        """So many rounds; how long they took."""
        began = monotonic()
        self._left = claims
        threads = [threading.Thread(target=self._slot, args=(number,)) for number in range(self._children)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        return monotonic() - began

    # -- a slot: one child after the other ----------------------------------------------------------------------------

    def _slot(self, number: int) -> None:
        source = random.Random(self._seed * 1000 + number)
        child: Child | None = None
        try:
            while self._take():
                if child is None:
                    with self._nursery_lock:
                        child = self._nursery.child()
                what = source.choices(list(MIX), MIX.values())[0]
                if self._round(child, what, source):
                    child = None
                with self._lock:
                    self.counts[what] += 1
        except BaseException as error:
            self.failures.append(error)
        finally:
            if child is not None:
                child.close()

    def _take(self) -> bool:
        with self._lock:
            if self.failures or self._left == 0:
                return False
            self._left -= 1
            if self._left % 1000 == 0:
                self.samples.append((self._left, resident(), len(os.listdir("/proc/self/fd"))))
            return True

    def _round(self, child: Child, what: str, source: random.Random) -> bool:
        """One round; whether the child is gone after it."""
        service = self.server.service_name
        if what == "nothing registered":
            assert child.ask("claim", service=service) == 0
            return False
        with ReceiveRight.allocate() as inbox, ReceiveRight.allocate() as answers:
            moved = ReceiveRight.allocate()
            with moved.make_send() as back:
                back.send(Message(GOOD), timeout=PATIENCE)
                given = {0: inbox.make_send(), 1: answers.make_send_once(), 2: moved}
                with self.server.lock:
                    if what == "refused":
                        never = ProcessRequirement.never_matches_for_testing()
                        self.server.set_process_requirement_for_pid(child.pid, never)
                    self.server.register_ports_for_pid(child.pid, given)
            gone = self._play(child, what, service, source)
            self._account(inbox, answers)
        return gone

    @staticmethod
    def _play(child: Child, what: str, service: str, source: random.Random) -> bool:
        if what == "killed before it asks":
            child.kill()
            return True
        if what == "killed while it asks":
            child.tell("claim", service=service)
            threading.Event().wait(source.random() * 0.002)  # No matter when: that is the point.
            child.kill()
            return True
        if what == "held, then killed":
            assert child.ask("claim", service=service, use=False) == 3
            child.kill()
            return True
        if what == "flood, then claimed":
            child.ask("flood", service=service, count=200)
        expected = 0 if what == "refused" else 3
        assert child.ask("claim", service=service) == expected, what
        return False

    def _account(self, inbox: ReceiveRight, answers: ReceiveRight) -> None:
        """Every right was given up, once: the send right, and the send-once right, used or not."""
        ids = []
        try:
            while True:
                ids.append(inbox.receive(PATIENCE).id)
        except NoSenders:
            pass
        assert ids in ([], [GOOD]), ids
        assert answers.receive(PATIENCE).id in (GOOD, MACH_NOTIFY_SEND_ONCE)


def resident() -> int:
    """The memory of this process in KiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
