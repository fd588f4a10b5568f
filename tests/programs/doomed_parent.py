"""A parent that is killed before its child asks: `doomed_parent.py COMMAND...`. The child shares its standard streams."""

from __future__ import annotations

import sys

from machrv import RendezvousServer, launch

child = launch(sys.argv[1:])
print(RendezvousServer.get_instance().service_name, child.pid, flush=True)
child.wait()
