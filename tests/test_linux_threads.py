"""Many threads over the same port spaces: every right accounted for, nobody held up by somebody else who waits."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor

from .conftest import PATIENCE
from .linux_tasks import bootstrap, nursery, other, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    NO_SENDERS,
    RECEIVE,
    SEND_ONCE_NOTIFICATION,
    allocate,
    descriptors,
    empty,
    end,
    give,
    in_thread,
    names,
    receive,
    request,
    send,
)

MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE, Disposition.COPY_SEND
MOVE_SEND, MOVE_SEND_ONCE, MOVE_RECEIVE = Disposition.MOVE_SEND, Disposition.MOVE_SEND_ONCE, Disposition.MOVE_RECEIVE
#: How long the long test goes on, in seconds.
DURATION = 21
WORD, ONCE = 1, 2


# -- the long one ---------------------------------------------------------------------------------------------------------


class Account:
    """A port whose rights are counted: each send-once right that is made for it must end in exactly one message."""

    def __init__(self, kernel: LinuxKernel) -> None:
        self.port = allocate(kernel)
        self.sends = self.onces = self.ended = 0

    def take(self, kernel: LinuxKernel, counts: Counter[str]) -> None:
        """Receive and count whatever waits, but not for ever."""
        for _ in range(50):
            try:
                message = receive(kernel, self.port, 0)
            except MachError as error:
                assert error.code == lib.MACH_RCV_TIMED_OUT, error
                return
            assert message.id in (WORD, ONCE, SEND_ONCE_NOTIFICATION), message
            if message.id == WORD:
                counts["words received"] += 1
            else:
                self.ended += 1


class Worker(threading.Thread):
    """Makes rights for its accounts and sends them to other workers; uses, passes on or gives up what it is sent."""

    def __init__(self, number: int, kernel: LinuxKernel, workers: list[Worker], stop: threading.Event) -> None:
        super().__init__()
        self.kernel, self.workers, self.stop = kernel, workers, stop
        self.choose = random.Random(number)
        self.mailbox = allocate(kernel)
        self.pset = kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
        kernel.mach_port_insert_member(self.mailbox, self.pset)
        #: what this worker's space calls the right to each worker's mailbox
        self.ways: list[int] = []
        self.accounts = [Account(kernel) for _ in range(3)]
        self.under_way: dict[int, Account] = {}
        self.counts: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                account = self.choose.choice(self.accounts)
                if self.choose.random() < 0.45:
                    self.open_mail(self.choose.choice([0, 0, 0.001]))
                elif self.choose.random() < 0.4:
                    account.take(self.kernel, self.counts)
                else:
                    self.write(account)
        except BaseException as error:
            self.failure = error
            self.stop.set()

    def write(self, account: Account) -> None:
        """Send some rights to an account, or the account itself, to somebody."""
        onces, sends = self.choose.randrange(3), self.choose.randrange(3)
        content = [PortDescriptor(account.port, MAKE_SEND_ONCE)] * onces
        content += [PortDescriptor(account.port, MAKE_SEND)] * sends
        moved = len(self.accounts) > 1 and self.choose.random() < 0.2
        if moved:
            content.append(PortDescriptor(account.port, MOVE_RECEIVE))
        account.onces += onces
        account.sends += sends
        if moved:
            self.accounts.remove(account)
            key = id(account)
            ledger[key] = account
        body = bytes(self.choose.choice([0, 0, 0, 4000, 70_000]))
        try:
            self.mail(content, key if moved else 0, body)
        except MachError as error:
            assert error.code == lib.MACH_SEND_TIMED_OUT, error
            account.onces -= onces
            account.sends -= sends
            if moved:
                self.accounts.append(ledger.pop(key))

    def mail(self, content: list[PortDescriptor], key: int, body: bytes = b"") -> None:
        to = self.choose.choice(self.ways)
        send(self.kernel, to, 3, key.to_bytes(8, "little") + body, content, timeout=0)
        self.counts["mails"] += 1

    def open_mail(self, timeout: float) -> None:
        try:
            message = receive(self.kernel, self.choose.choice([self.mailbox, self.pset]), timeout)
        except MachError as error:
            assert error.code == lib.MACH_RCV_TIMED_OUT, error
            return
        assert message.id == 3 and message.local_port == self.mailbox, message
        for descriptor in message.descriptors:
            if descriptor.disposition == MOVE_RECEIVE:
                account = ledger.pop(int.from_bytes(message.body[:8], "little"))
                account.port = descriptor.name
                self.accounts.append(account)
        for descriptor in message.descriptors:
            if descriptor.disposition != MOVE_RECEIVE:
                self.use(descriptor.name, descriptor.disposition)

    def use(self, name: int, kind: int) -> None:
        """Do something with a right that arrived."""
        kernel, what = self.kernel, self.choose.random()
        try:
            if what < 0.3:
                self.mail([PortDescriptor(name, kind)], 0)
                return
            if what < 0.7:
                send(kernel, name, ONCE if kind == MOVE_SEND_ONCE else WORD, how=kind, timeout=0)
                self.counts["words sent"] += kind == MOVE_SEND
                return
        except MachError as error:
            assert error.code == lib.MACH_SEND_TIMED_OUT, error
        kernel.mach_port_deallocate(name)


ledger: dict[int, Account] = {}


@pytest.mark.slow
def test_every_right_is_accounted_for(task: LinuxKernel) -> None:
    """Eight threads on two spaces make, send, use, move and give up rights for twenty seconds, and read each other's
    spaces; then each send-once right has ended in one message, each word has arrived, and no send right is left."""
    second = LinuxKernel()
    second.event_queue().close()
    before = descriptors()
    stop = threading.Event()
    workers: list[Worker] = []
    for number in range(8):
        workers.append(Worker(number, (task, second)[number % 3 == 0], workers, stop))
    for worker in workers:
        worker.ways = [
            give(other.kernel, worker.kernel, other.mailbox, MAKE_SEND) if other.kernel is not worker.kernel
            else own_right(other)
            for other in workers
        ]  # fmt: skip
    for worker in workers:
        worker.start()
    looks = 0
    deadline = time.monotonic() + DURATION
    while time.monotonic() < deadline and not stop.is_set():
        for kernel in (task, second):
            for name, kind in kernel.mach_port_names():
                if kind & RECEIVE:
                    try:
                        kernel.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
                    except MachError as error:
                        assert error.code in (lib.KERN_INVALID_NAME, lib.KERN_INVALID_RIGHT)
            looks += 1
    stop.set()
    for worker in workers:
        worker.join(PATIENCE)
        assert not worker.is_alive() and worker.failure is None, worker.failure
    settle(workers)
    counts = sum((worker.counts for worker in workers), Counter())
    accounts = [account for worker in workers for account in worker.accounts]
    assert len(accounts) == 24 and ledger == {}
    assert [(account.onces, account.ended) for account in accounts if account.onces != account.ended] == []
    assert counts["words sent"] == counts["words received"]
    assert counts["mails"] > 1000 and sum(account.onces for account in accounts) > 1000 and looks > 10
    for worker in workers:
        for account in worker.accounts:
            status = worker.kernel.mach_port_get_attributes(account.port, lib.MACH_PORT_RECEIVE_STATUS)
            assert (status.srights, status.sorights, status.msgcount) == (0, 0, 0)  # type: ignore[union-attr]
            assert worker.kernel.mach_port_type(account.port) == RECEIVE
            end(worker.kernel, account.port)
    empty(task)
    empty(second)
    assert descriptors() == before
    second.close()


def own_right(worker: Worker) -> int:
    """One more reference to a mailbox of the worker's own space."""
    worker.kernel.mach_port_insert_right(worker.mailbox, worker.mailbox, MAKE_SEND)
    return worker.mailbox


