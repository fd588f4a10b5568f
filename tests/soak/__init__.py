"""Load: `python -m tests.soak [--claims N] [--children N]`, and what bad neighbours do to a good child.

`crew` makes the processes, `long` is the soak, `neighbours` measures a claim beside a client that misbehaves.
"""
