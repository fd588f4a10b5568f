"""What programs do with ports, written down while they run and drawn afterwards: the rooms behind `machrv trace`.

In the traced program: `recording` (the file that a process writes), `kernel` (what is written of each call). For whoever
looks: `watching` (which processes there are, and how they end), `reading` (the files), `matching` (which message is
which), `events` and `wording` (what there is to see), `page` (the page).
"""

# What must never happen here: a traced program that behaves in another way than it would have. Nothing of this is
# imported unless MACHRV_TRACE is in the environment, and then `recording` and `kernel` alone.

from __future__ import annotations

#: The directory to write into. It must be this user's, and nobody else may enter it; otherwise nothing is recorded.
VARIABLE = "MACHRV_TRACE"

#: How many bytes of each message's body are recorded. Bodies are secret: none, where this is not set.
BODIES_VARIABLE = "MACHRV_TRACE_BODIES"

#: The pipe in the directory that a process announces itself on.
ANNOUNCEMENTS = "processes"

#: What the name of a process's file ends in.
SUFFIX = ".trace"

#: The version of the records; the first thing in each file.
VERSION = 1

#: How much one process may write.
MOST_BYTES = 32 << 20
