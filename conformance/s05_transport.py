"""Section 5: messages over HTTP."""

import json
import re
from typing import Any

from conformance.check import core, extended, holds, same
from conformance.target import ELSEWHERE, JSON, LINES, Target

LINES_MAX = 100
NOT_HTTP = (
    b"GARBAGE\r\n\r\n",
    b"GET /v1/messages HTTP/9.9\r\nHost: {host}\r\n\r\n",
    b"GET /v1/messages SMTP/1.1\r\nHost: {host}\r\n\r\n",
    b"GET /v1/messages HTTP/1.1\r\nHost: {host}\r\nX-Bad\x00: <script>\r\n\r\n",
    b"GET /v1/messages HTTP/1.1\r\nHost: {host}\r\nX Bad: <script>\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nContent-Length: <script>\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: <script>\r\n\r\n",
    b"GET /" + b"<script>" * 8192 + b" HTTP/1.1\r\nHost: {host}\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: {host}\r\nX-Long: " + b"<script>" * 8192 + b"\r\n\r\n",
)


@core
async def an_accepted_message_is_answered_by_202(target: Target) -> None:
    """The answer to an accepted message is 202 with its id, its status and the status of each recipient."""
    alice, bob = await target.agents(2)
    reply = await alice.send(bob.address, alice.address)
    receipt = reply.expect(202)
    holds(reply.headers["content-type"].startswith(JSON), "the answer is JSON")
    holds(receipt["status"] in ("queued", "delivered"), "status is queued or delivered")
    holds(isinstance(receipt["message_id"], str), "message_id is text")
    same([one["address"] for one in receipt["recipients"]], [bob.address, alice.address], "the recipients")
    for one in receipt["recipients"]:
        holds(one["status"] in ("queued", "delivered"), "each status is queued or delivered")
        holds("error" not in one, "who is accepted has no error")


@core
async def some_refused_and_some_accepted_is_202(target: Target) -> None:
    """Where some recipients are refused and others accepted, 202 tells which, and the others get it."""
    alice, bob = await target.agents(2)
    unknown = target.address()
    receipt = (await alice.send(unknown, bob.address)).expect(202)
    told = {one["address"]: one for one in receipt["recipients"]}
    same(set(told), {unknown, bob.address}, "the recipients of the receipt")
    same(told[unknown]["status"], "failed", "the status of who is unknown")
    same(told[unknown]["error"]["code"], "AGENT_UNKNOWN", "the error of who is unknown")
    holds(isinstance(told[unknown]["error"]["message"], str), "the error has a message")
    holds(told[bob.address]["status"] in ("queued", "delivered"), "the other is accepted")
    await bob.only()


@core
async def all_refused_has_the_status_of_the_first(target: Target) -> None:
    """Where all recipients are refused, the first refusal is the answer and all of them stand beside it."""
    alice = await target.agent()
    unknown = [target.address(), target.address()]
    reply = await alice.send(*unknown)
    reply.refused("AGENT_UNKNOWN")
    told = reply.json["recipients"]
    same([one["address"] for one in told], unknown, "the recipients beside the error")
    same({one["error"]["code"] for one in told}, {"AGENT_UNKNOWN"}, "the codes beside the error")


@core
async def a_message_is_json(target: Target) -> None:
    """A body that is not declared as JSON is refused with UNSUPPORTED_MEDIA_TYPE."""
    alice = await target.agent()
    body = json.dumps(alice.message(alice.address)).encode()
    for kind in (
        None,
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        f"{JSON}; charset=latin1",
    ):
        (await alice.post(body, kind)).refused("UNSUPPORTED_MEDIA_TYPE")
    for kind in (JSON, f"{JSON}; charset=utf-8", f'{JSON};charset="UTF-8"', JSON.upper()):
        (await alice.post(body, kind)).expect(202)


@core
async def the_version_header_is_optional_and_known(target: Target) -> None:
    """X-AMTP-Version may be absent or 1.0; another is refused with UNSUPPORTED_VERSION."""
    alice = await target.agent()
    body = json.dumps(alice.message(alice.address)).encode()
    (await alice.post(body, **{"X-AMTP-Version": "1.0"})).expect(202)
    for version in ("2.0", "1", "1.1", "x"):
        (await alice.post(body, **{"X-AMTP-Version": version})).refused("UNSUPPORTED_VERSION")
        (await alice.get("/v1/messages", **{"X-AMTP-Version": version})).refused("UNSUPPORTED_VERSION")


@core
async def a_request_id_is_echoed(target: Target) -> None:
    """A request's own X-Request-ID comes back, in refusals also as error.request_id."""
    alice = await target.agent()
    for given in ("a", "A-z_0.9", "x" * 128):
        reply = await alice.get("/v1/messages", **{"X-Request-ID": given})
        same(reply.headers.get("x-request-id"), given, "X-Request-ID of the answer")
        error = (await alice.get("/v1/nowhere", **{"X-Request-ID": given})).envelope()
        same(error["request_id"], given, "error.request_id")


