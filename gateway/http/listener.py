"""One listener: the state its connections share, and the code that routes a request to its answer."""

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from aiohttp import hdrs

from gateway.config.sections import LimitSettings
from gateway.http.answers import Answer, Stream, answer_error, check_answer, fixed_head, render_answer
from gateway.http.fast_heads import PlainHeads
from gateway.http.framing import Head
from gateway.http.limits import Load, Manners, reading_pace
from gateway.http.origin import Network
from gateway.http.places import Connected, ConnectionPlaces, Place, Refusal, descriptors_max
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Router
from gateway.http.transport import Carrier, HungUp, Member
from gateway.net.joined_sends import Outbox
from gateway.net.pace import Pace
from gateway.net.shares import RETRY_AFTER_SECONDS
from gateway.protocol.errors import AMTPError, Code
from gateway.store.clock import Clock

REQUEST_ID_BITS = 96
NO_ROUTE = "-"
INTERNAL_ERROR = 500


class Watch(Protocol):
    """An observer of the HTTP server."""

    def request_answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """Reports an answer. `path` is the template of the route; it and `method` are `-` if there was none."""

    def request_failed(self, request_id: str, path: str, error: Exception) -> None:
        """Reports an unexpected exception of a handler; the client was told only the request id."""

    def connection_refused(self, cause: str, address: str) -> None:
        """Reports a refused connection, or an idle one closed to make room (`cause` is "idle")."""

    def reader_cut(self, reason: str) -> None:
        """Reports a client that was cut off: `slow`, `crowded` if others needed the room, or `replaced` by newer
        streams of the inbox."""

    def held(self, amounts: Mapping[str, int]) -> None:
        """Reports how much of each pot is in use."""


class AnsweredRequest(msgspec.Struct, frozen=True):
    """An answer, with what the connection and the watch need to know about the request."""

    answer: Answer | Stream
    request_id: str
    method: str
    path: str
    last: bool
    request: Request | None  # none where it was no request of ours


class Listener:
    """The state of one listener. The last group of attributes is what aiohttp's RequestHandler wants of a server."""

    def __init__(
        self,
        *,
        router: Router,
        load: Load,
        manners: Manners,
        watch: Watch,
        clock: Clock,
        trusted: Sequence[Network],
        secure: bool,
    ) -> None:
        self.router = router
        self.load = load
        self.manners = manners
        self.watch = watch
        self.clock = clock
        self.trusted = trusted
        self.secure = secure
        self.connections: set[Member] = set()
        self.places = ConnectionPlaces(
            load,
            self.connections,
            waited_seconds=manners.waited_seconds,
            descriptors_max=descriptors_max(operators_alone=router.roles == {Role.ADMIN}),
        )
        self.outbox = Outbox()
        self.plain = PlainHeads(manners)
        self.renew_head()

        self.request_handler = None
        self.request_factory = None
        self.handler_cancellation = False

    async def answer(self, head: Head, connection: Carrier) -> AnsweredRequest:
        """Routes the request and returns its answer, or the rendered error."""
        request_id = head.request_id or mint_request_id()
        template = NO_ROUTE
        request: Request | None = None
        answer: Answer | Stream
        try:
            if head.fault is not None:
                raise head.fault
            if head.method == hdrs.METH_OPTIONS:
                answer = Answer(204, headers=(("Allow", ", ".join(self.router.methods_at(head.path))),))
            else:
                route, params = self.router.match(head.method, head.path)
                template = route.path
                request = Request(head, params, request_id, connection)
                if head.query and route.query is not None:
                    request.check_query(route.query)
                answer = await route.handler(request)
                check_answer(answer)
        except AMTPError as error:
            answer = answer_error(error, request_id, self.clock.now())
        except HungUp:
            raise
        except Exception as error:  # noqa: BLE001 - the middleware: a bug answers one request, and is logged
            self.watch.request_failed(request_id, template, error)
            answer = self._apology(request_id)
        last = head.last or isinstance(answer, Stream)
        return AnsweredRequest(answer, request_id, head.method, template, last, request)

    def refusal(self, error: AMTPError) -> bytes:
        """Returns the answer to a connection that may not stay."""
        request_id = mint_request_id()
        answer = answer_error(error, request_id, self.clock.now())
        return render_answer(answer, self.fixed_head, request_id, bodiless=False, close=True)

    def _apology(self, request_id: str) -> Answer:
        error = AMTPError(
            Code.TEMPORARY_FAILURE,
            "Something went wrong here; the operator finds it under this request id.",
            retry_after=RETRY_AFTER_SECONDS,
        )
        answer = answer_error(error, request_id, self.clock.now())
        return Answer(INTERNAL_ERROR, answer.body, answer.content_type, answer.headers)

    @property
    def limits(self) -> LimitSettings:
        return self.load.limits

    @property
    def reading(self) -> Pace:
        """Returns the least rate for clients that read answers."""
        return reading_pace(self.load.limits, self.manners)

    def renew_head(self) -> None:
        """Updates the Date header of the answers to come."""
        self.fixed_head = fixed_head(secure=self.secure, now=self.clock.now())

    def enter(self, connected: Connected) -> Place:
        """Gives a connection that was just accepted its place; raises Refusal, which is told to the watch."""
        closed_before = self.places.closed_for_others
        try:
            place = self.places.enter(connected, self.trusted)
        except Refusal as refusal:
            self.watch.connection_refused(refusal.cause, refusal.place.address)
            raise
        if self.places.closed_for_others != closed_before:
            self.watch.connection_refused("idle", place.address)
        return place

    def connection_made(self, connection: Member, _transport: object) -> None:
        self.connections.add(connection)

    def connection_lost(self, connection: Member, _error: BaseException | None) -> None:
        """Does nothing: a connection leaves when its last request has ended, too."""

    def leave(self, connection: Member, place: Place) -> None:
        """Ends the counting of a connection."""
        self.connections.discard(connection)
        self.places.leave(place)


def mint_request_id() -> str:
    """Returns a new request id; it is unique, but not a secret."""
    return f"{random.getrandbits(REQUEST_ID_BITS):024x}"
