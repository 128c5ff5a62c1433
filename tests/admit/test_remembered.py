"""What is remembered of the directory, and that it is forgotten in time."""

import asyncio
from collections.abc import Collection, Mapping
from time import monotonic

import pytest

from gateway.admit import remembered as directory
from gateway.admit.remembered import DirectoryWatch, Remembered
from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.keys import Changes


class Register:
    """A directory to be asked: what stands in it, what it was asked, and a gate that keeps an answer back."""

    def __init__(self) -> None:
        self.version = 1
        self.changes: list[tuple[int, str]] = []
        self.things = {"alice": "a", "bob": "b"}
        self.asked: list[set[str]] = []
        self.being_asked = asyncio.Event()
        self.looked_at = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: AMTPError | None = None

    def change(self, *names: str) -> Changes:
        """Another process changes these; returns what a look sees of that."""
        self.version += 1
        self.changes += [(self.version, name) for name in names]
        return Changes(self.version, [(self.version, name) for name in names])

    async def look(self, since: int | None) -> Changes:
        self.looked_at.set()
        if self.failure:
            raise self.failure
        return Changes(self.version, [change for change in self.changes if since and change[0] > since])

    async def find(self, names: Collection[str]) -> tuple[int, Mapping[str, str]]:
        self.asked.append(set(names))
        self.being_asked.set()
        read = self.version, {name: self.things[name] for name in names if name in self.things}
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return read


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
def watch(register: Register) -> DirectoryWatch:
    return DirectoryWatch(register.look)


@pytest.fixture
def remembered(register: Register, watch: DirectoryWatch) -> Remembered[str, str]:
    return Remembered(watch, register.find, lambda name, _: (name, "everyone"))


async def test_what_was_found_is_not_asked_for_again(
    register: Register, remembered: Remembered[str, str]
) -> None:
    for _ in range(3):
        assert await remembered.find(["alice", "bob"]) == {"alice": "a", "bob": "b"}

    assert register.asked == [{"alice", "bob"}]


async def test_what_is_missing_is_asked_for_every_time(
    register: Register, remembered: Remembered[str, str]
) -> None:
    assert await remembered.find(["alice", "carol"]) == {"alice": "a"}
    register.things["carol"] = "c"  # by another process, whose change was not noticed here yet

    assert await remembered.find(["alice", "carol"]) == {"alice": "a", "carol": "c"}
    assert register.asked == [{"alice", "carol"}, {"carol"}]


async def test_a_change_that_is_seen_makes_whom_it_concerns_forgotten_and_nobody_else(
    register: Register, watch: DirectoryWatch, remembered: Remembered[str, str]
) -> None:
    await remembered.find(["alice", "bob"])
    register.things["alice"] = "new"
    watch.seen(register.change("alice", "carol"), monotonic())

    assert remembered.recall("alice") is None
    assert remembered.recall("bob") == "b"
    assert await remembered.find(["alice", "bob"]) == {"alice": "new", "bob": "b"}
    assert register.asked == [{"alice", "bob"}, {"alice"}]


async def test_a_thing_is_forgotten_by_each_name_that_it_concerns(
    register: Register, watch: DirectoryWatch, remembered: Remembered[str, str]
) -> None:
    await remembered.find(["alice", "bob"])
    watch.seen(register.change("everyone"), monotonic())

    assert (remembered.recall("alice"), remembered.recall("bob")) == (None, None)


async def test_where_it_is_not_known_who_changed_everything_is_forgotten(
    register: Register, watch: DirectoryWatch, remembered: Remembered[str, str]
) -> None:
    await remembered.find(["alice", "bob"])
    watch.seen(Changes(2, None), monotonic())

    assert (remembered.recall("alice"), remembered.recall("bob")) == (None, None)


async def test_what_was_read_after_a_change_stays_when_the_change_is_seen(
    register: Register, watch: DirectoryWatch, remembered: Remembered[str, str]
) -> None:
    await remembered.find(["bob"])
    register.things["alice"] = "new"
    change = register.change("alice")
    await remembered.find(["alice"])
    watch.seen(change, monotonic())

    assert remembered.recall("alice") == "new"


