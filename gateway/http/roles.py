"""The purposes a listener may have, which decide what is served there."""

from collections.abc import Collection
from enum import StrEnum


class Role(StrEnum):
    """The purpose of a listener; a route names the roles it is served under."""

    PUBLIC = "public"
    AGENTS = "agents"
    ADMIN = "admin"


EVERYWHERE = frozenset(Role)


def roles_of(names: Collection[str]) -> frozenset[Role]:
    """Returns the roles that a listener's configuration names; `all` stands for every role."""
    return EVERYWHERE if "all" in names else frozenset(Role(name) for name in names)
