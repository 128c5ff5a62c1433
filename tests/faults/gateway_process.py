"""A gateway as a process of its own, which can be told to die at a named point.

    python -m tests.faults.gateway_process CONFIG DSN

Once it is ready it prints its ports and an admin key as one line of JSON; SIGTERM ends it in order. It dies with whoever
started it. From the environment:

AMTP_TEST_KILL=point:n   kills the process, as kill -9 does, when it comes to that point for the n-th time
AMTP_TEST_HASTY=1        answers before COMMIT: a fault that the ledger must see
AMTP_TEST_TRUSTING=1     takes for delivered what it only began to hand over to a peer: another one
AMTP_TEST_CLOCK=seconds  lives so much later, and so does its database for it
"""

import asyncio
import ctypes
import json
import os
import secrets
import signal
import sys
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop

from gateway.admit.api_key import mint_key
from gateway.config.settings import Config, load
from gateway.deliver.courier import Parcel
from gateway.deliver.outcome import Delivered, Outcome
from gateway.deliver.peer import PeerCourier
from gateway.journal.journal import Journal
from gateway.net.tls import server_context
from gateway.route.destination import Destination
from gateway.store.admitted import Admitted
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.clock import Clock
from gateway.store.intake.intake import Intake
from gateway.store.intake.uniqueness import Repeat
from gateway.store.queue.settle import Settle, Settlement
from gateway.wiring import app
from gateway.wiring import core as parts
from tests.faults.points import CLOCK, HASTY, KILL, TRUSTING, Point

PR_SET_PDEATHSIG = 1
HASTE_SECONDS = 0.05  # between an answer that is given too early and what it promised


class Fuse:
    """Kills this process when it comes to its point for the n-th time."""

    def __init__(self, setting: str | None) -> None:
        point, _, count = (setting or "").partition(":")
        self._point = Point(point) if point else None
        self._left = int(count or 1)
        # Traffic from outside must not blow it before somebody knows that this process is ready; the queue's own may.
        self.armed = self._point in (Point.BEFORE_SETTLE, Point.AFTER_SETTLE)

    def reach(self, point: Point) -> None:
        if self.armed and point is self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


FUSE = Fuse(os.environ.get(KILL))


class FusedLine:
    """The connection of one batch, with a fuse around what commits it: a statement alone does that itself."""

    def __init__(self, line: Any) -> None:
        self._line = line
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line, name)

    async def execute(self, statement: str, *arguments: object) -> Any:
        if statement == "begin":
            self._begun = True
            done = await self._line.execute(statement)
            FUSE.reach(Point.IN_BATCH)
            return done
        if statement != "commit" and self._begun:
            return await self._line.execute(statement, *arguments)
        return await self._committing(self._line.execute(statement, *arguments))

    async def fetchval(self, statement: str, *arguments: object) -> Any:
        return await self._committing(self._line.fetchval(statement, *arguments))

    async def _committing(self, work: Coroutine[Any, Any, Any]) -> Any:
        FUSE.reach(Point.BEFORE_COMMIT)
        under_way = asyncio.ensure_future(work)
        await asyncio.sleep(0)  # it is sent, and not answered
        FUSE.reach(Point.IN_BATCH)
        done = await under_way
        FUSE.reach(Point.AFTER_COMMIT)
        return done


class FusedIntake(Intake):
    async def _connected(self) -> Any:
        return FusedLine(await super()._connected())


class HastyIntake(FusedIntake):
    """Answers at once, and writes a little later: the fault this house is built against."""

    async def commit(self, admitted: Admitted) -> Repeat | None:
        waiting = asyncio.ensure_future(self._commit_later(admitted))
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        return None

    async def _commit_later(self, admitted: Admitted) -> Repeat | None:
        await asyncio.sleep(HASTE_SECONDS)
        return await super().commit(admitted)


class FusedSettle(Settle):
    async def _transact(self, batch: Sequence[Settlement]) -> list[Settlement]:
        FUSE.reach(Point.BEFORE_SETTLE)
        kept = await super()._transact(batch)
        if kept:
            FUSE.reach(Point.AFTER_SETTLE)
        return kept


class TrustingCourier(PeerCourier):
    """Says that the peer has it as soon as the way there began."""

    async def deliver(self, parcel: Parcel, destination: Destination) -> Sequence[Outcome]:
        under_way = asyncio.ensure_future(super().deliver(parcel, destination))
        under_way.add_done_callback(lambda done: done.cancelled() or done.exception())
        return [Delivered(f"amtp:{destination.host}")] * len(parcel.deliveries)


async def serve(config: Config, dsn: str) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    files = config.tls
    tls = None
    if files.certificate_file and files.key_file:
        tls = server_context(files.certificate_file, files.key_file)
    clock = Clock(timedelta(seconds=float(os.environ.get(CLOCK, "0"))))
    async with app.running(config, dsn, clock=clock, journal=Journal(form="text"), tls=tls) as running:
        key = mint_key()
        await NamedKeys(running.database, running.audit).add(
            NewKey(key.id, key.digest), f"tests-{secrets.token_hex(4)}", ["admin"], "tests"
        )
        print(json.dumps({"ports": running.ports, "admin_key": key.text}), flush=True)
        FUSE.armed = True
        await stopped.wait()


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    config, dsn = sys.argv[1:]
    usual = {"Intake": Intake, "Settle": Settle, "PeerCourier": PeerCourier}
    assert usual.items() <= vars(parts).items(), "what a gateway is made of has other names"
    vars(parts).update(Intake=HastyIntake if HASTY in os.environ else FusedIntake, Settle=FusedSettle)
    if TRUSTING in os.environ:
        vars(parts).update(PeerCourier=TrustingCourier)
    uvloop.run(serve(load(Path(config), {}), dsn))


if __name__ == "__main__":
    main()
