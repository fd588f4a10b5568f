"""Begin to record this process: imported by `machrv` where `machrv trace` has said so in the environment."""

from machrv.kernel.choice import observe
from machrv.trace.kernel import traced

observe(traced)
