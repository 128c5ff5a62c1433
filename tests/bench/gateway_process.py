"""A gateway in a process of its own: `python -m tests.bench.gateway_process CONFIG DSN [--one-by-one]`.

Says its ports and an admin key in one line of JSON when it is ready, and ends on SIGTERM.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import uvloop

from gateway.admit.api_key import mint_key
from gateway.config.settings import Config, load
from gateway.journal.journal import Journal
from gateway.net.tls import server_context
from gateway.serve.process import keep_for_good
from gateway.store.admitted import Admitted
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.intake.insertion import insert
from gateway.store.intake.intake import Intake
from gateway.store.intake.uniqueness import Repeat
from gateway.wiring import app
from gateway.wiring import core as parts


class OneByOne(Intake):
    """The baseline that the group commit is measured against: every request opens a transaction of its own."""

    async def commit(self, admitted: Admitted) -> Repeat | None:
        database: Database = self._database
        async with database.transaction() as connection:
            await insert(connection, self._mint(), [admitted])
        self._committed([entry.agent for entry in admitted.entries])
        return None


async def serve(config: Config, dsn: str) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    files = config.tls
    tls = None
    if files.certificate_file and files.key_file:
        tls = server_context(files.certificate_file, files.key_file)
    journal = Journal(form="json", level=config.log.level)
    async with app.running(config, dsn, clock=Clock(), journal=journal, tls=tls) as gateway:
        key = mint_key()
        named = NamedKeys(gateway.database, gateway.audit)
        await named.add(NewKey(key.id, key.digest), f"bench-{os.getpid()}", ["admin"], "bench")
        keep_for_good()
        print(json.dumps({"ports": gateway.ports, "admin_key": key.text}), flush=True)
        await over.wait()


def main() -> None:
    config, dsn, *rest = sys.argv[1:]
    if "--one-by-one" in rest:
        parts.Intake = OneByOne  # type: ignore[attr-defined] # the product has no such switch
    uvloop.run(serve(load(Path(config), {}), dsn))


if __name__ == "__main__":
    main()
