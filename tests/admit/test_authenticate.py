"""Who is calling: keys and places, against a real register of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest

from gateway.admit.api_key import ApiKey, mint_key
from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.admit.remembered import DirectoryWatch
from gateway.journal.journal import Journal
from gateway.net.shares import Holder
from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.agents import Agents, Profile
from gateway.store.agents.keys import NamedKeys, NewKey, directory_changes
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database

CLIENT = "192.0.2.7"
LOCAL_HOST = ("Host", "localhost:8080")


class House:
    """An agent, an operator and a process that authenticates them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.watch = DirectoryWatch(partial(directory_changes, database))
        self.authenticator = self.authenticate(database, clock, development=False)
        self.development = self.authenticate(database, clock, development=True)
        self.agents = Agents(database, Audit(uuid4()))
        self.named = NamedKeys(database, Audit(uuid4()))
        self.alice, self.admin = mint_key(), mint_key()

    def authenticate(self, database: Database, clock: Clock, *, development: bool) -> Authenticator:
        peers = {"far.test": "a secret from the configuration"}
        journal = Journal(io.StringIO())
        return Authenticator(database, self.watch, clock, journal, development=development, peers=peers)

    async def furnish(self) -> None:
        await self.agents.register("alice", "acme.test", Profile(), new(self.alice), "ops")
        await self.named.add(new(self.admin), "laptop", ["admin"], "ops")

    async def caller(self, *headers: tuple[str, str], client: str = CLIENT) -> Caller:
        return await self.authenticator.caller(Asking(headers, client))


@dataclass(frozen=True)
class Asking:
    """A request, as far as it tells who sent it."""

    headers: Sequence[tuple[str, str]] = ()
    client: str = CLIENT
    roles: frozenset[str] = frozenset({"public", "agents", "admin"})
    authority: str | None = None
    same_user: bool = True
    holders: list[Holder] = field(default_factory=list)

    def header_values(self, name: str) -> list[str]:
        return [value for given, value in self.headers if given.lower() == name.lower()]

    def belongs_to(self, holder: Holder) -> None:
        self.holders.append(holder)


def new(key: ApiKey) -> NewKey:
    return NewKey(key.id, key.digest)


@pytest.fixture
async def house(database: Database, clock: Clock) -> House:
    built = House(database, clock)
    await built.furnish()
    return built


async def refusal(house: House, *headers: tuple[str, str]) -> AMTPError:
    with pytest.raises(AMTPError) as refused:
        await house.caller(*headers)
    assert refused.value.code is Code.AUTHENTICATION_FAILED
    return refused.value


@pytest.mark.parametrize("header", ["X-API-Key", "x-api-key", "Authorization", "AUTHORIZATION"])
async def test_an_agents_key_proves_the_agent(house: House, header: str) -> None:
    value = f"bearer {house.alice.text}" if header.lower() == "authorization" else house.alice.text
    caller = await house.caller((header, value))

    assert caller == Caller(CLIENT, "alice@acme.test", frozenset({"agent"}), house.alice.id, house.alice.id)


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization", "X-Admin-Key"])
async def test_an_operators_key_proves_its_name_and_scopes(house: House, header: str) -> None:
    value = f"Bearer {house.admin.text}" if header == "Authorization" else house.admin.text
    caller = await house.caller((header, value))

    assert caller == Caller(CLIENT, None, frozenset({"admin"}), "laptop", house.admin.id)


async def test_the_admin_header_takes_admin_keys_alone(house: House) -> None:
    await refusal(house, ("X-Admin-Key", house.alice.text))


@pytest.mark.parametrize(
    ("headers", "holder"),
    [
        ([("X-API-Key", "alice")], Holder(owner="alice@acme.test")),
        ([("X-API-Key", "admin")], Holder(owner="laptop")),
        ([("X-API-Key", "a secret from the configuration")], Holder(owner="far.test")),
        ([], Holder(CLIENT)),
    ],
)
async def test_a_request_holds_what_it_holds_for_its_caller(
    house: House, headers: list[tuple[str, str]], holder: Holder
) -> None:
    keys = {"alice": house.alice.text, "admin": house.admin.text}
    asking = Asking([(name, keys.get(value, value)) for name, value in headers])
    await house.authenticator.caller(asking)
    assert asking.holders == [holder]


async def test_each_caller_is_told_with_its_own_client_address(house: House) -> None:
    header = ("X-API-Key", house.alice.text)
    one = await house.caller(header)
    other = await house.caller(header, client="198.51.100.9")

    assert other == replace(one, address="198.51.100.9")
    assert await house.caller(header) == one


