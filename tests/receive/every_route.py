"""Every route of every door there is, whether or not a gateway has it."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import gateway.features
import gateway.http
import gateway.receive
from gateway.features.attachments import openapi as attachments
from gateway.features.feature import Door
from gateway.features.notifications import openapi as notifications
from gateway.features.operations import openapi as operations
from gateway.features.schedules import openapi as schedules
from gateway.http.operation import Words
from gateway.http.routing import Route
from gateway.receive.openapi import CORE

FEATURES = {
    "attachments": attachments.WORDS,
    "notifications": notifications.WORDS,
    "operations": operations.WORDS,
    "schedules": schedules.WORDS,
}
ROOMS_OF_THE_CORE = (gateway.http, gateway.receive)
WORDS: Words = CORE
for _words in FEATURES.values():
    WORDS |= _words


def every_route() -> list[Route]:
    return routes_in(*ROOMS_OF_THE_CORE, gateway.features)


def routes_in(*rooms: ModuleType) -> list[Route]:
    """What a door serves does not depend on what it is made of, so none of them is made of anything."""
    found: list[Route] = []
    for module in modules_in(*rooms):
        for _, door in inspect.getmembers(module, inspect.isclass):
            if door is Door or door.__module__ != module.__name__:
                continue
            if inspect.isfunction(getattr(door, "routes", None)):
                unmade: Any = door.__new__(door)
                found += unmade.routes()
    return found


def modules_in(*rooms: ModuleType) -> Iterator[ModuleType]:
    for room in rooms:
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            yield import_module(module.name)
