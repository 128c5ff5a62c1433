"""What became of a message is told from the rows that say so, to the last recipient."""

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from gateway.protocol.errors import Code
from gateway.protocol.status import RecipientState, Status
from gateway.store.audit import verify
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.messages import listing
from gateway.store.messages.listing import MessagePage
from gateway.store.messages.messages import body_of, find, states
from gateway.store.queue import destinations
from gateway.store.queue.cancellation import Cancellation
from gateway.store.queue.settle import Settlement, settle
from gateway.store.row_ids import Mint
from tests.store.house import REASON, TOKEN, House


def rows_of(page: MessagePage) -> list[UUID]:
    return [found.row for found in page.messages]


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


async def test_a_recipient_whose_inbox_is_here_is_delivered_by_the_commit(house: House) -> None:
    row = await house.send(to=[await house.agent("bob")])
    accepted_at = await house.database.fetchval("select accepted_at from messages where id = $1", row)
    assert await house.states(row) == {
        "bob@acme.test": RecipientState(
            "bob@acme.test",
            Status.DELIVERED,
            timestamp=accepted_at,
            delivered_at=accepted_at,
            attempts=1,
            via="inbox",
        )
    }


async def test_a_scheduled_recipient_is_delivered_when_it_was_not_when_it_was_accepted(house: House) -> None:
    bob = await house.agent("bob")
    row = await house.send("bob@acme.test", due=600)
    house.turn(601)
    await house.lease()
    await house.end(row, "bob@acme.test", agent=bob)
    (state,) = (await house.states(row)).values()
    assert state.status is Status.DELIVERED
    assert state.delivered_at is not None
    assert timedelta(0) <= house.clock.now() - state.delivered_at < timedelta(seconds=60)


async def test_a_queued_recipient_shows_when_it_is_tried_next_and_why_not_yet(house: House) -> None:
    row = await house.send("Carol+x@peer.test", due=60)
    state = (await house.states(row))["carol@peer.test"]
    assert (state.address, state.status, state.attempts) == ("Carol+x@peer.test", Status.QUEUED, 0)
    assert state.next_retry is not None
    assert state.next_retry > house.clock.now() + timedelta(seconds=50)
    house.turn(61)
    await house.lease()
    later = house.clock.now() + timedelta(hours=1)
    await house.end(row, "carol@peer.test", due=later, code="RECIPIENT_UNAVAILABLE", error="It is away.")
    state = (await house.states(row))["carol@peer.test"]
    assert (state.next_retry, state.last_error, state.attempts) == (later, "It is away.", 1)


async def test_a_recipient_behind_a_closed_destination_shows_its_reason(
    house: House,
) -> None:
    row = await house.send("carol@peer.test")
    until = house.clock.now() + timedelta(minutes=5)
    await destinations.note_failure(house.database, "peer.test", 3, until, "It does not answer.")
    state = (await house.states(row))["carol@peer.test"]
    assert (state.last_error, state.next_retry) == ("It does not answer.", until)


async def test_a_failed_recipient_shows_code_and_reason(house: House) -> None:
    row = await house.send("carol@peer.test")
    await house.lease()
    await house.end(
        row, "carol@peer.test", status="failed", code="RECIPIENT_NOT_FOUND", error="Nobody.", via="amtp:peer"
    )
    state = (await house.states(row))["carol@peer.test"]
    assert (state.status, state.error) == (Status.FAILED, (Code.RECIPIENT_NOT_FOUND, "Nobody."))
    assert (state.last_error, state.via, state.delivered_at) == ("Nobody.", "amtp:peer", None)


async def test_many_messages_are_told_in_one_question(house: House) -> None:
    bob = await house.agent("bob")
    one, other = await house.send("carol@peer.test", to=[bob]), await house.send(to=[bob])
    told = await states(house.database, [one, other, house.mint()])
    assert {row: set(of) for row, of in told.items()} == {
        one: {"bob@acme.test", "carol@peer.test"},
        other: {"bob@acme.test"},
    }


async def test_a_message_is_found_by_the_id_that_was_minted_here(house: House) -> None:
    row = await house.send(to=[await house.agent("bob")])
    (found,) = await find(house.database, str(row))
    assert (found.row, found.message_id, found.sender) == (row, str(row), "alice@acme.test")
    assert await find(house.database, str(row).upper()) == []
    assert await find(house.database, str(house.mint())) == []


