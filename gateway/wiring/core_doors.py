"""The HTTP endpoints of a gateway, with the parts they need."""

from collections.abc import Callable, Mapping
from functools import partial

from gateway.features.feature import Door
from gateway.http.limits import Manners
from gateway.http.openapi import OpenApiDoor
from gateway.http.server import HttpServer as HttpDoor
from gateway.journal.journal import Journal
from gateway.net.rates import Rates
from gateway.postgres.embedded import FREE_BYTES_MIN, free_bytes
from gateway.receive.agents import AgentDoor
from gateway.receive.answering import Answering
from gateway.receive.capabilities import CapabilityDoor
from gateway.receive.health import DatabaseLook, HealthDoor, Look, disk_look, draining_look
from gateway.receive.inbox import InboxDoor
from gateway.receive.messages import MessageDoor
from gateway.receive.openapi import CORE, INFO
from gateway.receive.purging import PurgeDoor
from gateway.receive.status import StatusDoor
from gateway.receive.waiting import ReplyWait
from gateway.route.configured import published
from gateway.store.inbox.purging import Purging
from gateway.store.queue.cancellation import Cancellations
from gateway.wiring.core import Parts


def door_of(parts: Parts) -> HttpDoor:
    """Returns the HTTP server with all its routes; it listens once it is opened."""
    of_features = [door for faces in parts.faces for door in faces.doors]
    doors = [*_message_doors(parts), *_agent_doors(parts), *of_features, _health_door(parts)]
    routes = [route for door in doors for route in door.routes()]
    words = CORE
    for faces in parts.faces:
        words |= faces.words
    return HttpDoor(
        routes=[*routes, *OpenApiDoor(INFO, routes, words).routes()],
        load=parts.load,
        manners=Manners(),
        watch=DoorWatch(parts.journal),
        clock=parts.clock,
        trusted=parts.config.proxy.trusted,
    )


def _message_doors(parts: Parts) -> tuple[Door, ...]:
    """Returns the endpoints for sending messages and for looking up their status."""
    return (
        MessageDoor(
            accept=parts.accept,
            waiting=ReplyWait(
                accept=parts.accept,
                replies=parts.replies,
                residents=parts.residents,
                authenticator=parts.authenticator,
                journal=parts.journal,
                held_open=parts.held_open,
                waits=parts.load.waits,
            ),
            authenticator=parts.authenticator,
            parsing=parts.parsing,
            slots=parts.load.requests,
            line_slots=parts.load.lines,
            clock=parts.clock,
            mint=parts.mint,
            domains=parts.config.domains,
            hostname=parts.config.hostname,
            body_bytes_max=parts.config.limits.body_bytes,
            room=parts.disk_has_room,
        ),
        StatusDoor(
            database=parts.database,
            authenticator=parts.authenticator,
            cancellations=Cancellations(parts.database, parts.mint, parts.audit),
            interests=parts.interests,
            journal=parts.journal,
        ),
        CapabilityDoor(
            directory=parts.directory,
            authenticator=parts.authenticator,
            domains=parts.config.domains,
            published=published(parts.config),
            lookups=Rates("look-ups of other domains", lambda: parts.config.limits.lookups_per_minute),
        ),
    )


def _agent_doors(parts: Parts) -> tuple[Door, ...]:
    """Returns the endpoints for inboxes and for the registration of agents."""
    return (
        InboxDoor(
            database=parts.database,
            authenticator=parts.authenticator,
            residents=parts.residents,
            answering=Answering(
                runtime=parts.runtime,
                accept=parts.accept,
                parsing=parts.parsing,
                slots=parts.load.requests,
                interests=parts.interests,
                room=parts.disk_has_room,
            ),
            interests=parts.interests,
            bell=parts.bell,
            straight=parts.straight,
            held_open=parts.held_open,
            activity=parts.activity,
            journal=parts.journal,
            clock=parts.clock,
            rules=parts.config.inbox,
            answer_bytes_max=parts.config.limits.body_bytes,
            waits=parts.load.waits,
        ),
        PurgeDoor(
            authenticator=parts.authenticator,
            residents=parts.residents,
            purging=Purging(parts.database, parts.mint, parts.audit),
        ),
        AgentDoor(
            agents=parts.agents,
            authenticator=parts.authenticator,
            watch=parts.watch,
            sealer=parts.sealer,
            clock=parts.clock,
            mint=parts.mint,
            domains=parts.config.domains,
            development=parts.config.development,
            target_fault=_target_fault(parts),
        ),
    )


def _target_fault(parts: Parts) -> Callable[[str], str | None]:
    return partial(parts.outbound.fault, plain=parts.config.outbound.plain_webhooks)


def _health_door(parts: Parts) -> HealthDoor:
    looks: list[Look] = [DatabaseLook(parts.database), draining_look(lambda: parts.draining)]
    if not parts.config.database.url:
        looks.append(disk_look(lambda: free_bytes(parts.config.data), FREE_BYTES_MIN))
    return HealthDoor(looks=looks, metrics=parts.journal.metrics, clock=parts.clock)


class DoorWatch:
    """A watch that reports the events of the HTTP server to the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def request_answered(self, method: str, path: str, status: int, seconds: float) -> None:
        self._journal.request(f"{method} {path}", status, seconds)

    def request_failed(self, request_id: str, path: str, error: Exception) -> None:
        self._journal.broke(f"request {request_id} at {path}", error)

    def connection_refused(self, cause: str, address: str) -> None:
        self._journal.connection_refused(cause, address)

    def reader_cut(self, reason: str) -> None:
        self._journal.reader_cut(reason)

    def held(self, amounts: Mapping[str, int]) -> None:
        self._journal.held(amounts)
