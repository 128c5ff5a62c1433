"""Checks of the permissions of key files."""

import stat
from pathlib import Path

ROOT = 0


def exposure(path: Path) -> str:
    """Returns a text if others may read or change the file, else an empty one.

    Only its owner may; a file of root's may also be read by its group, as Postgres allows for keys.
    """
    try:
        found = path.stat()
    except OSError:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    if not mode & (0o027 if found.st_uid == ROOT else 0o077):
        return ""
    return f"{path} can be read by others (mode {mode:o})"
