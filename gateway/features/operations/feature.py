"""Plugs the operators' endpoints in."""

from datetime import timedelta

from gateway.features.feature import Base, Core, Faces, Feature
from gateway.receive.content import ContentRule
from gateway.receive.dead_letters import DeadLetterDoor
from gateway.receive.peers import PeerDoor
from gateway.receive.queue import QueueDoor
from gateway.receive.traffic import TrafficDoor
from gateway.store.dead_letters import DeadLetters
from gateway.store.queue import Queue
from gateway.store.traffic import Traffic


def feature(base: Base) -> Feature:
    config, runtime, audit = base.config, base.runtime, base.audit
    database, row_ids = runtime.database, runtime.row_ids

    def faces(core: Core) -> Faces:
        return Faces(
            doors=(
                QueueDoor(
                    database=database,
                    authenticator=core.authenticator,
                    queue=Queue(database, row_ids, audit),
                    postmaster=core.postmaster,
                    interests=core.interests,
                    journal=runtime.journal,
                ),
                PeerDoor(
                    database=database,
                    authenticator=core.authenticator,
                    lanes=core.lanes,
                    directory=core.directory,
                    configured=lambda: base.config.peers,
                ),
                TrafficDoor(
                    database=database,
                    authenticator=core.authenticator,
                    traffic=Traffic(database, audit),
                    lanes=core.lanes,
                    directory=core.directory,
                ),
                DeadLetterDoor(
                    database=database,
                    authenticator=core.authenticator,
                    content=ContentRule(database, audit),
                    dead_letters=DeadLetters(
                        database,
                        row_ids,
                        audit,
                        domains=config.domains,
                        horizon=timedelta(days=config.queue.horizon_days),
                    ),
                ),
            )
        )

    return Feature(faces)
