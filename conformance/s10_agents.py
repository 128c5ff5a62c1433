"""Section 10: agents, their registration and the delivery to them."""

from conformance.check import core, extended, holds, same
from conformance.target import ELSEWHERE, Agent, Target


@core
async def a_new_agent_gets_its_key(target: Target) -> None:
    """A registration is answered by the agent's address, how it gets its mail, its key and a message."""
    address = target.address()
    answer = (await target.register(address=address)).expect(201, 200)
    agent = answer["agent"]
    same(agent["address"], address, "address")
    same(agent["delivery_mode"], "pull", "delivery_mode")
    holds(len(agent["api_key"]) >= 20, "api_key is long enough not to be guessed")
    holds(isinstance(answer["message"], str), "message is text")
    await Agent(address, agent["api_key"], target).inbox()


@core
async def a_name_is_registered_once(target: Target) -> None:
    """A name that is in use can't be registered again, in any case of its letters."""
    alice = await target.agent()
    for address in (alice.address, alice.address.upper()):
        (await target.admin("POST", "/v1/admin/agents", {"address": address})).refused("CONFLICT")
    await alice.inbox()


@core
async def agents_are_of_the_gateways_own_domains(target: Target) -> None:
    """What is no address, and an address of another domain, can't be registered."""
    for address in (f"alice@{ELSEWHERE}", f"@{target.domain}", "", f"a b@{target.domain}", 7, None):
        (await target.admin("POST", "/v1/admin/agents", {"address": address})).refused(
            "INVALID_MESSAGE_FORMAT"
        )
    (await target.admin("POST", "/v1/admin/agents", {})).refused("INVALID_MESSAGE_FORMAT")


@core
async def mail_to_nobody_is_refused_at_once(target: Target) -> None:
    """An unknown local part is AGENT_UNKNOWN at once."""
    alice = await target.agent()
    (await alice.send(target.address())).refused("AGENT_UNKNOWN")


@core
async def admins_see_agents_without_their_secrets(target: Target) -> None:
    """An admin sees an agent by its full address and in the list, never its key."""
    alice = await target.agent(description="checks things")
    shown = await target.admin("GET", f"/v1/admin/agents/{alice.address}")
    same(shown.expect(200)["agent"]["address"], alice.address, "address")
    listed = await target.admin("GET", "/v1/admin/agents?limit=1000")
    holds(
        alice.address in {agent["address"] for agent in listed.expect(200)["agents"]}
        or listed.json["has_more"],
        "the agent is in the list",
    )
    holds(alice.key.encode() not in shown.body + listed.body, "the key is not shown again")
    (await target.admin("GET", f"/v1/admin/agents/{target.address()}")).refused("AGENT_UNKNOWN")


@core
async def agents_can_be_discovered(target: Target) -> None:
    """Whoever has a key finds agents by GET /v1/discovery/agents; without one nobody does."""
    alice, bob = await target.agents(2)
    page = (await bob.get("/v1/discovery/agents?limit=1000")).expect(200)
    holds(
        alice.address in {agent["address"] for agent in page["agents"]} or page["has_more"],
        "the agent is found",
    )
    (await target.call("GET", "/v1/discovery/agents")).refused("AUTHENTICATION_FAILED")


@extended
async def agents_are_found_by_what_they_can(target: Target) -> None:
    """D: A description, schemas and capabilities can be searched, and a hidden agent is not shown."""
    word = target.name()
    alice = await target.agent(description=f"about {word}", capabilities=["sums"])
    hidden = await target.agent(description=f"about {word}", hidden=True)
    page = (await alice.get(f"/v1/discovery/agents?q={word}")).expect(200)
    same([agent["address"] for agent in page["agents"]], [alice.address], "who is found")
    same(page["agents"][0]["capabilities"], ["sums"], "capabilities")
    await alice.sent(hidden.address)
    await hidden.only()


@extended
async def a_retired_agent_keeps_its_inbox(target: Target) -> None:
    """D: A retired agent's key is dead, its inbox goes on accepting, and registering again opens it by a new key."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, payload=1)
    (await target.admin("DELETE", f"/v1/admin/agents/{bob.address}")).expect(200)
    (await bob.get(bob.box)).refused("AUTHENTICATION_FAILED")
    await alice.sent(bob.address, payload=2)
    again = (await target.register(address=bob.address)).expect(201, 200)["agent"]
    holds(again["api_key"] != bob.key, "the key is new")
    found = await Agent(bob.address, again["api_key"], target).inbox()
    same([message["payload"] for message in found], [1, 2], "the payloads in the inbox")


@extended
async def a_removed_agent_is_unknown(target: Target) -> None:
    """D: An agent removed with ?mail=drop is gone for good: mail to it is AGENT_UNKNOWN."""
    alice, bob = await target.agents(2)
    (await target.admin("DELETE", f"/v1/admin/agents/{bob.address}?mail=drop")).expect(200)
    (await alice.send(bob.address)).refused("AGENT_UNKNOWN")
    (await bob.get(bob.box)).refused("AUTHENTICATION_FAILED")


@extended
async def a_key_can_be_replaced_at_once(target: Target) -> None:
    """D: Rotation gives a new key, and without grace the old one is dead."""
    alice = await target.agent()
    path = f"/v1/admin/agents/{alice.address}/rotate-key"
    rotated = (await target.admin("POST", path, {"grace_seconds": 0})).expect(200)["agent"]
    (await alice.get(alice.box)).refused("AUTHENTICATION_FAILED")
    await Agent(alice.address, rotated["api_key"], target).inbox()


@extended
async def push_takes_an_https_url(target: Target) -> None:
    """D: An agent that is posted to needs an https URL; the secret it gets is shown once."""
    for push in (
        None,
        "http://agent.example/hook",
        "agent.example",
        "https://user@agent.example/",
        "ftp://a.example",
    ):
        profile = {"delivery_mode": "push", "push_target": push}
        (await target.register(address=target.address(), **profile)).refused("INVALID_MESSAGE_FORMAT")
    profile = {"delivery_mode": "push", "push_target": f"https://{ELSEWHERE}/hook"}
    agent = (await target.register(address=target.address(), **profile)).expect(201, 200)["agent"]
    holds(agent["push_secret"].startswith("whsec_"), "the minted secret is one of Standard Webhooks")
    shown = await target.admin("GET", f"/v1/admin/agents/{agent['address']}")
    holds(agent["push_secret"].encode() not in shown.body, "the secret is not shown again")


@extended
async def an_address_in_a_path_may_be_in_any_case(target: Target) -> None:
    """D: Paths take an agent's full address, in any case, percent-encoded or not."""
    alice = await target.agent()
    for spelled in (alice.address.upper(), alice.address.replace("@", "%40")):
        (await alice.get(f"/v1/inbox/{spelled}")).expect(200)
        (await target.admin("GET", f"/v1/admin/agents/{spelled}")).expect(200)
