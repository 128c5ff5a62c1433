"""Who may read a file that holds a key."""

import stat
from pathlib import Path

ROOT = 0


def exposure(path: Path) -> str:
    """Returns that others may read or change the file; nothing where they may not.

    Its owner alone may; of a file of root's its group may read, too, as Postgres has it with keys.
    """
    try:
        found = path.stat()
    except OSError:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    if not mode & (0o027 if found.st_uid == ROOT else 0o077):
        return ""
    return f"{path} can be read by others (mode {mode:o})"