async def test_nothing_is_believed_when_the_last_look_is_too_old(
    register: Register,
    watch: DirectoryWatch,
    remembered: Remembered[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await remembered.find(["alice"])
    monkeypatch.setattr(directory, "monotonic", lambda: monotonic() + directory.TRUST_SECONDS)

    assert remembered.recall("alice") is None
    assert await remembered.find(["alice"]) == {"alice": "a"}
    assert len(register.asked) == 2


async def test_a_change_made_here_counts_at_once(
    register: Register, watch: DirectoryWatch, remembered: Remembered[str, str]
) -> None:
    await remembered.find(["alice"])
    looked_at = monotonic()
    register.change("alice")
    register.things = {"alice": "new"}
    watch.forget("alice")
    watch.seen(Changes(1), looked_at)  # the answer to a look that began before the change

    assert remembered.recall("alice") is None
    assert await remembered.find(["alice"]) == {"alice": "new"}


async def test_an_answer_from_before_a_change_is_not_remembered(
    register: Register, watch: DirectoryWatch, remembered: Remembered[str, str]
) -> None:
    register.gate.clear()
    finding = asyncio.create_task(remembered.find(["alice"]))
    await register.being_asked.wait()
    register.things = {}
    watch.seen(register.change("alice"), monotonic())
    register.gate.set()

    assert await finding == {"alice": "a"}
    assert remembered.recall("alice") is None


async def test_an_answer_from_before_a_change_made_here_is_not_remembered(
    register: Register, watch: DirectoryWatch, remembered: Remembered[str, str]
) -> None:
    await remembered.find(["bob"])
    register.gate.clear()
    register.being_asked.clear()
    finding = asyncio.create_task(remembered.find(["alice"]))
    await register.being_asked.wait()
    watch.forget("alice")
    register.gate.set()

    assert await finding == {"alice": "a"}
    assert remembered.recall("alice") is None


async def test_those_who_come_while_a_question_is_open_share_the_next(
    register: Register, remembered: Remembered[str, str]
) -> None:
    register.gate.clear()
    finding = [asyncio.create_task(remembered.find([f"n{number}"])) for number in range(50)]
    await register.being_asked.wait()
    finding += [asyncio.create_task(remembered.find(["alice"])) for _ in range(50)]
    await asyncio.sleep(0)
    register.gate.set()
    answers = await asyncio.gather(*finding)

    assert answers[-1] == {"alice": "a"}
    assert len(register.asked) <= 2


async def test_a_caller_who_hangs_up_leaves_the_question_to_the_others(
    register: Register, remembered: Remembered[str, str]
) -> None:
    register.gate.clear()
    first = asyncio.create_task(remembered.find(["alice"]))
    second = asyncio.create_task(remembered.find(["alice"]))
    await register.being_asked.wait()
    first.cancel()
    register.gate.set()

    assert await second == {"alice": "a"}


async def test_a_failure_reaches_everyone_who_waited_and_is_not_remembered(
    register: Register, remembered: Remembered[str, str]
) -> None:
    register.failure = AMTPError(Code.TEMPORARY_FAILURE, "away")
    register.gate.clear()
    finding = [asyncio.create_task(remembered.find(["alice"])) for _ in range(5)]
    await register.being_asked.wait()
    register.gate.set()
    failed = await asyncio.gather(*finding, return_exceptions=True)
    register.failure = None

    assert [type(answer) for answer in failed] == [AMTPError] * 5
    assert len(register.asked) <= 2
    assert await remembered.find(["alice"]) == {"alice": "a"}


async def test_more_unknown_names_than_the_limit_are_refused(
    remembered: Remembered[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "ASKED_AT_ONCE_MAX", 10)

    with pytest.raises(AMTPError) as refused:
        await remembered.find([str(number) for number in range(11)])

    assert refused.value.code is Code.QUEUE_FULL


async def test_memory_is_bounded(
    register: Register, remembered: Remembered[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "REMEMBERED_MAX", 10)
    register.things = {str(number): "x" for number in range(100)}
    for number in range(100):
        await remembered.find([str(number)])

    assert len(remembered._things) <= 10


async def test_the_watch_sees_a_change_and_outlives_a_failing_look(
    register: Register, watch: DirectoryWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "LOOK_SECONDS", 0.0)
    register.failure = AMTPError(Code.TEMPORARY_FAILURE, "away")
    looking = asyncio.create_task(watch.run())

    seen = []
    for version, failure in ((1, register.failure), (1, None), (2, None)):
        register.version, register.failure = version, failure
        for _ in range(2):  # the first look may have begun before
            register.looked_at.clear()
            await register.looked_at.wait()
        seen.append(watch.version)
    looking.cancel()

    assert seen == [None, 1, 2]
