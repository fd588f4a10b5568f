"""The directory of bootstrap names: where it is, whether it is safe, and what the file of a name is called.

What belongs here: what a process that only looks a name up needs. What must never happen here: a directory that somebody
else owns or can write to.

Where: `$MACHRV_BOOTSTRAP_DIR`, else `$XDG_RUNTIME_DIR/machrv`, else `/tmp/machrv-UID`.
"""

from __future__ import annotations

import os
import stat

_LONGEST = 200
_checked: set[str] = set()
#: the paths of names that were looked up, by directory and name
_links: dict[tuple[str, str], bytes] = {}
_MOST_LINKS = 64


def chosen_path() -> tuple[str, str]:
    """Where the directory is by this process's environment, and the variable that says so, "" if none does."""
    path = os.environ.get("MACHRV_BOOTSTRAP_DIR", "")
    if path:
        return path, "MACHRV_BOOTSTRAP_DIR"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.path.isdir(runtime):
        return os.path.join(runtime, "machrv"), "XDG_RUNTIME_DIR"
    return f"/tmp/machrv-{os.getuid()}", ""


def problem_with(path: str) -> str:
    """Make the directory if it is missing; why it cannot be used, "" if it can.

    One that was ours and nobody else's stays so: whoever could change that could do anything in this user's name.
    """
    if path in _checked:
        return ""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        return f"cannot make {path}: {error.strerror}"
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return (
            f"{path} must be a directory of user {os.geteuid()} with mode 0700; "
            "set MACHRV_BOOTSTRAP_DIR to one that is"
        )
    _checked.add(path)
    return ""


def forget(path: str) -> None:
    """Look at it again the next time: nothing was found there."""
    _checked.discard(path)


def file_of(name: str) -> str:
    """The file name for a service name: itself where that can be one, else a digest."""
    safe = bool(name) and "/" not in name and "\0" not in name and name[0] not in ".%"
    if safe and (len(name) * 4 <= _LONGEST or len(os.fsencode(name)) <= _LONGEST):
        return name
    from hashlib import sha256

    return "%" + sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def link_of(name: str) -> bytes | None:
    """The path of the symbolic link that a name is; None if the directory cannot be used."""
    path, _ = chosen_path()
    found = _links.get((path, name))
    if found is None or path not in _checked:
        if problem_with(path):
            return None
        found = os.fsencode(f"{path}/{file_of(name)}")
        if len(_links) >= _MOST_LINKS:
            _links.clear()
        _links[path, name] = found
    return found
