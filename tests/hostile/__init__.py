"""Hostile peers: `python -m tests.hostile [--seconds N] [ATTACK...]`.

`attackers` are programs that know sockets and nothing of machrv. `stage` has a server, a well-behaved child and clocks; `scenes_*`
put an attacker on it, and say what must hold.
"""
