"""The compiled module under sanitizers: `python -m tests.sanitize {asan,valgrind,primitives}`."""
