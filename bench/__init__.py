"""Benchmarks: `python -m pytest bench`, or `python -m pytest bench --full`. Each figure that matters is a ratio, taken within one run."""
