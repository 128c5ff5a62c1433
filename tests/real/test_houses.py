"""Gateways as operators run them, each on a host of its own, over wires that take 50 ms and lose 5 % of the packets."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from time import monotonic
from typing import Any
from uuid import uuid4

import dns.flags
import pytest
import trustme

from gateway.admit.api_key import mint_key
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.sealed import KEY_FILE
from tests.conftest import Server
from tests.real.hosts import Internet, internet
from tests.real.houses import House, Resident, all_arrive_once
from tests.real.spoken import until
from tests.real.zones import SignedZone

DELAY_MS, JITTER_MS, LOSS_PERCENT = 50, 5, 5
PLOTS = ("one", "two", "three")


@dataclass
class Town:
    """Three hosts to build houses on, and one where the names are kept."""

    net: Internet
    names: SignedZone
    authority: trustme.CA
    folder: Path
    databases: list[tuple[str, str]]  # empty ones, and the key of their operator

    @contextmanager
    def house(self, plot: int, *domains: str, like: House | None = None) -> Iterator[House]:
        """On that host, furnished, proven and published; `like` shares another's database and domains."""
        dsn, key = (like.dsn, like.admin_key) if like else self.databases[plot]
        host = self.net.hosts[plot]
        house = House(
            host,
            like.domains if like else domains,
            self.folder / host.name,
            dsn,
            key,
            self.names,
            self.authority,
        )
        house.furnish()
        if like:  # gateways on one database share their key
            copy(like.folder / "data" / KEY_FILE, house.folder / "data" / KEY_FILE)
        house.prove()
        if like is None:
            house.publish()
        try:
            yield house
        finally:
            house.stop()

    @contextmanager
    def two_houses(self) -> Iterator[tuple[House, House]]:
        """Of acme.test and umbrella.test, nobody at home yet."""
        with self.house(0, "acme.test") as acme, self.house(1, "umbrella.test") as umbrella:
            yield acme, umbrella


@pytest.fixture
async def town(server: Server, tmp_path: Path) -> AsyncIterator[Town]:
    databases = [await _kept(server) for _ in PLOTS]
    how = {"delay_ms": DELAY_MS, "jitter_ms": JITTER_MS, "loss_percent": LOSS_PERCENT}
    (tmp_path / "names").mkdir()
    with ExitStack() as stack:
        net = stack.enter_context(internet(*PLOTS, "names", **how))
        names = stack.enter_context(SignedZone(net.hosts[-1], tmp_path / "names").served())
        yield Town(net, names, trustme.CA(), tmp_path, databases)
    for dsn, _ in databases:
        await server.drop(dsn)


async def _kept(server: Server) -> tuple[str, str]:
    """A database, and the key of an operator in it."""
    dsn, key = await server.create(), mint_key()
    database = Database(dsn, clock=Clock())
    await database.open()
    await NamedKeys(database, Audit(uuid4())).add(NewKey(key.id, key.digest), "tests", ["admin"], "tests")
    await database.close()
    return dsn, key.text


def alice_and_bob(acme: House, umbrella: House) -> tuple[Resident, Resident]:
    """Both houses at work, and an agent in each."""
    acme.start()
    umbrella.start()
    return acme.register("alice"), umbrella.register("bob")


def test_two_domains_write_to_each_other_and_everything_arrives_once(town: Town) -> None:
    with town.two_houses() as (acme, umbrella):
        alice, bob = alice_and_bob(acme, umbrella)
        told = town.names.ask("_amtp.umbrella.test")
        assert told.flags & dns.flags.AD
        for number in range(100):
            alice.send(bob.address, payload=number)
            bob.send(alice.address, payload=number)
        all_arrive_once([alice], bob)
        all_arrive_once([bob], alice)
        assert alice.recipient(alice.sent[0])["via"] == f"amtp:{umbrella.gateway}"
    town.net.wires.end()
    assert town.net.wires.lost > town.net.wires.carried / 100 * LOSS_PERCENT / 3


def test_a_message_to_four_domains_at_three_hosts_arrives_in_each_and_is_answered(town: Town) -> None:
    with town.two_houses() as (acme, umbrella), town.house(2, "initech.test", "hive.test") as third:
        alice, bob = alice_and_bob(acme, umbrella)
        third.start()
        readers = [bob, third.register("peter"), third.register("queen", "hive.test"), acme.register("dave")]
        message_id = alice.send(*(reader.address for reader in readers))
        for reader in readers:
            until(reader.inbox, f"mail for {reader.address}")
            reader.send(alice.address, in_reply_to=message_id)
            assert list(reader.arrived().items()) == [(message_id, 1)]
        all_arrive_once(readers, alice)


