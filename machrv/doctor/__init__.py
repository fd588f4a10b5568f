"""What `machrv doctor` looks at, one room each: Python, the kernel, limits and sandboxes, the bootstrap directory, names, requirements, a
claim."""

# What belongs here: looking, and saying in plain words what was found. What must never happen here: a change to the
# system, but for what `--fix` asks for; an import of the compiled module by `findings` and `python`, since it may be
# what is broken: the other rooms are entered when it is not.
