"""A road between two gateways on which everything goes wrong that can: it ends TLS, and each request meets a fate.

What it passes on reaches the real gateway behind it, whatever becomes of the answer then.
"""

from collections.abc import Mapping

from conformance.fake_peer import (
    Behaviour,
    Exchange,
    answers,
    answers_endlessly,
    redirects,
    refuses,
    resets_after_body,
    resets_before_body,
    writes,
)
from tests.faults.crossing import Crossing

PASSED_ON = ("content-type", "via", "x-amtp-version", "user-agent")
GARBAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{not JSON"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"


def passes_on(crossing: Crossing, instead: bytes | None = None) -> Behaviour:
    """Hands the request to the gateway there; its answer comes back, or these bytes, or (empty) a reset."""

    async def behave(exchange: Exchange) -> None:
        request = await exchange.read_body()
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        url = crossing.far.gateway.url + request.path
        async with crossing.session.request(
            request.method, url, data=request.body, headers=headers
        ) as response:
            answer = await response.read()
        if instead is None:
            await exchange.answer(response.status, answer, content_type=response.headers["content-type"])
        elif instead:
            await exchange.write(instead)
            exchange.keep_alive = False
        else:
            exchange.reset()

    return behave


def faults_of(crossing: Crossing) -> Mapping[str, Behaviour]:
    """What can go wrong with one request, by name."""
    return {
        "reset before the body": resets_before_body,
        "reset after the body": resets_after_body,
        "reset instead of the answer": passes_on(crossing, b""),
        "half an answer": passes_on(crossing, HALF),
        "garbage for an answer": passes_on(crossing, GARBAGE),
        "garbage, and nothing taken": writes(GARBAGE),
        "no HTTP at all": writes(b"220 ready\r\n"),
        "redirected": redirects("https://elsewhere.test/v1/messages"),
        "too many requests": refuses(429, "RATE_LIMIT_EXCEEDED", Retry_After="1"),
        "no room": refuses(503, "QUEUE_FULL"),
        "a proxy's page": answers(502, b"<html>"),
        "not allowed": answers(403),
        "an answer without an end": answers_endlessly(),
    }