def settle(workers: list[Worker]) -> None:
    """Receive and give up everything that is still under way, until nothing is."""
    quiet = 0
    while quiet < 3:
        quiet += 1
        for worker in workers:
            worker.choose.random = lambda: 0.99  # type: ignore[method-assign]  # give up what arrives
            while not is_empty(worker.kernel, worker.mailbox):
                worker.open_mail(0)
                quiet = 0
            for account in worker.accounts:
                while not is_empty(worker.kernel, account.port):
                    account.take(worker.kernel, worker.counts)
                    quiet = 0


def is_empty(kernel: LinuxKernel, port: int) -> bool:
    status = kernel.mach_port_get_attributes(port, lib.MACH_PORT_RECEIVE_STATUS)
    return not status.msgcount  # type: ignore[union-attr]


def test_threads_that_use_the_same_names(task: LinuxKernel) -> None:
    """Calls at random on ten names that everybody makes and destroys: each answers or raises MachError, none hangs."""
    shared = [0] * 10
    stop = threading.Event()
    failures: list[BaseException] = []
    before = descriptors()

    def work(seed: int) -> None:
        choose = random.Random(seed)
        calls: list[Callable[[int, int], object]] = [
            lambda a, b: task.mach_port_destroy(a),
            lambda a, b: task.mach_port_deallocate(a),
            lambda a, b: task.mach_port_insert_right(a, a, MAKE_SEND),
            lambda a, b: send(task, a, 1, timeout=0),
            lambda a, b: send(task, a, 1, descriptors=[PortDescriptor(b, MAKE_SEND)], timeout=0),
            lambda a, b: send(task, a, 1, descriptors=[PortDescriptor(b, MOVE_RECEIVE)], timeout=0),
            lambda a, b: send(task, a, 1, bytes(70_000), reply=b, reply_how=MAKE_SEND_ONCE, timeout=0),
            lambda a, b: receive(task, a, 0),
            lambda a, b: receive(task, a, 0.002),
            lambda a, b: request(task, a, choose.choice([NO_SENDERS, 72, 69]), b),
            lambda a, b: task.mach_port_insert_member(a, b),
            lambda a, b: task.mach_port_move_member(a, choose.choice([0, b])),
            lambda a, b: task.mach_port_extract_right(a, choose.choice([MOVE_SEND, MAKE_SEND_ONCE, MOVE_SEND_ONCE])),
            lambda a, b: task.mach_port_mod_refs(a, choose.randrange(5), choose.choice([-1, 1])),
            lambda a, b: task.mach_port_get_attributes(a, lib.MACH_PORT_RECEIVE_STATUS),
            lambda a, b: (task.mach_port_type(a), task.mach_port_names()),
        ]
        try:
            while not stop.is_set():
                index = choose.randrange(len(shared))
                try:
                    if choose.random() < 0.2:
                        shared[index] = task.mach_port_allocate(choose.choice([1, 1, 1, 3]))
                    else:
                        choose.choice(calls)(shared[index], choose.choice(shared))
                except MachError:
                    pass
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [in_thread(work, seed) for seed in range(6)]
    stop.wait(4)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert failures == []
    empty(task)
    assert descriptors() == before


