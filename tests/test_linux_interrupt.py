"""A signal handler that raises in the middle of a wait: what it raises comes out as it is."""

from __future__ import annotations

import signal
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the Linux kernel's waits", allow_module_level=True)

from machrv import ReceiveRight


def test_a_timeout_error_of_the_programs_own_ends_a_wait() -> None:
    """Programs end what takes too long with an alarm that raises TimeoutError; that is no lack of resources."""

    def enough(number: int, frame: object) -> None:
        raise TimeoutError("enough")

    before = signal.signal(signal.SIGALRM, enough)
    try:
        with ReceiveRight.allocate() as port:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeoutError, match="^enough$") as caught:
                port.receive(timeout=30)
            assert type(caught.value) is TimeoutError
            port.make_send().close()  # the port is as good as before
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
