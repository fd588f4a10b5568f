"""What must be true before a version is given out: `python -m tests.release`.

What belongs here: checks of what is shipped, by the tools that those who ship Python use. What must never happen here:
anything that gives something out; that is the workflow's, .github/workflows/release.yml.
"""
