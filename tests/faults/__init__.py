"""Faults injected at every system call of a claim: `python -m tests.faults [--quick] [--table FILE]`.

`actors` are the processes, `strace` breaks one system call of one of them, `cases` says what is broken and how,
`judge` plays each case and says what is wrong about its end, `__main__` is the command.
"""