async def test_a_row_is_not_the_id_of_a_message_that_has_one_of_its_own(house: House) -> None:
    row = await house.send("x@peer.test", message_id="order-1")
    assert await find(house.database, str(row)) == []
    (found,) = await find(house.database, "order-1")
    assert found.row == row


async def test_of_two_senders_of_one_id_the_own_comes_first_and_another_may_be_chosen(house: House) -> None:
    mine = await house.send("x@peer.test", message_id="x")
    theirs = await house.send("x@peer.test", message_id="x", sender="eve@peer.test")
    assert [f.row for f in await find(house.database, "x", own="alice@acme.test")] == [mine, theirs]
    assert [f.row for f in await find(house.database, "x")] == [theirs, mine]
    assert [f.row for f in await find(house.database, "x", sender="alice@acme.test")] == [mine]


async def test_the_body_is_what_was_stored(house: House) -> None:
    row = await house.send("x@peer.test", message_id="x", subject="hello")
    body = await body_of(house.database, row)
    assert body is not None
    assert msgspec.json.decode(body)["subject"] == "hello"
    assert await body_of(house.database, house.mint()) is None


async def test_a_list_is_newest_first_and_its_cursor_leads_on(house: House) -> None:
    bob = await house.agent("bob")
    rows = [await house.send(to=[bob]) for _ in range(5)]
    first = await house.list(limit=2)
    assert rows_of(first) == [rows[4], rows[3]]
    assert first.cursor == rows[3]
    rest = await house.list(limit=3, before=first.cursor)
    assert rows_of(rest) == [rows[2], rows[1], rows[0]]
    assert rest.cursor is None
    assert rows_of(await house.list(limit=2, offset=3)) == [rows[1], rows[0]]


async def test_a_list_is_narrowed_by_sender_and_recipient(house: House) -> None:
    bob, carol = await house.agent("bob"), await house.agent("carol")
    to_bob = await house.send(to=[bob])
    to_carol = await house.send(to=[carol])
    from_dan = await house.send(to=[bob], sender="dan")
    out = await house.send("eve@peer.test")
    assert rows_of(await house.list(sender="alice@acme.test")) == [out, to_carol, to_bob]
    assert rows_of(await house.list(recipient="bob@acme.test")) == [from_dan, to_bob]
    assert rows_of(await house.list(recipient="eve@peer.test")) == [out]
    assert rows_of(await house.list(sender="dan@acme.test", recipient="bob@acme.test")) == [from_dan]
    assert rows_of(await house.list(sender="dan@acme.test", recipient="carol@acme.test")) == []


async def test_a_list_begins_where_since_says(house: House) -> None:
    bob = await house.agent("bob")
    await house.send(to=[bob])
    house.turn(3600)
    since = house.clock.now() - timedelta(minutes=1)
    late = await house.send(to=[bob])
    assert rows_of(await house.list(since=since)) == [late]
    assert rows_of(await house.list(since=house.clock.now() + timedelta(days=1))) == []


async def messages_of_every_status(house: House) -> dict[str, UUID]:
    bob = await house.agent("bob")
    delivered = await house.send(to=[bob])
    failed, partial = await house.send("x@peer.test"), await house.send("x@peer.test", to=[bob])
    expired = await house.send("x@peer.test")
    await house.lease()
    for row in (failed, partial):
        await house.end(row, "x@peer.test", status="failed", code="RECIPIENT_NOT_FOUND", error="No.")
    await house.end(expired, "x@peer.test", status="expired")
    sent = await house.send("y@peer.test", to=[bob])
    await house.lease()
    await house.end(sent, "y@peer.test", status="delivered", via="amtp:peer")
    queued = await house.send("x@peer.test", to=[bob])
    return {
        "delivered": delivered,
        "failed": failed,
        "partial": partial,
        "expired": expired,
        "sent": sent,
        "queued": queued,
    }


async def test_a_list_of_one_status_holds_the_messages_that_have_it(house: House) -> None:
    rows = await messages_of_every_status(house)
    for narrower in ({}, {"sender": "alice@acme.test"}):
        listed = {
            status: rows_of(await house.list(status=status, **narrower))
            for status in ("queued", "delivered", "failed", "partial")
        }
        assert listed == {
            "queued": [rows["queued"]],
            "delivered": [rows["sent"], rows["delivered"]],
            "failed": [rows["expired"], rows["failed"]],
            "partial": [rows["partial"]],
        }
        for status, found in listed.items():
            assert {await house.status(row) for row in found} == {status}


