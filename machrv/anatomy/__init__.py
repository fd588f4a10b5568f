"""What stands where in the bytes of Mach messages: each field with its offset, its meaning, and what is wrong with it.

`dissect` takes one message apart, `Splitter` finds the messages in bytes that come a piece at a time.
"""

# What belongs here: reading that never gives up: what the codec refuses, this shows as far as it goes. What must never
# happen here: I/O, an exception that bytes can cause, or a field that is shown as valid where `Message.decode` would
# refuse it.

from machrv.anatomy.fields import Field, Problem
from machrv.anatomy.message import dissect, id_name
from machrv.anatomy.stream import Found, Splitter

__all__ = ["Field", "Found", "Problem", "Splitter", "dissect", "id_name"]
