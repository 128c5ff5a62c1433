"""The feature of operators' endpoints."""

from datetime import timedelta

from gateway.features.feature import Base, Core, Faces, Feature
from gateway.features.operations.dead_letter_door import DeadLetterDoor
from gateway.features.operations.dead_letters import DeadLetters
from gateway.features.operations.destination_door import TrafficDoor
from gateway.features.operations.destinations import Traffic
from gateway.features.operations.openapi import WORDS
from gateway.features.operations.peer_door import PeerDoor
from gateway.features.operations.queue import Queue
from gateway.features.operations.queue_door import QueueDoor
from gateway.receive.content import ContentRule


def feature(base: Base) -> Feature:
    config, runtime, audit = base.config, base.runtime, base.audit
    database, row_ids = runtime.database, runtime.row_ids

    def faces(core: Core) -> Faces:
        return Faces(
            words=WORDS,
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
            ),
        )

    return Feature(faces)
