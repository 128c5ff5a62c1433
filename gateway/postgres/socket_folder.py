"""The folder of an embedded Postgres' socket: in the data folder, or in a short path that nobody can guess.

A socket's path is limited to 107 bytes, and a DSN can't hold blanks. If the data folder's own path doesn't fit, its
link `sockets` leads to a new folder, and clients follow that link.
"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Container
from pathlib import Path

SOCKET, PORT = ".s.PGSQL.5432", "5432"
SOCKET_BYTES_MAX = 107  # sockaddr_un
LINK = "sockets"
NOWHERE = Path("/dev/null")  # nobody can put a socket below it


def find(data: Path) -> Path:
    """Returns the folder that `make` made."""
    folder = data / "run"
    if _fits(folder):
        return folder
    try:
        return Path(os.readlink(data / LINK))
    except OSError:
        return NOWHERE


def make(data: Path, uids: Container[int], *, shared: bool) -> None:
    """Makes the folder unless it exists and belongs to one of these users; `shared` if another user needs it, too."""
    folder = data / "run"
    if _fits(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        return
    if belongs(find(data), uids):
        return
    fresh = tempfile.mkdtemp(prefix="amtp-", dir=_short(shared))
    link = data / f"{LINK}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh)
    link.rename(data / LINK)


def remove(data: Path) -> None:
    """Removes a folder outside the data folder; the link stays, for commands that were printed with its path."""
    with contextlib.suppress(OSError):
        shutil.rmtree(os.readlink(data / LINK), ignore_errors=True)


def belongs(folder: Path, uids: Container[int]) -> bool:
    """Returns whether it is a folder, and no link to one, of one of these users."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid in uids


def _short(shared: bool) -> str:
    """Returns the parent for a short path: XDG_RUNTIME_DIR, or /tmp if it is shared. TMPDIR may be as long as the data's."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = own and not shared and belongs(Path(own), (os.geteuid(),)) and _fits(Path(own, "amtp-12345678"))
    return own if usable else "/tmp"  # noqa: S108 - the folder in it is new, and ours alone


def _fits(folder: Path) -> bool:
    short = len(os.fsencode(folder / SOCKET)) <= SOCKET_BYTES_MAX
    return short and re.fullmatch(r"[\w./-]+", str(folder), re.ASCII) is not None