@core
async def a_bad_request_id_is_replaced(target: Target) -> None:
    """An X-Request-ID that is too long or has other characters is replaced by one of the gateway's own."""
    alice = await target.agent()
    for given in ("x" * 129, "a b", "<script>", "a/b", "é"):
        reply = await alice.get("/v1/nowhere", **{"X-Request-ID": given})
        minted = reply.envelope()["request_id"]
        holds(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", minted), "the minted id has a good form")
        holds(minted != given, "the bad id is not echoed")


@core
async def request_ids_are_minted(target: Target) -> None:
    """Each request without an X-Request-ID gets one of its own."""
    alice = await target.agent()
    minted = {(await alice.get("/v1/messages")).headers["x-request-id"] for _ in range(5)}
    same(len(minted), 5, "the number of ids")


@core
async def what_is_no_http_is_refused_in_the_same_form(target: Target) -> None:
    """What the HTTP parser refuses is answered by an error envelope too, and nothing of the input is echoed."""
    for request in NOT_HTTP:
        reply = await target.raw(request)
        reply.envelope()
        holds(400 <= reply.status < 500, f"{request[:60]!r} is refused as the client's fault")
        holds(b"script" not in reply.body, f"the answer to {request[:60]!r} does not repeat it")


@extended
async def a_batch_of_lines_is_answered_line_by_line(target: Target) -> None:
    """D: A batch in application/x-ndjson is answered by one receipt or error a line, in order, the accepted committed."""
    alice, bob = await target.agents(2)
    good = json.dumps(alice.message(bob.address)).encode()
    bad = json.dumps(alice.message(bob.address, version="9")).encode()
    unknown = json.dumps(alice.message(target.address())).encode()
    reply = await alice.post(b"\n".join((good, bad, b"no json", unknown, good)), LINES)
    same(reply.status, 200, "the status of the batch")
    holds(reply.headers["content-type"].startswith(LINES), "the answer is lines of JSON")
    lines: list[dict[str, Any]] = [json.loads(line) for line in reply.body.splitlines()]
    told = [line["error"]["code"] if "error" in line else line["message_id"] for line in lines]
    same(told[1:4], ["UNSUPPORTED_VERSION", "INVALID_MESSAGE_FORMAT", "AGENT_UNKNOWN"], "the refused lines")
    found = {message["message_id"] for message in await bob.inbox()}
    same(found, {told[0], told[4]}, "the accepted lines in the inbox")


@extended
async def a_batch_may_end_with_a_line_end(target: Target) -> None:
    """D: The last line of a batch may end with a line break, which adds no line."""
    alice, bob = await target.agents(2)
    reply = await alice.post(json.dumps(alice.message(bob.address)).encode() + b"\n", LINES)
    same(len(reply.body.splitlines()), 1, "the number of lines answered")
    await bob.only()


@extended
async def a_batch_has_at_most_100_lines(target: Target) -> None:
    """D: A batch of 100 lines is accepted; one of 101 is refused as a whole."""
    alice, bob = await target.agents(2)
    line = json.dumps(alice.message(bob.address)).encode()
    (await alice.post(b"\n".join([line] * (LINES_MAX + 1)), LINES)).refused("MESSAGE_TOO_LARGE")
    same(await bob.inbox(), [], "the inbox after the refusal")
    reply = await alice.post(b"\n".join([line] * LINES_MAX), LINES)
    same(reply.status, 200, "the status of the batch")
    same(len(await bob.inbox("?limit=1000")), LINES_MAX, "the number of messages in the inbox")


@extended
async def repetitions_within_a_batch_are_one_message(target: Target) -> None:
    """D: Lines of one batch with the same idempotency key are one message."""
    alice, bob = await target.agents(2)
    line = json.dumps(alice.message(bob.address, idempotency_key="k")).encode()
    reply = await alice.post(b"\n".join([line] * 5), LINES)
    ids = {json.loads(answer)["message_id"] for answer in reply.body.splitlines()}
    same(len(ids), 1, "the number of ids")
    await bob.only()


@extended
async def messages_that_went_round_are_stopped(target: Target) -> None:
    """D: A message with more than 25 hops in its Via header is refused with LOOP_DETECTED; 25 are accepted."""
    alice = await target.agent()
    body = json.dumps(alice.message(alice.address)).encode()
    hops = [f"1.1 gw{number}.{ELSEWHERE}" for number in range(26)]
    (await alice.post(body, Via=", ".join(hops))).refused("LOOP_DETECTED")
    (await alice.post(body, Via=", ".join(hops[:25]))).expect(202)
    same((await alice.only())["gateway"]["via"][0], f"gw0.{ELSEWHERE}", "the first hop in gateway.via")
