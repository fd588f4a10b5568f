"""Replays what XNU's own IPC code answered over any kernel of the seam.

What belongs here: the recorded vectors (`vectors/`), the replayer, and their tests. What must never happen here: knowledge
of what the vectors contain, an exception for one of them, or anything about how a particular kernel works inside.
"""
