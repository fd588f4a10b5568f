"""Real kernels: `python -m tests.platforms` boots them in a virtual machine, and runs doctor, demo and the kernel's tests there.

What belongs here: where kernels come from, the smallest system around one, and a table of what happened. What must never
happen here: a test; those are in tests/, and are skipped by what the running kernel has.
"""
