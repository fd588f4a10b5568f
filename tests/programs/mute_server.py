"""A server that takes a request and never answers: `mute_server.py SERVICE_NAME`. Says when it has been asked."""

from __future__ import annotations

import sys

from machrv import ReceiveRight, current

port = ReceiveRight(current().bootstrap_check_in(sys.argv[1]))
print("ready", flush=True)
request = port.receive(30)
print("asked", flush=True)
sys.stdin.read()  # Until it is killed, or its parent is gone.
