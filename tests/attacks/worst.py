"""The worst that anybody can send: what costs most to read, to compare, to list and to render."""

import json
import random
from collections.abc import Callable
from typing import Any

from tests.attacks.loop import Client, filled

KIB = 1024
LINE_BYTES = 255 * KIB  # just below what goes to a child process
LINES = 40  # of that size, in one batch
LARGE_BYTES = 10_000 * KIB
HEAD_BYTES = 7_000
Attack = Callable[[Client], None]


def payloads(*pieces: bytes, before: bytes = b"[", after: bytes = b"]") -> Attack:
    """A batch of lines and one large message, filled with each piece."""

    def attack(alice: Client) -> None:
        for piece in pieces:
            payload = filled(piece, LINE_BYTES, before=before, after=after)
            alice.post_lines([alice.message(alice.address, payload=payload)] * alice.some(LINES))
            large = filled(piece, alice.some(LARGE_BYTES), before=before, after=after)
            assert alice.post(alice.message(alice.address, payload=large)) in (202, 400)

    return attack


def members(name: str, value: Any) -> dict[str, Any]:
    return {name: value}


def many(name: str, count: int) -> dict[str, Any]:
    """Members of that many names, `name` with a number each."""
    return {f"{name}{n}": n for n in range(count)}


def lines(line: Callable[[Client, int], bytes], count: int = 100) -> Attack:
    def attack(alice: Client) -> None:
        alice.post_lines([line(alice, n) for n in range(alice.some(count))])

    return attack


def international() -> str:
    """A domain that takes long to encode, another one each time: those seen before are remembered."""
    letters = [chr(0xAC00 + random.randrange(11_000)) for _ in range(60)]
    return ".".join("".join(letters[k : k + 15]) for k in range(0, 60, 15))


def attachments(alice: Client, n: int) -> bytes:
    url = "https://a.test/" + "a/" * 1000
    each = {"content_type": "a/b; " + "x" * 200, "size": 1, "hash": "sha256:" + "0" * 64}
    files = [{"filename": f"f{k}" + "x" * 200, "url": f"{url}{n}-{k}", **each} for k in range(100)]
    return alice.message(alice.address, attachments=files)


