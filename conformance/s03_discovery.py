"""Section 3.2: what a domain publishes, as a gateway tells it."""

from conformance.check import core, extended, holds, same
from conformance.target import ELSEWHERE, Target

MAX_SIZE_LEAST = 1024


@core
async def a_gateway_tells_what_its_own_domain_can_do(target: Target) -> None:
    """GET /v1/capabilities/{domain} tells gateway, version and largest message of the gateway's own domain."""
    alice = await target.agent()
    told = (await alice.get(f"/v1/capabilities/{target.domain}")).expect(200)
    same(told["domain"], target.domain, "domain")
    same(told["version"], "1.0", "version")
    holds(told["gateway"].startswith(("https://", "http://")), "gateway is a URL")
    holds(told["max_size"] >= MAX_SIZE_LEAST, "max_size is a number of bytes")


@core
async def capabilities_are_for_known_callers(target: Target) -> None:
    """Without a key nobody makes the gateway ask the DNS."""
    reply = await target.call("GET", f"/v1/capabilities/{target.domain}")
    reply.refused("AUTHENTICATION_FAILED")


@core
async def capabilities_of_no_domain_are_refused(target: Target) -> None:
    """What is no domain is refused before it is looked up."""
    alice = await target.agent()
    for text in ("a_b.example", "127.0.0.1", "a..b", "-a.example", "%20"):
        (await alice.get(f"/v1/capabilities/{text}")).refused("INVALID_MESSAGE_FORMAT", "NOT_FOUND")


@extended
async def the_record_of_the_own_domain_is_one_to_publish(target: Target) -> None:
    """D: The answer holds the very TXT record, which begins with v=amtp1 and names the gateway and its features."""
    alice = await target.agent()
    told = (await alice.get(f"/v1/capabilities/{target.domain.upper()}")).expect(200)
    fields = dict(part.split("=", 1) for part in told["record"].split(";"))
    same(fields["v"], "amtp1", "v of the record")
    same(fields["gateway"], told["gateway"], "gateway of the record")
    holds("batch" in told["features"], "batch is among the features, as batches are taken")


@extended
async def a_domain_without_a_gateway_has_no_capabilities(target: Target) -> None:
    """D: A domain that does not exist is NOT_FOUND, or for now not known where the DNS is out of reach."""
    alice = await target.agent()
    reply = await alice.get(f"/v1/capabilities/{ELSEWHERE}")
    reply.refused("NOT_FOUND", "TEMPORARY_FAILURE", "RECIPIENT_UNAVAILABLE")
