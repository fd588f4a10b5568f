"""Fuzzing: `python -m tests.fuzz [--seconds N] [TARGET...]`.

Each target is a module with a class `Target`: made once, called with bytes again and again, closed. A call that raises has
found something. `engine` feeds a target: guided by coverage where atheris is installed, else by mutation of the corpus.
What is worth keeping is in corpus/TARGET. The targets of NATIVE are C alone, under sanitizers; clang's libFuzzer guides there.
"""

NATIVE = ("native_packets", "native_calls")
TARGETS = ("codec", "packets", "server", "client", *NATIVE)
