"""Section 8: errors, always in the same form. Every refusal of every other check is held to it, too."""

from conformance.check import core, extended, holds, same
from conformance.target import Reply, Target


@core
async def unknown_paths_are_refused_in_the_same_form(target: Target) -> None:
    """A path that does not exist is answered by 404 and an envelope that does not echo it."""
    for path in (
        "/v1/secret-path",
        "/secret-path",
        "/v1/messages/secret/path/long",
        "/v2/messages",
        "/v1/%00secret",
    ):
        reply = await target.call("GET", path)
        reply.refused("NOT_FOUND")
        holds(b"secret" not in reply.body, f"the answer to {path} does not repeat it")


@core
async def other_methods_are_refused_in_the_same_form(target: Target) -> None:
    """A method that a path does not take is answered by 405, an envelope and the header Allow."""
    for method, path in (("PUT", "/v1/messages"), ("PATCH", "/v1/messages"), ("DELETE", "/v1/messages")):
        reply = await target.call(method, path, body=b"{}")
        reply.refused("METHOD_NOT_ALLOWED")
        holds("POST" in reply.headers.get("allow", ""), "Allow names POST")


@extended
async def unknown_parameters_are_refused(target: Target) -> None:
    """D: A query parameter that the endpoint does not know is refused, and nothing happens as if it were not there."""
    alice = await target.agent()
    for path in (f"/v1/inbox/{alice.address}?waitt=1", "/v1/messages?role=x", "/v1/discovery/agents?role=x"):
        (await alice.get(path)).refused("INVALID_MESSAGE_FORMAT")


@core
async def the_envelope_is_json_whatever_was_asked_for(target: Target) -> None:
    """A refusal is JSON, even where the client would rather have something else."""
    for accept in ("text/html", "application/xml", "text/event-stream"):
        reply = await target.call("GET", "/v1/nowhere", headers={"Accept": accept})
        reply.refused("NOT_FOUND")
        holds(reply.headers["content-type"].startswith("application/json"), "Content-Type is JSON")


@core
async def errors_do_not_repeat_what_was_sent(target: Target) -> None:
    """No refusal repeats what a body held: it may end in a log or on a page."""
    alice = await target.agent()
    mark = "<script>"
    replies: list[Reply] = [
        await alice.post(f"{{{mark}".encode()),
        await alice.send(f"{mark}@{target.domain}"),
        await alice.send(alice.address, version=mark),
        await alice.send(alice.address, timestamp=mark),
        await alice.send(alice.address, headers={"priority": mark}),
        await alice.get(f"{alice.box}?limit=%3Cscript%3E"),
    ]
    for reply in replies:
        same(reply.status, 400, f"the status of {reply.asked}")
        holds(
            "message" in reply.envelope() and mark.encode() not in reply.body, f"{reply.asked} does not echo"
        )


@core
async def a_refused_message_is_in_no_inbox(target: Target) -> None:
    """What was refused is delivered to nobody, and its id is unknown."""
    alice, bob = await target.agents(2)
    message_id = target.name()
    (await alice.send(bob.address, message_id=message_id, version="9")).refused("UNSUPPORTED_VERSION")
    (await alice.get(f"/v1/messages/{message_id}")).refused("NOT_FOUND")
    same(await bob.inbox(), [], "the inbox")


@core
async def parameters_out_of_range_are_refused(target: Target) -> None:
    """A query parameter that is no number, out of range, given twice or misspelled is refused by name."""
    alice = await target.agent()
    box = alice.box
    for query in (
        "limit=0",
        "limit=1001",
        "limit=x",
        "offset=-1",
        "limit=1&limit=2",
        "since=yesterday",
        "status=new",
    ):
        for path in (box, "/v1/messages"):
            error = (await alice.get(f"{path}?{query}")).refused("INVALID_MESSAGE_FORMAT")
            holds(
                query.partition("=")[0] in error["message"],
                f"the error of {path}?{query} names the parameter",
            )
