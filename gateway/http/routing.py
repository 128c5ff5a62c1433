"""Routes: which handler serves a method and a path, on which listeners.

A path is split at its slashes before anything is percent-decoded, so an encoded slash stays inside its
segment. Paths are not normalised: what is not written like the template is not found.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from gateway.http.answers import Answer, Stream
from gateway.http.operation import Operation
from gateway.http.request import Request
from gateway.http.roles import EVERYWHERE, Role
from gateway.protocol.errors import AMTPError, Code

Handler = Callable[[Request], Awaitable[Answer | Stream]]

ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NO_PARAMS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Route:
    """A route. `path` is a template such as `/v1/inbox/{address}/{id}`; `{id}` matches message ids only.

    `operation` describes it; a gateway does not start with a route that has none. `query` follows from it: the names
    of the query parameters the route takes. Without an operation it is None, and the handler checks them.
    """

    method: str
    path: str
    handler: Handler
    roles: frozenset[Role] = EVERYWHERE
    operation: Operation | None = None
    query: frozenset[str] | None = field(init=False)

    def __post_init__(self) -> None:
        taken = self.operation and frozenset(parameter.name for parameter in self.operation.parameters)
        object.__setattr__(self, "query", taken)


@dataclass(frozen=True, slots=True)
class Shape:
    """The routes of one path template, by method."""

    segments: tuple[str, ...]  # a parameter is "{name}"
    routes: dict[str, Route] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[bool, ...]:
        """Returns the sort key: literal segments win over parameters, from the left."""
        return tuple(is_parameter(segment) for segment in self.segments)

    def params_of(self, segments: Sequence[str]) -> Mapping[str, str] | None:
        """Returns the parameters of a path with as many segments, or None if it does not match."""
        params = {}
        for expected, given in zip(self.segments, segments, strict=True):
            if not is_parameter(expected):
                if expected != given:
                    return None
                continue
            name = expected[1:-1]
            value = decode_segment(given)
            if value is None or (name == "id" and ID.fullmatch(value) is None):
                return None
            params[name] = value
        return params


class Router:
    """The routes of one listener."""

    def __init__(self, routes: Collection[Route], roles: Collection[Role]) -> None:
        self.roles = frozenset(roles)
        self._exact: dict[str, dict[str, Route]] = {}
        self._shapes: dict[int, list[Shape]] = {}
        self._methods = {"OPTIONS"}
        for route in routes:
            if not route.roles.isdisjoint(roles):
                self._add(route)
        for shapes in self._shapes.values():
            shapes.sort(key=lambda shape: shape.rank)

    def _add(self, route: Route) -> None:
        segments = tuple(route.path.split("/")[1:])
        if "{" not in route.path:
            routes = self._exact.setdefault(route.path, {})
        else:
            shapes = self._shapes.setdefault(len(segments), [])
            shape = next((shape for shape in shapes if shape.segments == segments), None)
            if shape is None:
                shape = Shape(segments)
                shapes.append(shape)
            routes = shape.routes
        if route.method in routes:
            raise ValueError(f"two routes for {route.method} {route.path}")
        routes[route.method] = route
        self._methods.add(route.method)

    def match(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """Returns the route and its parameters; raises NOT_FOUND or METHOD_NOT_ALLOWED. HEAD is served by GET."""
        exact = self._exact.get(path)
        if exact is not None and (route := exact.get(method)) is not None:
            return route, NO_PARAMS
        sought = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for routes, params in self._matching(path):
            if (route := routes.get(method) or routes.get(sought)) is not None:
                return route, params
            allowed |= set(routes)
        if allowed:
            raise AMTPError(
                Code.METHOD_NOT_ALLOWED,
                "This path does not take that method; details.allow lists those it takes.",
                details={"allow": with_implied(allowed)},
            )
        raise AMTPError(Code.NOT_FOUND, "There is nothing at this path.")

    def methods_at(self, path: str) -> list[str]:
        """Returns the methods of this path, for OPTIONS; `*` stands for the whole listener."""
        if path == "*":
            return with_implied(self._methods)
        methods = {method for routes, _ in self._matching(path) for method in routes}
        if not methods:
            raise AMTPError(Code.NOT_FOUND, "There is nothing at this path.")
        return with_implied(methods)

    def _matching(self, path: str) -> list[tuple[dict[str, Route], Mapping[str, str]]]:
        found: list[tuple[dict[str, Route], Mapping[str, str]]] = []
        if (exact := self._exact.get(path)) is not None:
            found.append((exact, NO_PARAMS))
        segments = path.split("/")[1:]
        for shape in self._shapes.get(len(segments), ()):
            params = shape.params_of(segments)
            if params is not None:
                found.append((shape.routes, params))
        return found


def is_parameter(segment: str) -> bool:
    return segment.startswith("{")


def with_implied(methods: Collection[str]) -> list[str]:
    implied = {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return sorted(implied | set(methods))


def decode_segment(raw: str) -> str | None:
    """Decodes a segment; None if it is empty, not UTF-8, or has control characters."""
    try:
        text = unquote(raw, errors="strict") if "%" in raw else raw
    except UnicodeDecodeError:
        return None
    return text if text and CONTROL.search(text) is None else None
