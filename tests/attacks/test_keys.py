"""Keys under attack: a stolen database, a guesser with a stopwatch, a web page that talks to this machine."""

import ast
import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import gateway
from gateway.admit import authenticate
from gateway.admit.api_key import mint_key
from gateway.admit.authenticate import from_this_machine
from gateway.store.agents.keys import KnownKey, find_keys
from gateway.store.database import Database
from tests.world import Gateway, World

AGENTS = "/v1/admin/agents"
DISCOVERY = "/v1/discovery/agents"


@pytest.fixture
async def development(world: World) -> AsyncIterator[Gateway]:
    async with world.gateway(development=True) as running:
        yield running


async def dump(database: Database) -> str:
    """Everything the database holds, as a thief would read it."""
    tables = await database.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
    )
    rows = [
        row[0]
        for table in tables
        for row in await database.fetch(f"select to_jsonb(t)::text from {table['relname']} t")
    ]
    return "\n".join(rows)


def traces_of(secret: str) -> set[str]:
    """How a secret would show: as it is, or as bytes in a dump."""
    return {secret, secret.encode().hex()}


async def test_a_stolen_database_holds_no_key_and_no_secret_that_can_be_used(gw: Gateway) -> None:
    body = {"address": "alice", "delivery_mode": "push", "push_target": "https://hooks.test/in"}
    registered = (await gw.call("POST", AGENTS, key=gw.admin_key, json=body)).json["agent"]
    rotated = await gw.call("POST", f"{AGENTS}/alice/rotate-key", key=gw.admin_key)

    stolen = await dump(gw.app.database)

    assert "alice@acme.test" in stolen  # it is a dump
    for text in (gw.admin_key, registered["api_key"], rotated.json["agent"]["api_key"]):
        assert not any(trace in stolen for trace in traces_of(text))
        assert text.rpartition("_")[2] not in stolen
    assert not any(trace in stolen for trace in traces_of(registered["push_secret"]))


async def test_no_answer_but_the_first_and_no_log_line_shows_a_key(gw: Gateway) -> None:
    alice = await gw.register("alice")
    wrong = mint_key().text
    answers = [
        await gw.call("GET", f"{AGENTS}/alice", key=gw.admin_key),
        await gw.call("GET", AGENTS, key=gw.admin_key),
        await gw.call("GET", DISCOVERY, key=alice.key),
        await gw.call("GET", DISCOVERY, key=wrong),
        await gw.call("GET", AGENTS, key=alice.key),
        await gw.call("GET", f"/{alice.key}"),
        await gw.call("POST", AGENTS, key=gw.admin_key, json={"address": "bob", "api_key": alice.key}),
    ]
    told = "".join(answer.text for answer in answers) + gw.log.getvalue()

    assert [answer.status for answer in answers] == [200, 200, 200, 401, 403, 404, 400]
    for key in (alice.key, gw.admin_key, wrong):
        assert key not in told
        assert key.rpartition("_")[2] not in told


async def test_a_guesser_learns_nothing_from_the_answer(gw: Gateway) -> None:
    alice = await gw.register("alice")
    guesses = [mint_key().text, alice.key[:-43] + mint_key().text[-43:], alice.key[:-1], "x", alice.key + "x"]
    answers = [await gw.call("GET", DISCOVERY, key=guess) for guess in guesses]

    shapes = {
        (answer.status, answer.code, answer.json["error"]["message"], answer.headers["www-authenticate"])
        for answer in answers
    }
    assert len(shapes) == 1
    assert answers[0].status == 401


