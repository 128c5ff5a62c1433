"""Section 4: JSON that every reader understands alike, and the limits of a message."""

from collections.abc import AsyncIterator

from conformance.check import core, holds, same
from conformance.target import Agent, Target

BODY_BYTES_MAX = 10_485_760
DEPTH_MAX = 60
DIGITS_MAX = 300
PIECE_BYTES = 1_048_576


def body_with(agent: Agent, payload: bytes) -> bytes:
    """A message of the agent to itself with these bytes as its payload."""
    address = agent.address.encode()
    return b'{"version":"1.0","sender":"%b","recipients":["%b"],"payload":%b}' % (address, address, payload)


def nested(levels: int) -> bytes:
    """A payload that makes a message of that many levels, the message itself being the first."""
    return b"[" * (levels - 1) + b"]" * (levels - 1)


async def refuse_all(target: Target, *payloads: bytes) -> None:
    alice = await target.agent()
    for payload in payloads:
        reply = await alice.post(body_with(alice, payload))
        holds(reply.status == 400, f"{payload[:60]!r} is refused")
        reply.refused("INVALID_MESSAGE_FORMAT")
    same(await alice.inbox(), [], "the inbox")


@core
async def what_is_no_json_object_is_refused(target: Target) -> None:
    """A body that is not one JSON object is refused."""
    alice = await target.agent()
    for body in (
        b"",
        b" ",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"7",
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1,}',
        b"\xff\xfe",
    ):
        (await alice.post(body)).refused("INVALID_MESSAGE_FORMAT")


@core
async def duplicate_members_are_refused(target: Target) -> None:
    """An object with the same member twice is refused at every depth, also where one is spelled with escapes."""
    await refuse_all(target, b'{"a":1,"a":1}', b'[[{"b":{"a":1,"a":2}}]]', b'{"a":1,"\\u0061":2}')
    alice = await target.agent()
    twice = body_with(alice, b"1").replace(
        b'{"version"', b'{"sender":"%b","version"' % alice.address.encode()
    )
    (await alice.post(twice)).refused("INVALID_MESSAGE_FORMAT")


@core
async def numbers_that_are_none_are_refused(target: Target) -> None:
    """NaN and infinities are refused, in words and as numbers that no double can hold."""
    await refuse_all(
        target,
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'{"a":[1e400]}',
        b"-1e999",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
    )


@core
async def numbers_have_at_most_300_digits(target: Target) -> None:
    """A number of 300 digits is kept; one of 301 is refused."""
    await refuse_all(target, b"1" * (DIGITS_MAX + 1), b"0." + b"1" * DIGITS_MAX)
    alice = await target.agent()
    (await alice.post(body_with(alice, b"1" * DIGITS_MAX))).expect(202)


@core
async def nesting_ends_at_64(target: Target) -> None:
    """A body of 60 levels is accepted, one of 61 refused, and one of a hundred thousand too."""
    await refuse_all(target, nested(DEPTH_MAX + 1), nested(100_000), b'{"a":' * 60 + b"1" + b"}" * 60)
    alice = await target.agent()
    (await alice.post(body_with(alice, nested(DEPTH_MAX)))).expect(202)


@core
async def nul_and_broken_characters_are_refused(target: Target) -> None:
    """NUL, lone surrogates, unescaped control characters and invalid UTF-8 are refused."""
    await refuse_all(
        target,
        b'"\\u0000"',
        b'"a\x00b"',
        b'{"\\u0000":1}',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\ud800x"',
        b'"\x01"',
        b'"\n"',
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
    )


@core
async def marks_and_trailing_data_are_refused(target: Target) -> None:
    """A byte order mark, UTF-16 and anything behind the object are refused."""
    alice = await target.agent()
    body = body_with(alice, b"1")
    for changed in (
        b"\xef\xbb\xbf" + body,
        body.decode().encode("utf-16"),
        body.decode().encode("utf-16-le"),
        body + b"{}",
        body + b"x",
        body + b"\x00",
        body + body,
    ):
        (await alice.post(changed)).refused("INVALID_MESSAGE_FORMAT")
    (await alice.post(b" \r\n\t" + body + b" \r\n\t")).expect(202)


@core
async def ten_megabytes_are_the_most(target: Target) -> None:
    """A body of 10 MB is accepted; one byte more is MESSAGE_TOO_LARGE, whether or not its length is declared."""
    alice = await target.agent()
    spare = BODY_BYTES_MAX - len(body_with(alice, b'""'))
    whole = body_with(alice, b'"%b"' % (b"x" * spare))
    (await alice.post(whole)).expect(202)
    (await alice.post(whole + b" ")).refused("MESSAGE_TOO_LARGE")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), PIECE_BYTES):
            yield whole[start : start + PIECE_BYTES]
        yield b" "

    reply = await target.call("POST", "/v1/messages", key=alice.key, body=pieces())
    reply.refused("MESSAGE_TOO_LARGE")
    same(len(await alice.inbox()), 1, "the number of messages in the inbox")


@core
async def compressed_bodies_are_refused(target: Target) -> None:
    """A body with a Content-Encoding is refused with UNSUPPORTED_MEDIA_TYPE, whatever it says."""
    alice = await target.agent()
    for coding in ("gzip", "identity", "br"):
        reply = await alice.post(body_with(alice, b"1"), **{"Content-Encoding": coding})
        reply.refused("UNSUPPORTED_MEDIA_TYPE")
