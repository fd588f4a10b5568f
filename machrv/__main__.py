"""`python -m machrv`: the same as the command `machrv`."""

import sys

from machrv.cli import main

sys.exit(main())