async def test_who_presents_nothing_is_anonymous(house: House) -> None:
    assert await house.caller() == Caller(CLIENT)


async def test_a_peer_presents_the_secret_of_its_domain(house: House) -> None:
    caller = await house.caller(("Authorization", "Bearer a secret from the configuration"))

    assert (caller.proven_domain, caller.agent, caller.known) == ("far.test", None, True)
    await refusal(house, ("Authorization", "Bearer a secret from somewhere else"))


async def test_a_named_key_may_prove_a_peer(house: House) -> None:
    key = mint_key()
    await house.named.add(new(key), "far", ["peer:far.test"], "ops")

    assert (await house.caller(("X-API-Key", key.text))).proven_domain == "far.test"


async def test_the_same_key_twice_is_one_key(house: House) -> None:
    key = house.alice.text
    caller = await house.caller(("X-API-Key", key), ("Authorization", f"Bearer {key}"))

    assert caller.agent == "alice@acme.test"


async def test_different_keys_are_refused_even_where_each_is_right(house: House) -> None:
    error = await refusal(house, ("X-API-Key", house.alice.text), ("X-Admin-Key", house.admin.text))

    assert "several" in error.message


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Basic YTpi"),
        ("Authorization", "Bearer"),
        ("Authorization", ""),
        ("X-API-Key", ""),
        ("X-API-Key", "amtp_"),
        ("X-Admin-Key", "nonsense"),
    ],
)
async def test_a_key_that_is_given_must_be_right(house: House, header: tuple[str, str]) -> None:
    await refusal(house, header)


async def test_an_unknown_id_and_a_wrong_secret_get_the_same_answer(house: House) -> None:
    unknown = await refusal(house, ("X-API-Key", mint_key().text))
    forged = house.alice.text[:-43] + mint_key().text[-43:]
    wrong = await refusal(house, ("X-API-Key", forged))
    await house.caller(("X-API-Key", house.alice.text))
    wrong_while_the_right_one_is_remembered = await refusal(house, ("X-API-Key", forged))

    assert unknown.message == wrong.message == wrong_while_the_right_one_is_remembered.message
    assert unknown.details == wrong.details


async def test_a_revoked_key_is_dead_once_the_change_is_seen(house: House) -> None:
    header = ("X-API-Key", house.alice.text)
    await house.caller(header)
    await house.agents.retire("alice@acme.test", "ops")
    house.watch.forget("alice@acme.test")

    await refusal(house, header)


async def test_a_key_in_its_grace_dies_on_time_though_it_is_remembered(house: House, clock: Clock) -> None:
    header = ("X-API-Key", house.alice.text)
    await house.agents.rotate_key("alice@acme.test", new(mint_key()), 60, "ops")
    await house.caller(header)
    clock.offset += timedelta(seconds=61)

    await refusal(house, header)


async def test_a_remembered_key_costs_no_question(house: House, database: Database) -> None:
    header = ("X-API-Key", house.alice.text)
    first = await house.caller(header)
    await database.close()

    assert await house.caller(header) is first


async def test_in_development_a_program_on_this_machine_needs_no_key(house: House) -> None:
    caller = await house.development.caller(Asking([LOCAL_HOST], "127.0.0.1"))

    assert caller == Caller("127.0.0.1", development=True)


@pytest.mark.parametrize(
    ("authority", "same_user", "believed"),
    [
        ("localhost:8080", True, True),
        ("127.0.0.1", True, True),
        ("evil.test", True, False),
        ("evil.test@127.0.0.1", True, False),
        (None, False, False),
    ],
)
async def test_in_development_neither_another_users_program_nor_another_hosts_target_is_believed(
    house: House, authority: str | None, same_user: bool, believed: bool
) -> None:
    asking = Asking([LOCAL_HOST], "127.0.0.1", authority=authority, same_user=same_user)

    assert (await house.development.caller(asking)).development is believed


async def test_in_development_a_key_that_is_given_counts_alone(house: House) -> None:
    right = Asking([LOCAL_HOST, ("X-API-Key", house.alice.text)], "127.0.0.1")
    wrong = Asking([LOCAL_HOST, ("X-API-Key", mint_key().text)], "127.0.0.1")

    caller = await house.development.caller(right)
    assert (caller.agent, caller.development) == ("alice@acme.test", False)
    with pytest.raises(AMTPError):
        await house.development.caller(wrong)


async def test_without_development_mode_this_machine_is_anonymous_too(house: House) -> None:
    caller = await house.caller(LOCAL_HOST, client="127.0.0.1")

    assert not caller.development
