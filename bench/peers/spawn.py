"""What `multiprocessing` runs in a child of its own. It imports nothing: the child would pay for it."""


def speak(given) -> None:  # type: ignore[no-untyped-def]
    """Send one message into what was handed over."""
    given.send_bytes(bytes(24))
    given.close()
