"""The tests: one file per room, real processes, real sockets."""
