"""Secrets that must be used, and therefore read again: encrypted with a key that the database does not have.

The key file holds one key a line. The first seals, all of them open: to change it, put a new line on top.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

KEY_FILE = "secrets.key"  # in the data folder; processes that share a database share this file


class SealError(Exception):
    """The key file can't be used, or does not open what was sealed; the text says what helps."""


class Sealer:
    """Seals and opens with the keys of one file."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = MultiFernet([Fernet(key) for key in keys])

    @classmethod
    def of(cls, folder: Path) -> "Sealer":
        """With the folder's key file, which is made where there is none."""
        path = folder / KEY_FILE
        if not path.exists():
            _make(path)
        try:
            return cls(path.read_text().split())
        except (OSError, ValueError) as failure:
            raise SealError(
                f"{path} can't be read as keys: restore it from your backup of the data folder."
            ) from failure

    def seal(self, secret: str) -> bytes:
        return self._keys.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        try:
            return self._keys.decrypt(sealed).decode()
        except InvalidToken:
            raise SealError(
                f"A stored secret does not open with {KEY_FILE}: restore the file it was sealed with."
            ) from None


def _make(path: Path) -> None:
    """Writes a new key, readable by us alone. Of two processes that start together, one wins."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(Fernet.generate_key() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
