"""The endpoints of an inbox, `/v1/inbox/{address}`: list, wait, stream, lease, acknowledge, dead letters.

1. Only its own agent can open an inbox; operators read the postmaster's.
2. A waiting request holds neither a database connection nor a slot of admission, and its key is checked again before
   messages are returned.
3. Messages that were returned and not acknowledged are returned again: by the next read, or when their lease ends.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.admit.inbox_rule import POSTMASTER, inbox_rule
from gateway.admit.residents import Resident, Residents
from gateway.config.sections import InboxSettings
from gateway.http.answers import JSON, Answer, Stream, answer_json, encode_json
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.http.stream import OpenStreams, together
from gateway.journal.journal import Journal
from gateway.net.shares import Pot
from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.answering import Answering, Consumer, Outcome
from gateway.receive.held_open import HeldOpen
from gateway.receive.inbox_items import (
    FAULTS,
    render_dead_letter,
    render_event,
    render_page,
    render_result,
    render_results,
)
from gateway.receive.inbox_query import (
    BODY_BYTES_MAX,
    AskedEntry,
    Question,
    dead_letter_number,
    dead_letter_page,
    parse_name,
    parse_names,
    parse_question,
    parse_renewal,
    parse_said,
)
from gateway.receive.openapi_operations import (
    ACKNOWLEDGE,
    ACKNOWLEDGE_MANY,
    CHANGE_LEASE,
    DROP_OWN_LETTER,
    LIST_OWN_LETTERS,
    READ_INBOX,
    REPLAY_OWN_LETTER,
)
from gateway.report.interests import Interests
from gateway.store.agents.keys import NAMED_KEYS
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox import inbox
from gateway.store.inbox.acknowledge import Acknowledgement, Result
from gateway.store.inbox.activity import Activity
from gateway.store.inbox.inbox import Item, Lease, Listing, Mark, Page
from gateway.store.inbox.poison import drop, revive, undigested
from gateway.store.wakeups.bell import Bell, hushed_at
from gateway.store.wakeups.direct import Straight

EVENTS = "text/event-stream"
RECONNECT_MILLISECONDS = 1000  # how long a stream's client waits before it reconnects
STREAM_LOOK_SECONDS = 60.0  # a stream polls this often even without a ring
LEASES_KNOWN_SECONDS = 1.0  # how long a busy stream relies on the lease end it last looked up
LEASE_SLACK_SECONDS = 0.05  # so that a request that waits for a lease's end looks after it
STREAM_PAGE_BYTES = 262_144  # of bodies; a stream holds at most so much, or one message
ROLES = frozenset({Role.AGENTS, Role.ADMIN})


class InboxDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        residents: Residents,
        answering: Answering,
        interests: Interests,
        bell: Bell,
        straight: Straight,
        held_open: HeldOpen,
        activity: Activity,
        journal: Journal,
        clock: Clock,
        rules: InboxSettings,
        answer_bytes_max: int,
        waits: Pot,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._residents = residents
        self._answering = answering
        self._interests = interests
        self._bell = bell
        self._straight = straight
        self._held_open = held_open
        self._activity = activity
        self._journal = journal
        self._clock = clock
        self._rules = rules
        self._answer_bytes_max = answer_bytes_max
        self._page_bytes_max = min(answer_bytes_max, inbox.PAGE_BYTES_MAX)
        self._waits = waits
        self._streams = OpenStreams(rules.streams)

    def routes(self) -> list[Route]:
        box = "/v1/inbox/{address}"
        return [
            Route("GET", box, self.read, ROLES, READ_INBOX),
            Route("DELETE", f"{box}/{{id}}", self.acknowledge, ROLES, ACKNOWLEDGE),
            Route("POST", f"{box}/ack", self.acknowledge_many, ROLES, ACKNOWLEDGE_MANY),
            Route("POST", f"{box}/lease", self.renew, ROLES, CHANGE_LEASE),
            Route("GET", f"{box}/dead-letters", self.list_dead_letters, ROLES, LIST_OWN_LETTERS),
            Route(
                "POST",
                f"{box}/dead-letters/{{number}}/replay",
                self.replay_dead_letter,
                ROLES,
                REPLAY_OWN_LETTER,
            ),
            Route("DELETE", f"{box}/dead-letters/{{number}}", self.drop_dead_letter, ROLES, DROP_OWN_LETTER),
        ]

    async def read(self, request: Request) -> Answer | Stream:
        owner = await self._owner(request)
        question = parse_question(request.query, self._rules)
        if request.method == "HEAD":
            return Answer()  # reading marks messages read, and a HEAD must change nothing
        if EVENTS in (request.header("Accept") or ""):
            last = request.header("Last-Event-ID")
            events = self._events(request, owner, question, last)
            await anext(events)  # counts the stream; a refusal is then still an ordinary answer
            return Stream(events)
        lease = question.lease()
        if question.wait_seconds:
            page = await self._awaited(request, owner, question, lease)
        else:
            page = await self._fetch(owner, question.listing, lease, self._page_bytes_max)
        unread = None
        if lease is None:
            unread = await inbox.unread(self._database, owner.id, lapses_max=self._rules.poison_lapses)
        return Answer(200, render_page(page, owner.name, lease, unread), JSON)

    async def acknowledge(self, request: Request) -> Answer:
        caller, owner = await self._opened(request)
        name, lease = parse_name(request.params["id"], request.query)
        body = await request.body(self._answer_bytes_max)
        if body:
            request.require_content_type(JSON)
        entry = AskedEntry(name, await self._answering.read(parse_said, body, caller))
        (outcome,) = await self._answering.acknowledge(Consumer(owner, caller, lease), [entry])
        self._note(owner, [entry], [outcome])
        if isinstance(outcome, AMTPError):
            raise outcome
        if outcome.result is not Result.ACKNOWLEDGED:
            raise AMTPError(*FAULTS[outcome.result])
        return answer_json(render_result(entry, outcome))

    async def acknowledge_many(self, request: Request) -> Answer:
        caller, owner = await self._opened(request)
        body = await request.json_body(self._answer_bytes_max)
        entries, lease = await self._answering.read(parse_names, body, caller)
        outcomes = await self._answering.acknowledge(Consumer(owner, caller, lease), entries)
        self._note(owner, entries, outcomes)
        return answer_json(render_results(entries, outcomes))

    async def renew(self, request: Request) -> Answer:
        """Extends a lease, or ends it now."""
        owner = await self._owner(request)
        renewal = parse_renewal(await request.json_body(BODY_BYTES_MAX), self._rules)
        if renewal.seconds:
            held = await inbox.renew(self._database, owner.id, renewal.lease, renewal.seconds)
        else:
            held = await inbox.give_back(self._database, owner.id, renewal.lease)
            self._bell.ring([owner.id])
        if not held:
            raise AMTPError(
                Code.CONFLICT, "That lease holds nothing: it has ended, or all of it is acknowledged."
            )
        return answer_json({"lease": str(renewal.lease), "seconds": renewal.seconds, "message_count": held})

    async def list_dead_letters(self, request: Request) -> Answer:
        """Lists the dead letters of the inbox: messages leased too often without an acknowledgement."""
        owner = await self._owner(request)
        after, limit = dead_letter_page(request.query)
        shown, has_more = await undigested(
            self._database, owner.id, after=after, limit=limit, bytes_max=self._page_bytes_max
        )
        about = {
            "count": len(shown),
            "has_more": has_more,
            "cursor": str(shown[-1].number) if shown else None,
        }
        items = b",".join(render_dead_letter(letter, owner.name) for letter in shown)
        return Answer(200, b'{"dead_letters":[%b],%b' % (items, encode_json(about)[1:]), JSON)

    async def replay_dead_letter(self, request: Request) -> Answer:
        owner = await self._owner(request)
        number = dead_letter_number(request.params["number"])
        if not await revive(self._database, owner.id, number):
            raise _no_such_letter()
        self._bell.ring([owner.id])
        return answer_json(self._done(number, "replayed"))

    async def drop_dead_letter(self, request: Request) -> Answer:
        owner = await self._owner(request)
        number = dead_letter_number(request.params["number"])
        if not await drop(self._database, owner.id, number):
            raise _no_such_letter()
        return answer_json(self._done(number, "deleted"))

    async def _owner(self, request: Request) -> Resident:
        """Returns the owner of the inbox; raises if the caller may not open it."""
        return (await self._opened(request))[1]

    async def _opened(self, request: Request) -> tuple[Caller, Resident]:
        """Returns the caller and the owner of the inbox; raises if the caller may not open it."""
        address = parse_address(request.params["address"], "address")
        caller = await self._authenticator.caller(request)
        inbox_rule(caller, address)
        resident = (await self._residents.resolve([address.name])).get(address.name)
        if resident is None:
            raise AMTPError(Code.AGENT_UNKNOWN, f"No agent {address.name} is registered here.")
        if caller.agent is not None:
            self._activity.saw(resident.id)
        return caller, resident

    async def _awaited(
        self, request: Request, owner: Resident, question: Question, lease: Lease | None
    ) -> Page:
        """Waits for a page that is not empty; returns an empty one after the timeout or when the client is gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + question.wait_seconds
        with (
            self._waits.held(request.holder),
            self._bell.ear(owner.id) as ear,
            hushed_at(request.ending, ear),
            self._held_open.listening(_admitting(owner), ear),
        ):
            while True:
                page = await self._fetch(owner, question.listing, lease, self._page_bytes_max)
                if page.items and lease and request.gone:  # else they stay hidden until it ends
                    await inbox.give_back(self._database, owner.id, lease.token)
                    return Page((), has_more=False)
                left = deadline - loop.time()
                if page.items or left <= 0:
                    return page
                await ear.rung(await self._pause(owner, left))
                if request.ending.is_set():
                    return page
                owner = await self._owner(request)

    async def _events(
        self, request: Request, owner: Resident, question: Question, last: str | None
    ) -> AsyncGenerator[bytes, None]:
        """Yields an empty piece once it is counted, then all open messages, then new unread ones. On an error the stream
        ends; its client reconnects and gets the error as the answer."""
        listing = question.listing
        unread = Listing(listing.limit, since=listing.since, mark=Mark.UNREAD)
        time = asyncio.get_running_loop().time
        look_at = known_until = time()
        with (
            self._waits.held(request.holder),
            self._streams.opened(owner.id, request),
            self._straight.hand(owner.id, self._willing(question)) as hand,
            self._held_open.listening(_admitting(owner), hand),
            suppress(AMTPError),
        ):
            yield b""
            yield b"retry: %d\n\n" % RECONNECT_MILLISECONDS
            while True:
                lease = question.lease()
                page = await self._fetch(owner, listing, lease, STREAM_PAGE_BYTES)
                new = [item for item in page.items if lease is not None or str(item.row) != last]
                after = page.items[-1].row if page.has_more else None
                del page  # frees the messages; `new` keeps only those to send
                pieces = _pieces(new, owner, lease)
                while piece := next(pieces, None):
                    yield piece
                hand.caught_up = after is None
                if after is not None:
                    if lease is None:  # with a lease, listed messages drop out of the next listing
                        listing = replace(listing, offset=0, after=after)
                    owner = await self._owner(request)
                    continue
                listing, last = unread, None
                if (now := time()) >= known_until:
                    look_at = now + await self._pause(owner, STREAM_LOOK_SECONDS)
                    known_until = min(look_at, now + LEASES_KNOWN_SECONDS)
                while True:
                    rung = await hand.rung(look_at - time())
                    owner = await self._owner(request)
                    if given := hand.take():
                        self._journal.fetched(owner.name, len(given))
                        pieces = _pieces(given, owner, None)
                        while piece := next(pieces, None):
                            yield piece
                    if rung or time() >= look_at:
                        break

    def _willing(self, question: Question) -> Callable[[], bool]:
        """Returns a check: may new messages skip the query? Not if leased, or if others are told of reads."""
        plain = question.lease_seconds is None and question.listing.since is None
        return lambda: plain and self._interests.idle

    async def _fetch(self, owner: Resident, listing: Listing, lease: Lease | None, bytes_max: int) -> Page:
        page = await inbox.fetch(
            self._database,
            owner.id,
            listing,
            lapses_max=self._rules.poison_lapses,
            bytes_max=bytes_max,
            lease=lease,
            riders=None if self._interests.idle else partial(self._interests.read, owner.name),
        )
        if page.items:
            self._journal.fetched(owner.name, len(page.items))
        return page

    async def _pause(self, owner: Resident, seconds: float) -> float:
        """Returns how long to wait for a ring: at most until the next lease ends, which causes no ring."""
        ends = await inbox.seconds_to_lease_end(self._database, owner.id)
        return seconds if ends is None else min(seconds, ends + LEASE_SLACK_SECONDS)

    def _note(self, owner: Resident, entries: Sequence[AskedEntry], outcomes: Sequence[Outcome]) -> None:
        done = [
            entry.name.message_id
            for entry, outcome in zip(entries, outcomes, strict=True)
            if isinstance(outcome, Acknowledgement)
            and outcome.result is Result.ACKNOWLEDGED
            and not outcome.again
        ]
        if done:
            self._journal.acknowledged(owner.name, done)

    def _done(self, number: int, status: str) -> dict[str, Any]:
        return {"dead_letter": number, "status": status, "timestamp": render_timestamp(self._clock.now())}


def _admitting(owner: Resident) -> tuple[str, ...]:
    """Returns the names whose change may end the right to read this inbox."""
    return (owner.name, NAMED_KEYS) if owner.name.startswith(f"{POSTMASTER}@") else (owner.name,)


def _pieces(items: list[Item], owner: Resident, lease: Lease | None) -> Iterator[bytes]:
    """Yields the items as events and removes each from the list, so that none is held in memory twice."""
    items.reverse()
    return together(render_event(items.pop(), owner.name, lease) for _ in range(len(items)))


def _no_such_letter() -> AMTPError:
    return AMTPError(Code.NOT_FOUND, "This inbox has no open dead letter of that number.")