async def test_for_a_recipient_alone_a_message_has_the_status_of_that_recipient(house: House) -> None:
    rows = await messages_of_every_status(house)
    page = await house.list(status="delivered", recipient="bob@acme.test", alone=True)
    assert rows_of(page) == [rows["queued"], rows["sent"], rows["partial"], rows["delivered"]]
    assert rows_of(await house.list(status="partial", recipient="bob@acme.test")) == [rows["partial"]]
    assert rows_of(await house.list(status="queued", recipient="bob@acme.test", alone=True)) == []


async def test_a_page_looks_at_a_bounded_number_of_messages_and_tells_where_to_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await house.agent("bob")
    lost = await house.send("x@peer.test")
    await house.lease()
    await house.end(lost, "x@peer.test", status="failed", code="RECIPIENT_NOT_FOUND", error="No.")
    await house.database.execute(
        "with m as (insert into messages (id, sender, proven, body, accepted_at)"
        " select (lpad(to_hex((extract(epoch from amtp_now()) * 1000)::bigint), 12, '0') || '7fff8'"
        "        || lpad(to_hex(n), 15, '0'))::uuid, 'alice@acme.test', true, '', amtp_now()"
        " from generate_series(1, $2::int) n returning id)"
        " insert into entries (message, agent) select id, $1 from m",
        bob,
        listing.SCANNED_MAX,
    )
    page = await house.list(status="failed", sender="alice@acme.test")
    assert page.messages == ()
    assert page.cursor is not None
    page = await house.list(status="failed", sender="alice@acme.test", before=page.cursor)
    assert (rows_of(page), page.cursor) == ([lost], None)


async def test_cancelling_ends_what_waits_and_the_books_still_balance(house: House) -> None:
    row = await house.send("x@peer.test", "y@peer.test", to=[await house.agent("bob")], due=600)
    assert await house.cancel(row) == Cancellation(("x@peer.test", "y@peer.test"), ())
    told = await house.states(row)
    assert {name: state.status.value for name, state in told.items()} == {
        "bob@acme.test": "delivered",
        "x@peer.test": "cancelled",
        "y@peer.test": "cancelled",
    }
    assert told["x@peer.test"].last_error == REASON
    assert await house.balance() == (3, 3, 0)
    events = await house.database.fetch("select event, recipient, actor from events order by recipient")
    assert [tuple(event) for event in events] == [
        ("cancelled", "x@peer.test", "alice@acme.test"),
        ("cancelled", "y@peer.test", "alice@acme.test"),
    ]
    assert await house.cancel(row) == Cancellation((), ())


async def test_a_delivery_under_way_is_not_cancelled_until_its_lease_ran_out(house: House) -> None:
    row = await house.send("x@peer.test")
    await house.lease(seconds=30)
    assert await house.cancel(row) == Cancellation((), ("x@peer.test",))
    assert await house.balance() == (1, 0, 1)
    house.turn(31)
    assert await house.cancel(row) == Cancellation(("x@peer.test",), ())
    async with house.database.transaction() as connection:
        late = Settlement(row, "x@peer.test", "x@peer.test", TOKEN, 1, None, status="delivered")
        assert await settle(connection, house.mint, [late]) == []
    assert (await house.states(row))["x@peer.test"].status is Status.CANCELLED
    assert await house.balance() == (1, 1, 0)


async def test_a_held_delivery_is_cancelled(house: House) -> None:
    row = await house.send("x@peer.test")
    await house.database.execute("update deliveries set state = 'held'")
    assert (await house.states(row))["x@peer.test"].status is Status.HELD
    assert (await house.cancel(row)).cancelled == ("x@peer.test",)


async def test_what_an_operator_cancels_is_in_the_audit(house: House) -> None:
    row = await house.send("x@peer.test")
    await house.cancel(row, operator=True)
    (written,) = await house.database.fetch("select actor, act, subject from audit")
    assert tuple(written) == ("alice@acme.test", "message.cancelled", str(row))
    assert await verify(house.database) == []
