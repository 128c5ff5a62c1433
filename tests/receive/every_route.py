"""Every route of every door there is, whether or not a gateway has it."""

import inspect
import pkgutil
from importlib import import_module
from typing import Any

import gateway.features
import gateway.receive
from gateway.features.feature import Door
from gateway.features.notifications import openapi as notifications
from gateway.features.operations import openapi as operations
from gateway.features.schedules import openapi as schedules
from gateway.http.operation import Words
from gateway.http.routing import Route
from gateway.receive.openapi import CORE

WORDS: Words = CORE | notifications.WORDS | operations.WORDS | schedules.WORDS


def every_route() -> list[Route]:
    """What a door serves does not depend on what it is made of, so none of them is made of anything."""
    found: list[Route] = []
    for module in (
        *pkgutil.iter_modules(gateway.receive.__path__, "gateway.receive."),
        *pkgutil.walk_packages(gateway.features.__path__, "gateway.features."),
    ):
        for _, door in inspect.getmembers(import_module(module.name), inspect.isclass):
            if door is Door or door.__module__ != module.name:
                continue
            if inspect.isfunction(getattr(door, "routes", None)):
                unmade: Any = door.__new__(door)
                found += unmade.routes()
    return found
