"""Encryption of secrets that must be used again in clear, with a key that is not in the database.

The key file holds one key a line. The first seals, all of them open: to change it, put a new line on top.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from gateway.store.database import Database

KEY_FILE = "secrets.key"  # in the data folder; processes that share a database share this file

REMEDY = (
    "copy the file from the data folder of another gateway on this database, or from your backup. If it is lost:"
    " amtp migrate --accept-key, then give new secrets: amtp agents rotate-secret, amtp webhooks rotate"
)
CHECKED = "the key of this database"  # what is sealed to be tried
# A sealed text to try a key file on: the one kept for that, else any secret from before it was.
_SAMPLE = """
select sealed from (
    (select sealed, 1 as place from secrets_check)
    union all (select push_secrets, 2 from agents where push_secrets is not null limit 1)
    union all (select secret, 3 from subscriptions limit 1)
) as found order by place limit 1
"""
_KEEP = "insert into secrets_check (sealed) values ($1) on conflict (one) do nothing"
_REPLACE = (
    "insert into secrets_check (sealed) values ($1) on conflict (one) do update set sealed = excluded.sealed"
)


class SealError(Exception):
    """A key file that can't be used, or can't open what was sealed; the text names the remedy."""


class Sealer:
    """The keys of one file: seals with the first and opens with any."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = MultiFernet([Fernet(key) for key in keys])
        self._first = MultiFernet([Fernet(key) for key in keys[:1]])

    @classmethod
    def of(cls, folder: Path) -> "Sealer":
        """Returns the sealer of the folder's key file; creates the file if it does not exist."""
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

    def opens(self, sealed: bytes, *, by_first: bool = False) -> bool:
        """Returns whether one of the keys, or the one that seals, opens this."""
        try:
            (self._first if by_first else self._keys).decrypt(sealed)
        except InvalidToken:
            return False
        return True

    def open(self, sealed: bytes) -> str:
        try:
            return self._keys.decrypt(sealed).decode()
        except InvalidToken:
            raise SealError(
                f"A stored secret does not open with {KEY_FILE}: restore the file it was sealed with."
            ) from None


async def sample(database: Database) -> bytes | None:
    """Returns something that was sealed for this database; None where nothing was yet."""
    sealed: bytes | None = await database.fetchval(_SAMPLE)
    return sealed


async def agree(database: Database, sealer: Sealer, folder: Path) -> None:
    """Raises SealError where this database's secrets are sealed with another key file than that of `folder`."""
    sealed = await sample(database)
    if sealed is None:
        await database.execute(_KEEP, sealer.seal(CHECKED))
        sealed = await sample(database)  # another process may have been first
    if not sealer.opens(sealed or b""):
        raise SealError(f"{folder / KEY_FILE} doesn't open the secrets of this database: {REMEDY}.")
    if not sealer.opens(sealed or b"", by_first=True):  # a new key seals, and the old one may go some day
        await accept(database, sealer)


async def accept(database: Database, sealer: Sealer) -> None:
    """Records this key file as the one of the database."""
    await database.execute(_REPLACE, sealer.seal(CHECKED))


def _make(path: Path) -> None:
    """Writes a new key, readable by its owner alone. Of two processes that start together, one wins."""
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
