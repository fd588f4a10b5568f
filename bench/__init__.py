"""Benchmarks: `python -m pytest bench`. Each figure that matters is a ratio, taken within one run."""
