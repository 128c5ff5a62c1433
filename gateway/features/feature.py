"""The seam for features.

A feature is a folder beside this module with a function `feature(base) -> Feature`, named once in the list of features.
It is called before the core is built, and returns its checks, interests and leavings. When the core is built, its `faces`
are built with it: endpoints, chores and workers. A feature imports the floors below and no other feature.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.admit.authenticate import Authenticator
from gateway.admit.checks import Check
from gateway.config.settings import Config
from gateway.flow.accept import Accept
from gateway.flow.housekeeping import Chore
from gateway.flow.lanes import Lanes
from gateway.http.limits import Load
from gateway.http.operation import Words
from gateway.http.routing import Route
from gateway.net.outbound import Outbound
from gateway.report.interests import Interest, Interests
from gateway.report.postmaster import Postmaster
from gateway.route.directory import Directory
from gateway.store.agents.agents import Agents
from gateway.store.agents.leaving import Leaving
from gateway.store.audit import Audit
from gateway.store.runtime import Runtime
from gateway.store.sealed import Sealer


@dataclass(slots=True)
class Base:
    """The parts that exist before any feature. A reload replaces the configuration."""

    config: Config
    runtime: Runtime
    audit: Audit


@dataclass(frozen=True, slots=True)
class Core:
    """The finished core, as the faces of features use it."""

    authenticator: Authenticator
    agents: Agents
    sealer: Sealer
    outbound: Outbound
    directory: Directory
    lanes: Lanes
    interests: Interests
    postmaster: Postmaster
    accept: Accept
    load: Load


class Door(Protocol):
    """A family of endpoints."""

    def routes(self) -> list[Route]: ...


class BackgroundWorker(Protocol):
    """A task that runs until told to stop, and ends when nothing is under way any more."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Faces:
    """The endpoints of a feature, their OpenAPI, and the work it does in the background."""

    doors: tuple[Door, ...] = ()
    words: Words = field(default_factory=Words)
    chores: tuple[Chore, ...] = ()
    workers: tuple[BackgroundWorker, ...] = ()
    watches: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()  # run until the gateway has stopped
    prepare: Callable[[], Awaitable[None]] | None = None  # awaited before the first message


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature's parts of the core, and the function that builds its faces on the finished core."""

    faces: Callable[[Core], Faces]
    checks: tuple[Check, ...] = ()
    interests: tuple[Interest, ...] = ()
    leavings: tuple[Leaving, ...] = ()


Plug = Callable[[Base], Feature]
