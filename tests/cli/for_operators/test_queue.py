"""`amtp queue` and `amtp dead` against a running gateway: what they print, and how they end."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest
import typer
from typer.testing import Result

from gateway.cli.spans import seconds_of
from gateway.features.operations import queue
from tests.cli import command
from tests.cli.command import by_admin_key
from tests.store.house import TOKEN, House
from tests.world import Gateway, World


@dataclass
class Desk:
    """An operator's terminal. Mail to p.test is paused, so that it stays to be seen."""

    gateway: Gateway
    house: House

    async def amtp(self, *words: str) -> Result:
        return await command.amtp(by_admin_key(self.gateway) | {"COLUMNS": "250"}, *words)

    async def told(self, *words: str) -> str:
        result = await self.amtp(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    async def bury(self, *recipients: str) -> UUID:
        row = await self.house.send(*recipients, due=60)
        await self.house.database.execute(
            "update deliveries set token = $2, attempts = 1 where message = $1", row, TOKEN
        )
        for recipient in recipients:
            await self.house.end(
                row,
                recipient,
                status="failed",
                code="RECIPIENT_NOT_FOUND",
                error="No such name.",
                dead_letter=True,
            )
        return row


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    async with world.gateway() as gateway:
        desk = Desk(gateway, House(gateway.app.database, gateway.app.mint, gateway.app.clock))
        await desk.told("queue", "pause", "p.test", "--reason", "they move", "--for", "2h")
        yield desk


async def test_what_waits_is_listed_shown_and_steered(desk: Desk) -> None:
    row = await desk.house.send("x@p.test", "y@p.test", due=60)
    listed = await desk.told("queue", "list", "--domain", "p.test", "--limit", "1")
    assert str(row) in listed
    assert "p.test is paused: they move" in listed
    assert f"--cursor '{row}~x@p.test'" in listed
    assert "y@p.test" in await desk.told("queue", "list", "--cursor", f"{row}~x@p.test")
    assert await desk.told("queue", "hold", str(row), "--dry-run") == "2 of 2 would be held.\n"
    assert await desk.told("queue", "hold", str(row)) == "2 of 2 held.\n"
    assert "An operator holds it." in await desk.told("queue", "show", str(row))
    assert await desk.told("queue", "release", "--recipient", "x@p.test") == "1 of 1 released.\n"
    assert await desk.told("queue", "retry", "--all") == "0 of 2 made due.\n"
    cancelled = json.loads(await desk.told("queue", "cancel", "--sender", "alice@acme.test", "--json"))
    assert (cancelled["changed"], cancelled["matched"], cancelled["busy"]) == (2, 2, 0)


async def test_a_destination_is_explained_and_steered(desk: Desk) -> None:
    await desk.house.send("x@p.test", "y@p.test", due=3600)
    await desk.house.database.execute(
        "update deliveries set attempts = 2, last_error = 'Refused.', last_attempt = amtp_now()"
    )
    explained = await desk.told("queue", "explain", "p.test")
    assert "they move" in explained.splitlines()[0]
    assert "- 2 failed before and wait for their next attempt" in explained
    assert "Refused." in explained
    assert "paused by tests-" in await desk.told("queue", "destinations")
    assert "2 to be tried now." in await desk.told("queue", "flush", "p.test")
    assert "idle" in await desk.told("queue", "reset", "q.test")
    shape = await desk.told("queue", "shape")
    assert shape.split("\n")[1].split()[:3] == ["p.test", "2", "2"]
    await desk.told("queue", "hold", "--all")
    assert "State            idle" in await desk.told("queue", "resume", "p.test")


async def test_an_act_goes_on_until_everything_that_is_meant_is_changed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "CHANGED_MAX", 2)
    await desk.house.send("v@p.test", "w@p.test", "x@p.test", "y@p.test", "z@p.test", due=60)
    assert await desk.told("queue", "hold", "--destination", "p.test") == "5 of 5 held.\n"


async def test_dead_letters_are_listed_shown_replayed_and_purged(desk: Desk) -> None:
    row = await desk.bury("w@p.test", "x@p.test", "y@p.test", "z@p.test")
    letters = json.loads(await desk.told("dead", "list", "--json"))["dead_letters"]
    first, second, third, fourth = (str(letter["dead_letter"]) for letter in reversed(letters))
    assert "No such name." in await desk.told("dead", "list", "--domain", "p.test")
    shown = await desk.told("dead", "show", first)
    assert str(row) in shown
    assert '"payload"' not in shown
    assert "--reason" in shown
    whole = await desk.told("dead", "show", first, "--reason", "its sender asked")
    assert '"sender": "alice@acme.test"' in whole
    assert '"payload"' in whole
    assert await desk.told("dead", "replay", first, second) == "2 of 2 replayed.\n"
    assert (
        await desk.told("dead", "replay", "--recipient", "y@p.test", "--dry-run") == "1 would be replayed.\n"
    )
    assert await desk.told("dead", "replay", "--recipient", "y@p.test", "--rate", "5") == "1 of 1 replayed.\n"
    assert await desk.told("dead", "purge", fourth) == "1 of 1 purged.\n"
    assert await desk.told("dead", "purge", "--older-than", "0s", "--all") == "0 of 0 purged.\n"
    again = await desk.amtp("dead", "replay", third)
    assert (again.exit_code, "CONFLICT" in again.stderr) == (1, True)


async def test_a_late_replay_warns(desk: Desk) -> None:
    await desk.bury("x@p.test")
    desk.gateway.turn(15 * 86_400)
    result = await desk.amtp("dead", "replay", "--all")
    assert (result.exit_code, "14 days" in result.stderr) == (0, True)


async def test_what_is_not_meant_clearly_is_wrong_usage(desk: Desk) -> None:
    for words in (
        "queue cancel",
        "queue hold --dry-run",
        "dead purge",
        "dead replay --limit 5",
        "dead purge 1 --all",
        "queue list --older-than soon",
        "queue pause p.test",
    ):
        assert (await desk.amtp(*words.split())).exit_code == 2, words


def test_spans_are_written_short() -> None:
    assert [seconds_of(text) for text in ("90", "90s", "15m", "4h", "2d")] == [90, 90, 900, 14_400, 172_800]
    for text in ("", "m", "1w", "-1", "1.5h"):
        with pytest.raises(typer.BadParameter):
            seconds_of(text)