def test_a_gateway_that_is_killed_finds_what_waited_for_it(town: Town) -> None:
    with town.two_houses() as (acme, umbrella):
        alice, bob = alice_and_bob(acme, umbrella)
        for number in range(60):
            alice.send(bob.address, payload=number)
        until(bob.inbox, "the first message")
        umbrella.kill()
        for number in range(20):
            alice.send(bob.address, payload=number)
        # Whatever was under way at that moment has another reason, until its next attempt.
        until(
            lambda: any(
                "does not take connections" in (alice.recipient(each)["last_error"] or "")
                for each in alice.sent[-20:]
            ),
            "a message that waits because nobody takes connections",
        )
        umbrella.start()
        all_arrive_once([alice], bob)


def test_mail_waits_for_a_wire_that_is_cut(town: Town) -> None:
    with town.two_houses() as (acme, umbrella):
        alice, bob = alice_and_bob(acme, umbrella)
        alice.is_rid_of(alice.send(bob.address))
        umbrella.host.cut()
        alice.is_told(alice.send(bob.address), umbrella.gateway)
        umbrella.host.mend()
        all_arrive_once([alice], bob)


def test_no_message_comes_twice_when_its_answer_is_lost(town: Town) -> None:
    with town.two_houses() as (acme, umbrella):
        alice, bob = alice_and_bob(acme, umbrella)
        alice.is_rid_of(alice.send(bob.address))
        umbrella.host.mute()
        for number in range(20):
            alice.send(bob.address, payload=number)
        until(lambda: len(bob.inbox()) > 1, "a message whose answer does not get out")
        umbrella.kill()
        until(umbrella.host.is_silent, "the answer to be lost")
        umbrella.host.mend()
        umbrella.start()
        all_arrive_once([alice], bob)


def test_a_domain_that_moves_is_followed_within_the_time_its_record_lives(town: Town) -> None:
    ttl_seconds = 5
    town.names.forgetful = False
    with town.two_houses() as (acme, old):
        old.publish(ttl=ttl_seconds)
        with town.house(2, like=old) as new:
            alice, bob = alice_and_bob(acme, old)
            new.start()
            assert alice.is_rid_of(alice.send(bob.address))["via"] == f"amtp:{old.gateway}"
            new.publish(ttl=ttl_seconds)
            moved = monotonic()

            def follows() -> bool:
                late = monotonic() - moved > ttl_seconds + 1
                via = alice.is_rid_of(alice.send(bob.address))["via"]
                assert not (late and via == f"amtp:{old.gateway}"), "what is sent now belongs to the new host"
                return bool(via == f"amtp:{new.gateway}")

            until(follows, "mail to go to the new host")
            all_arrive_once([alice], bob)


def test_mail_goes_out_while_the_dns_is_away(town: Town) -> None:
    with town.two_houses() as (acme, umbrella):
        acme.publish(ttl=1)
        umbrella.publish(ttl=1)
        alice, bob = alice_and_bob(acme, umbrella)
        alice.is_rid_of(alice.send(bob.address))
        town.names.stop()
        for house in (umbrella, acme):  # no connection of before is left, then no memory but the database's
            house.stop()
            house.start()
            alice.is_rid_of(alice.send(bob.address))
        town.names.start()
        alice.is_rid_of(alice.send(bob.address))
        all_arrive_once([alice], bob)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"name": "amtp.elsewhere.test"}, "not valid for"),
        ({"expired": True}, "expired"),
        ({"by": trustme.CA()}, "unable to get local issuer"),
    ],
    ids=["another name", "expired", "another authority"],
)
def test_nothing_is_handed_to_a_host_that_cannot_prove_its_name(
    town: Town, fault: dict[str, Any], words: str
) -> None:
    with town.two_houses() as (acme, umbrella):
        umbrella.prove(**fault)
        alice, bob = alice_and_bob(acme, umbrella)
        alice.is_told(alice.send(bob.address), words)
        assert bob.inbox() == []
        umbrella.prove()
        all_arrive_once([alice], bob)


def test_an_answer_that_should_be_signed_and_is_not_is_no_answer(town: Town) -> None:
    with town.house(0, "acme.test") as acme, town.house(1, "unsigned.test") as other:
        acme.start()
        other.start()
        alice, bob = acme.register("alice"), other.register("bob")
        message_id = alice.send(bob.address)
        alice.is_told(message_id, "SERVFAIL")
        town.names.promise("unsigned.test", signed=False)
        all_arrive_once([alice], bob)


def test_an_answer_too_long_for_a_packet_is_fetched_over_tcp(town: Town) -> None:
    with town.two_houses() as (acme, umbrella):
        umbrella.publish(*(f"{number} " + "x" * 240 for number in range(8)))
        assert town.names.ask("_amtp.umbrella.test").flags & dns.flags.TC
        alice, bob = alice_and_bob(acme, umbrella)
        alice.send(bob.address)
        all_arrive_once([alice], bob)
