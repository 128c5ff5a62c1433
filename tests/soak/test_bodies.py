"""Bodies that nobody thought of: no fault, and what passes is read alike by strict readers and by lenient ones."""

import json
import random
import unicodedata
from typing import Any

import pytest

from gateway.protocol.message import NAMES
from tests.world import Agent, Gateway, World

ROUNDS = 40
BODIES = 100  # in each round, after which the inbox is read
SEEDS = (1, 2, 3)
KNOWN = sorted(NAMES | {"gateway", "sender_verification", "status"})
ODD = " \t_-\u00ad\u200b\u200d\u2060\ufeff\u0301\u0307\u3164\ufe0f\u017f\u212a\u0130\u0131\uff53\uff25"
PIECES = [
    b"[]",
    b"{}",
    b"[" * 30,
    b"]" * 30,
    b"\n",
    b"\r\n",
    b" ",
    b'"[{"',
    b'"\\""',
    b"1e5",
    b"1" * 301,
    b"null",
    b",",
    b":",
]


def spelled(name: str, random_: random.Random) -> str:
    """The name, or something that somebody could take for it."""
    letters = list(name)
    for _ in range(random_.randrange(4)):
        place = random_.randrange(len(letters))
        match random_.randrange(4):
            case 0:
                letters[place] = letters[place].swapcase()
            case 1:
                letters.insert(place, random_.choice(ODD))
            case 2:
                letters[place] = random_.choice(ODD)
            case 3:
                letters[place] = chr(ord(letters[place]) + 0xFEE0) if letters[place].isascii() else "x"
    return "".join(letters)


def payload(random_: random.Random) -> bytes:
    pieces = [random_.choice(PIECES) for _ in range(random_.randrange(12))]
    return b"".join(pieces) if random_.random() < 0.5 else b"[" + b",\n\n".join([b"[]"] * len(pieces)) + b"]"


def body(alice: Agent, bob: Agent, random_: random.Random) -> bytes:
    members: dict[str, Any] = {"sender": alice.address, "recipients": [bob.address]}
    for _ in range(random_.randrange(3)):
        members[spelled(random_.choice(KNOWN), random_)] = random_.choice(["pass", None, "", {"via": "x"}, 1])
    raw = json.dumps(members, ensure_ascii=random_.random() < 0.5).encode(errors="surrogatepass")
    return raw[:-1] + b',"payload":' + payload(random_) + b"}"


def folded(name: str) -> str:
    """As a reader compares that ignores case, form and what can't be seen."""
    seen = "".join(
        c for c in name if unicodedata.category(c) not in ("Cf", "Cc", "Zs") and c not in "\u3164\ufe0f"
    )
    plain = unicodedata.normalize("NFKC", seen.replace("\u0131", "i").replace("\u0130", "i")).casefold()
    return plain.replace("\u0307", "")


async def check_inbox(bob: Agent, gateway: Gateway) -> int:
    items = await bob.inbox("?limit=1000")
    for item in items:
        names = [folded(name) for name in item]
        for known in KNOWN:
            assert names.count(folded(known)) <= 1, list(item)
        assert set(item["gateway"]) >= {"entry", "address", "status"}
        assert item["sender_verification"] == "pass"
    ids = {"message_ids": [item["message_id"] for item in items]}
    if items:
        path = f"/v1/inbox/{bob.address}/ack"
        assert (await gateway.call("POST", path, key=bob.key, json=ids)).status == 200
    return len(items)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_sent_nobody_reads_two_things(world: World, seed: int) -> None:
    random_ = random.Random(seed)
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        passed = 0
        for _ in range(ROUNDS):
            for _ in range(BODIES):
                sent = body(alice, bob, random_)
                reply = await gateway.call("POST", "/v1/messages", key=alice.key, body=sent)
                assert reply.status in (202, 400, 409), (reply.text, sent)
            passed += await check_inbox(bob, gateway)
        assert ROUNDS * BODIES // 20 < passed < ROUNDS * BODIES
        assert "fault" not in gateway.log.getvalue()