async def test_an_unknown_id_takes_the_same_way_as_a_wrong_secret(
    gw: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await gw.register("alice")
    assert (await gw.call("GET", DISCOVERY, key=alice.key)).status == 200
    asked: list[list[str]] = []
    compared: list[tuple[bytes, bytes]] = []

    async def counted(database: Database, ids: list[str]) -> tuple[int, dict[str, KnownKey]]:
        asked.append(ids)
        return await find_keys(database, ids)

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(authenticate, "find_keys", counted)
    monkeypatch.setattr(authenticate, "same_digest", compare)
    for guess in (mint_key().text, alice.key[:-43] + mint_key().text[-43:]):
        assert (await gw.call("GET", DISCOVERY, key=guess)).status == 401

    assert [len(ids) for ids in asked] == [1, 1]
    assert [(len(one), len(other)) for one, other in compared] == [(32, 32), (32, 32)]


SECRET_NAME = re.compile(r"digest|secret|api_key|hmac|mac\b|password", re.IGNORECASE)
HOUSE = Path(gateway.__file__).parent
NO_SECRETS = {HOUSE / "net/tls.py"}  # its digests tell whether a file changed
SOURCES = sorted(set(HOUSE.rglob("*.py")) - NO_SECRETS)


def test_secrets_are_never_compared_with_an_ordinary_operator() -> None:
    assert [told for path in SOURCES for told in careless_comparisons(path.read_text(), path.name)] == []


def test_a_careless_comparison_would_be_found() -> None:
    assert careless_comparisons("if known.digest == given: pass", "x.py") == ["x.py:1"]
    assert careless_comparisons("if secret in secrets: pass", "x.py") == ["x.py:1"]
    assert careless_comparisons("if secret is not None: pass", "x.py") == []


def careless_comparisons(source: str, name: str) -> list[str]:
    """Where a value whose name says that it is secret meets ==, != or `in`."""
    return [
        f"{name}:{node.lineno}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops)
        and any(SECRET_NAME.search(named) for side in (node.left, *node.comparators) for named in names(side))
    ]


def names(side: ast.expr) -> list[str]:
    if isinstance(side, ast.Name):
        return [side.id]
    return [side.attr] if isinstance(side, ast.Attribute) else []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "127.0.0.1:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        # a page of another site posts here
        ({"Origin": "https://evil.test"}, 401),
        ({"Origin": "null"}, 401),
        ({"Origin": "http://localhost:8080"}, 401),
        ({"Referer": "https://evil.test/"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        # a name of the attacker's resolves to this machine
        ({"Host": "evil.test"}, 401),
        ({"Host": "evil.test:8080"}, 401),
        ({"Host": "localhost.evil.test"}, 401),
        ({"Host": "127.0.0.1.evil.test"}, 401),
        ({"Host": "evil.test@localhost"}, 401),
        # somebody outside comes through a proxy on this machine
        ({"X-Forwarded-For": "192.0.2.1"}, 401),
        ({"Forwarded": "for=192.0.2.1"}, 401),
        ({"Via": "1.1 proxy"}, 401),
    ],
)
async def test_a_web_page_is_no_program_on_this_machine(
    development: Gateway, headers: dict[str, str], status: int
) -> None:
    reply = await development.call("GET", DISCOVERY, headers=headers)

    assert reply.status == status


@pytest.mark.parametrize(
    ("client", "trusted"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1", False),
        ("", False),
    ],
)
def test_only_a_client_on_this_machine_is_trusted_whatever_host_it_names(client: str, trusted: bool) -> None:
    values = {"Host": ["localhost:8080"]}

    assert from_this_machine(lambda name: values.get(name, []), client) is trusted


async def test_two_hosts_or_none_are_not_trusted() -> None:
    assert not from_this_machine(lambda name: [], "127.0.0.1")
    assert not from_this_machine(
        lambda name: ["localhost", "evil.test"] if name == "Host" else [], "127.0.0.1"
    )


@pytest.mark.parametrize(
    ("target", "status"),
    [("http://127.0.0.1:8080", 200), ("http://evil.test", 401), ("http://localhost.evil.test:8080", 401)],
)
async def test_a_target_in_the_absolute_form_is_judged_like_the_host(
    development: Gateway, target: str, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", development.app.ports[0])
    writer.write(f"GET {target}{DISCOVERY} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert f"HTTP/1.1 {status} " in (await reader.readline()).decode()
    writer.close()


async def test_in_development_a_wrong_key_is_still_wrong(development: Gateway) -> None:
    assert (await development.call("GET", DISCOVERY, key=mint_key().text)).status == 401


async def test_in_development_operators_work_still_takes_an_admin_key(development: Gateway) -> None:
    for path in (AGENTS, "/v1/admin/queue", "/v1/admin/peers", "/v1/admin/destinations"):
        assert (await development.call("GET", path)).status == 401


@pytest.mark.parametrize("absent", ["version", "payload"])
async def test_in_development_a_foreign_message_is_as_complete_as_in_production(
    development: Gateway, absent: str
) -> None:
    await development.register("bob")
    message = {
        "version": "1.0",
        "sender": "eve@elsewhere.test",
        "recipients": ["bob@acme.test"],
        "payload": 1,
    }
    assert (await development.call("POST", "/v1/messages", json=message)).status == 202
    del message[absent]
    refused = await development.call("POST", "/v1/messages", json=message)
    assert (refused.status, refused.json["error"]["details"]["field"]) == (400, absent)
    own = {"sender": "bob@acme.test", "recipients": ["bob@acme.test"]}
    assert (await development.call("POST", "/v1/messages", json=own)).status == 202


async def test_the_audit_holds_of_a_push_url_the_host_alone(gw: Gateway) -> None:
    secret = "token-in-the-url"
    body = {"address": "alice", "delivery_mode": "push", "push_target": f"https://hooks.test/{secret}"}
    await gw.call("POST", AGENTS, key=gw.admin_key, json=body)
    changed = await gw.call(
        "PATCH", f"{AGENTS}/alice", key=gw.admin_key, json={"push_target": f"https://other.test/?t={secret}"}
    )
    assert changed.status == 200
    rows = await gw.app.database.fetch("select details::text from audit order by number")
    told = " ".join(row["details"] or "" for row in rows)
    assert "other.test" in told
    assert secret not in told
