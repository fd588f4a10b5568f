"""What machrv is held against: the same work done with what a Python user would take instead."""
