"""Requests made from the served interface document, good and bad: no fault, no answer it does not tell of."""

import asyncio
import itertools
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.config.sections import DnsSettings, InboxSettings
from tests.world import Gateway, World

EXAMPLES = 10  # of each operation, good ones and as many bad ones; `make soak` asks more
SECONDS_MAX = 10.0  # for one answer
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NOWHERE = DnsSettings(nameservers=("127.0.0.1:9",), timeout_seconds=0.2)
KEYLESS_EVERY = 5  # so that strangers are among those who ask


@schemathesis.serializer("application/x-ndjson")
def as_lines(_context: Any, value: Any) -> bytes:
    values = value if isinstance(value, list) else [value]
    return b"\n".join(json.dumps(each).encode() for each in values)


@dataclass(frozen=True)
class Town:
    """What there is at the gateway to ask for."""

    url: str
    keys: dict[str, str]  # by the beginning of the paths they open
    parts: dict[str, str]  # of paths
    sender: str
    recipient: str


async def town_of(gateway: Gateway) -> Town:
    alice, bob = await gateway.register("alice"), await gateway.register("bob")
    await gateway.register("spare")
    sent = await bob.send(alice.address)
    return Town(
        gateway.url,
        {"/v1/admin/": gateway.admin_key, "/v1/dead-letters": gateway.admin_key, "/": alice.key},
        {
            "address": alice.address,
            "local": "spare",
            "domain": gateway.domain,
            "id": str(sent.json["message_id"]),
            "number": "1",
            "n": "0",
            "token": "A" * 43,
            "destination": "peer.test",
            "webhook": "01900000-0000-7000-8000-000000000000",
        },
        alice.address,
        bob.address,
    )


def steer(town: Town, case: Case[Any]) -> None:
    """Leads a request to what is there; left alone, hardly any would get past the first check."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = town.parts[name]
    if case.operation.label == "POST /v1/messages" and isinstance(case.body, dict):
        case.body |= {"sender": town.sender, "recipients": [town.recipient]}


def served_by(town: Town) -> dict[str, Any]:
    with urlopen(f"{town.url}/openapi.json") as served:
        document: dict[str, Any] = json.load(served)
    # Strings for a pattern that looks ahead are found by trying, which takes minutes.
    document["components"]["schemas"]["MessageAddress"]["pattern"] = r"^[a-z]{1,9}@[a-z]{1,9}\.test$"
    return document


def bombard(town: Town, document: dict[str, Any], *, examples: int = EXAMPLES) -> None:
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    schema: Any = schemathesis.openapi.from_dict(document, config=config)
    operations = [found.ok() for found in schema.get_all_operations()]
    operations.sort(key=lambda operation: str(operation.method).lower() == "delete")
    with requests.Session() as session:
        for operation, mode in itertools.product(operations, GenerationMode):
            for body in operation.body or [None]:
                strategy = operation.as_strategy(
                    generation_mode=mode, media_type=None if body is None else body.media_type
                )
                # An operation that takes nothing can't be asked badly.
                with suppress(*[Unsatisfiable] if mode is GenerationMode.NEGATIVE else []):
                    ask_for(strategy, town, session, examples)


def ask_for(strategy: Any, town: Town, session: requests.Session, examples: int) -> None:
    numbers = itertools.count()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def ask(case: Case[Any]) -> None:
        number = next(numbers)
        if number % 2:
            steer(town, case)
        (case.query or {}).pop("wait", None)  # it would be waited for
        key = town.keys["/v1/admin/" if case.path.startswith("/v1/admin/") else "/"]
        headers = {} if number % KEYLESS_EVERY == 0 else {"Authorization": f"Bearer {key}"}
        response = case.call(base_url=town.url, session=session, headers=headers, timeout=SECONDS_MAX)
        assert response.status_code != 500, response.text
        case.validate_response(response, checks=CHECKS)

    ask()


# It is what makes its bad requests, and Hypothesis seeds it for each example.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.timeout(300)
async def test_whatever_is_asked_the_answer_is_one_the_document_tells_of(world: World) -> None:
    await ask_everything(world, EXAMPLES)


async def ask_everything(world: World, examples: int) -> None:
    async with world.gateway(dns=NOWHERE, inbox=InboxSettings(wait_seconds_max=1)) as gateway:
        town = await town_of(gateway)
        await asyncio.to_thread(lambda: bombard(town, served_by(town), examples=examples))
        faults = [line for line in gateway.log.getvalue().splitlines() if " fault " in line]
        assert not faults


@pytest.mark.parametrize(
    ("path", "lie"),
    [
        ("/health", {"200": {"description": "OK", "content": {"text/plain": {}}}}),
        ("/health", {"204": {"description": "Nothing"}}),
        ("/v1/discovery/agents", {"200": {"$ref": "#/components/responses/NotFound"}}),
    ],
)
async def test_a_document_that_tells_otherwise_is_noticed(
    world: World, path: str, lie: dict[str, Any]
) -> None:
    async with world.gateway(dns=NOWHERE) as gateway:
        town = await town_of(gateway)
        document = await asyncio.to_thread(served_by, town)
        operations = document["paths"][path]
        document["paths"] = {path: operations}
        operations["get"]["responses"] = lie
        with pytest.raises((Failure, FailureGroup)):
            await asyncio.to_thread(bombard, town, document)