# -- others that come and go ----


COLLECT = """
import faulthandler, gc, sys, warnings
faulthandler.dump_traceback_later(20, exit=True)
warnings.simplefilter("ignore")
from machrv import Message, ReceiveRight
from machrv.kernel import current
kernel = current()
port = ReceiveRight.allocate()
right = port.make_send()
gc.set_threshold(1, 1, 1)
class Box: pass
made = ended = 0
for number in range(1000):
    box = Box()
    box.itself, box.once, box.other = box, port.make_send_once(), ReceiveRight.allocate()
    made += 1
    del box
    right.send(Message(7))
    while True:
        message = port.receive(0)
        if message.id == 7:
            break
        ended += 1
gc.collect()
kernel.mach_port_type(port.name)
while ended < made:
    message = port.receive(5)
    ended += message.id == 71
right.close()
assert len(kernel.mach_port_names()) == 1, kernel.mach_port_names()
port.close()
"""


def test_rights_that_the_collector_finds_in_the_middle_of_a_call() -> None:
    """Owned rights in reference cycles, a collection at every allocation: no deadlock, and each right is given up."""
    done = subprocess.run([sys.executable, "-c", COLLECT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


FIRST = """
import threading
import machrv.kernel.linux
from machrv.kernel import current
together, found = threading.Barrier(16), []
def ask():
    together.wait()
    found.append(current())
threads = [threading.Thread(target=ask) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 16 and len(set(map(id, found))) == 1
"""


def test_threads_that_are_the_first_to_ask_have_one_kernel() -> None:
    """All of them ask at the same time; a right of another kernel would be nothing here."""
    for _ in range(5):
        subprocess.run([sys.executable, "-c", FIRST], check=True, timeout=PATIENCE)


CLAIMS = """
import gc, os, sys, tempfile, threading
from machrv import *
THREADS, ROUNDS = 8, int(sys.argv[1])
kernel, inbox = current(), ReceiveRight.allocate(1024)

class Server(RendezvousServerBase):
    def ports_for_client(self, audit_token):
        assert audit_token.pid == os.getpid(), audit_token
        rights = [inbox.make_send(), inbox.make_send_once(), ReceiveRight.allocate()]
        return {key: RendezvousPort.from_right(right) for key, right in enumerate(rights)}

failures, counts = [], {1: 0, 2: 0}
def claim():
    try:
        for _ in range(ROUNDS):
            with RendezvousClient.connect("claims") as rights:
                assert rights.port_count == 3 and rights.server_audit_token.pid == os.getpid()
                with rights.take_send_right(0) as right, rights.take_send_right(1) as once:
                    right.send(Message(1))
                    once.send(Message(2))
    except BaseException as error:
        failures.append(error)

with tempfile.TemporaryDirectory() as folder:
    os.environ["MACHRV_BOOTSTRAP_DIR"] = folder
    with Server(ReceiveRight(kernel.bootstrap_check_in("claims"))):
        threads = [threading.Thread(target=claim) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        while sum(counts.values()) < 2 * THREADS * ROUNDS:
            try:
                counts[inbox.receive(1, wait_for_senders=True).id] += 1
            except ReceiveTimeout:
                if failures or not any(thread.is_alive() for thread in threads):
                    break
        for thread in threads:
            thread.join()
assert not failures and counts == {1: THREADS * ROUNDS, 2: THREADS * ROUNDS}, (failures, counts)
gc.collect()
inbox.close()
assert kernel.mach_port_names() == [], kernel.mach_port_names()
"""


def test_threads_that_claim_at_the_same_time() -> None:
    """Each claim gets its own rights, each right brings its own message, and nothing is left."""
    done = subprocess.run([sys.executable, "-c", CLAIMS, "80"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_spaces_that_come_and_go_while_ports_move(task: LinuxKernel) -> None:
    """Other threads make and close whole spaces meanwhile."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def come_and_go() -> None:
        try:
            while not stop.is_set():
                kernel = LinuxKernel()
                port = allocate(kernel)
                kernel.mach_port_insert_right(port, port, MAKE_SEND)
                send(kernel, port, 1)
                kernel.close()
        except BaseException as error:
            failures.append(error)

    threads = [in_thread(come_and_go) for _ in range(2)]
    port, way = allocate(task), allocate(task)
    task.mach_port_insert_right(way, way, MAKE_SEND)
    for number in range(2000):
        send(task, way, number, descriptors=[PortDescriptor(port, MOVE_RECEIVE)])
        (port,) = names(receive(task, way))
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    end(task, port)
    task.mach_port_destroy(way)