def pages(payload: bytes, count: int) -> Attack:
    """A page of such messages, the same under a lease, and as a stream."""

    def attack(alice: Client) -> None:
        ways = {"?limit=1000": "*/*", "?limit=1000&lease=60": "*/*", "": "text/event-stream"}
        for way, accept in ways.items():
            reader = alice.register(f"reader-{len(way)}")
            message = alice.message(reader.address, payload=payload)
            at_once = max(1, LARGE_BYTES // len(message))
            some = alice.some(count)
            for start in range(0, some, min(at_once, 100)):
                batch = [message] * min(at_once, 100, some - start)
                if len(message) * 2 > LARGE_BYTES:
                    assert alice.post(message) == 202
                else:
                    assert all(told["status"] == "delivered" for told in alice.post_lines(batch))
            bytes_max = None if way else some * len(payload)
            assert (
                reader.ask(
                    "GET", f"/v1/inbox/{reader.address}{way}", bytes_max=bytes_max, headers={"Accept": accept}
                )[0]
                == 200
            )

    return attack


def acknowledgements(alice: Client) -> None:
    path = f"/v1/inbox/{alice.address}/ack"
    names = [{"message_id": f"m-{n}", "sender": f"a{n}@{n}.test"} for n in range(1000)]
    assert alice.ask("POST", path, json.dumps({"message_ids": names}).encode())[0] == 200
    for body in (
        filled(b'{"message_id":"a"}', LARGE_BYTES, before=b'{"message_ids":[', after=b"]}"),
        filled(b"[]", LARGE_BYTES, before=b'{"message_ids":["a"],"lease":[', after=b"]}"),
        filled(b"[]", LINE_BYTES, before=b'{"message_ids":["a"],"lease":[', after=b"]}"),
    ):
        assert alice.ask("POST", path, body)[0] == 400


def answers(alice: Client) -> None:
    """A large message is answered at length."""
    large = filled(b"[]", LARGE_BYTES // 2)
    assert alice.post(alice.message(alice.address, payload=large, message_id="large")) == 202
    said = b'{"reply":{"payload":%b},"messages":[%b]}' % (large, alice.message(alice.address))
    assert alice.ask("DELETE", f"/v1/inbox/{alice.address}/large", said)[0] == 200


def repeats(alice: Client) -> None:
    """The same message again, spelled otherwise, so that its content is compared."""
    for piece in (b"[]", b" []", b"[ ]"):
        payload = filled(piece, 2_000_000 * (len(piece) + 1))
        body = alice.message(alice.address, payload=payload, idempotency_key="large")
        assert alice.post(body) in (202, 409)


def crowds(alice: Client) -> None:
    """A thousand recipients, unknown ones and elsewhere, in one message and in each of many lines."""
    for domain in ("acme.test", "far.test", "far{n}.test"):
        recipients = [f"c{n}@{domain.format(n=n)}" for n in range(999)]
        line = alice.message(alice.address, *recipients)
        assert alice.post(line) == 202
        alice.post_lines([line] * alice.some(100))


def residents(alice: Client) -> None:
    """Many messages that many agents here get."""
    here = [alice.register(f"agent-{n}").address for n in range(alice.some(300))]
    alice.post_lines([alice.message(*here)] * alice.some(100))


def times(alice: Client) -> None:
    """Cron expressions that never come, or take long to be sure, and texts that are none."""
    crons = ["0 0 30 2 *", "59 23 29 2 1#5", "0 0 31 4,6,9,11,2 *", ",".join(["1-59/1"] * 60) + " * * * *"]
    for cron in crons:
        alice.post(alice.message(alice.address, headers={"repeat": cron}))
    alice.post_lines(
        [alice.message(alice.address, headers={"repeat": crons[n % 4]}) for n in range(alice.some(100))]
    )
    for text in (
        "*" * 100_000,
        "1,-" * 30_000,
        ("1-1," * 60)[:-1] * 50,
        "1" * 200_000,
        "2026-01-01T" * 9_000,
    ):
        for name in ("repeat", "deliver-after", "expires-at", "reply-to", "thread-id", "ttl"):
            assert alice.post(alice.message(alice.address, headers={name: text})) == 400


def texts(alice: Client) -> None:
    """Long texts where something is expected that a pattern matches, and as names."""
    for piece in ("a", "a.", "-", " ", "\u0301\u0327", "a@", "\u3164", "\ufb03"):
        text = piece * (LINE_BYTES // len(json.dumps(piece).encode()))
        for name in ("message_id", "timestamp", "subject", "in_reply_to", "schema"):
            assert alice.post(alice.message(alice.address, **members(name, text))) == 400
        assert alice.post(alice.message(text)) == 400
        assert alice.post(alice.message(alice.address, **many(text, 1))) in (202, 400)
        assert alice.post(alice.message(alice.address, headers={text: 1})) in (202, 400)
        for name in ("filename", "content_type", "hash", "url"):
            assert alice.post(alice.message(alice.address, attachments=[{name: text}])) == 400


def heads(alice: Client) -> None:
    """Query strings, paths and headers as long as they may be."""
    box = f"/v1/inbox/{alice.address}"
    for path in (
        f"{box}?" + "&".join(f"a{n}=1" for n in range(HEAD_BYTES // 6)),
        f"{box}?" + "&" * HEAD_BYTES,
        f"{box}?" + "%" * HEAD_BYTES,
        f"{box}?cursor=" + "%e9" * (HEAD_BYTES // 3),
        f"{box}?" + "wait" * (HEAD_BYTES // 4),
        "/v1/discovery/agents?q=" + "%25_" * 60,
        "/v1/discovery/agents?schema=" + "_" * 250,
        "/v1/inbox/" + "a." * (HEAD_BYTES // 2),
        "/" * HEAD_BYTES,
        "/v1/capabilities/" + "%ea%b0%80" * (HEAD_BYTES // 9),
    ):
        assert alice.ask("GET", path)[0] < 500
    for name in (
        "Prefer",
        "Via",
        "Accept",
        "Last-Event-ID",
        "X-Forwarded-For",
        "Content-Type",
        "Authorization",
    ):
        for value in (
            "," * HEAD_BYTES,
            "a=b;" * (HEAD_BYTES // 4),
            "1.1 a, " * (HEAD_BYTES // 7),
            '"' * HEAD_BYTES,
        ):
            assert alice.ask("POST", "/v1/messages", b"1", key="", headers={name: value})[0] < 500


def bodies(alice: Client) -> None:
    """Bodies of the other endpoints."""
    filler = filled(b"[]", 60 * KIB)
    for path in ("/v1/admin/agents", "/v1/admin/queue/hold", "/v1/dead-letters/replay", "/v1/webhooks"):
        for body in (
            b'{"address":"x","capabilities":%b}' % filler,
            b'{"address":"x","push_target":"https://%b"}' % (b"a." * 30_000),
            b'{"url":"https://%b","ids":%b}' % (b"@" * 30_000, filled(b'"a"', 30_000)),
        ):
            assert alice.ask("POST", path, body, key=alice.admin_key)[0] == 400


ATTACKS: dict[str, Attack] = {
    "brackets": payloads(b"[]", b"[" * 50 + b"]" * 50, b'{"":' * 50 + b"1" + b"}" * 50),
    "numbers": payloads(b"1" * 300, b"1" * 4300, b"1.5e-300", b"1", before=b'["' + b"1" * 301 + b'",'),
    "strings": payloads(
        b'"[\\"{"', b'"\\\\u0000"', b'"\\u0001"', before=b"[" + b",".join([b"[]"] * 70) + b","
    ),
    "blanks": payloads(b" " * 100 + b"1", b"\t1"),
    "members": payloads(b'{"a":1,"b":{"c":2}}'),
    "international domains": lines(
        lambda alice, n: alice.message(*(f"b{k}@{international()}" for k in range(50)))
    ),
    "attachments": lines(attachments, 40),
    "headers": lines(lambda alice, n: alice.message(alice.address, headers=many(f"H{n}-", 5000))),
    "vocabularies": lines(lambda alice, n: alice.message(alice.address, **many(f"idempotency_k{n}", 30))),
    "own members": lines(lambda alice, n: alice.message(alice.address, **many(f"M{n}-", 900))),
    "acknowledgements": acknowledgements,
    "answers": answers,
    "repeats": repeats,
    "crowds": crowds,
    "residents": residents,
    "small pages": pages(b"1", 1000),
    "middle pages": pages(filled(b"[]", 100 * KIB), 300),
    "large pages": pages(filled(b"[]", LARGE_BYTES - KIB), 6),
    "newlines": pages(b"\n" * (LARGE_BYTES - KIB) + b"1", 3),
    "lines": pages(b"[" + b"1,\n" * (LARGE_BYTES // 4) + b"1]", 3),
    "times": times,
    "texts": texts,
    "heads": heads,
    "bodies": bodies,
}
