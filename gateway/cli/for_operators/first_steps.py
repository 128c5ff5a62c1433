"""`amtp serve --local`: the operator's key in the data folder, and first commands to try."""

import os
from pathlib import Path
from shlex import quote

import typer

from gateway import __version__
from gateway.admit.api_key import ApiKey, mint_key, parse_key
from gateway.admit.caller import ADMIN
from gateway.journal.file_modes import exposure
from gateway.serve.expected import StartError
from gateway.store.agents.keys import NamedKeys, NewKey, find_keys
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint

KEY_FILE = "admin.key"
NAME = "admin"
ACTOR = "serve --local"


async def keep_admin_key(data: Path, dsn: str) -> ApiKey:
    """Returns the valid key from the folder's file; makes a new one if there is none or it was revoked."""
    database = Database(dsn, clock=Clock(), pool_size=1)
    await database.open()
    try:
        keys = NamedKeys(database, Audit(Mint(Clock())()))
        key = _read(data / KEY_FILE) or _write(data / KEY_FILE, mint_key())
        await keys.ensure(NewKey(key.id, key.digest), NAME, [ADMIN], ACTOR)
        if key.id not in (await find_keys(database, [key.id]))[1]:
            key = _write(data / KEY_FILE, mint_key())
            await keys.ensure(NewKey(key.id, key.digest), NAME, [ADMIN], ACTOR)
        return key
    finally:
        await database.close()


def _read(path: Path) -> ApiKey | None:
    try:
        text, exposed = path.read_text().strip(), exposure(path)
        path.chmod(0o600)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as failure:
        raise StartError(f"{path} can't be read: {failure}. Remove it for a new key.") from None
    key = parse_key(text)
    if key is None:
        raise StartError(f"{path} holds no key of this gateway's kind. Remove it for a new one.")
    if exposed:
        typer.echo(
            f"amtp: {path} could be read by others, until now. `amtp admin-keys revoke {NAME}` ends the key.",
            err=True,
        )
    return key


def _write(path: Path, key: ApiKey) -> ApiKey:
    """Writes the key file atomically, readable only by this user."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(key.text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return key


def greeting(url: str, key: str, data: Path, domain: str) -> str:
    """Returns the text that `amtp serve --local` prints when it is ready."""
    path = str((data / KEY_FILE).absolute())
    register = f"curl {url}/v1/admin/agents -H 'Authorization: Bearer '$(cat {quote(path)}) {JSON}"
    return f"""
AMTP gateway {__version__} for the domain {domain}. Its data is kept in {data}; Ctrl-C stops it.

Gateway: {url}
Admin key: {key}

Try it from another terminal: register two agents, send a message, read it.

  {register} -d '{{"address": "alice"}}'
  {register} -d '{{"address": "bob"}}'
  curl {url}/v1/messages {JSON} -d '{{"sender": "alice@{domain}", "recipients": ["bob@{domain}"], "payload": "Hello, Bob"}}'
  curl {url}/v1/inbox/bob@{domain}

From this machine only the operator's key is asked for; everyone else presents the key they were given.
"""


JSON = "-H 'Content-Type: application/json'"
