# PYTHON_ARGCOMPLETE_OK (argcomplete looks for this, to complete commands and options in a shell)
"""The command `machrv`: demo, decode, doctor, exec, ports, trace. Each is a module of this package; `command` finds them."""

from machrv.cli.command import main as main, parser as parser
