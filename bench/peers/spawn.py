"""What `multiprocessing` runs in a child that it spawns. It imports nothing: the child would pay for it."""


def close(given) -> None:  # type: ignore[no-untyped-def]
    """Close what was handed over."""
    given.close()
