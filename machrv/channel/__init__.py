"""Channels: two ends that talk, within a process or between two.

end         Channel: one end
parcel      what travels: data of any length, and rights, files, memory and ends with it
message     what arrives
encoding    objects as bytes
bell        a descriptor for what waits in an end, too
"""

from machrv.channel.end import Channel as Channel
from machrv.channel.message import ChannelMessage as ChannelMessage
