"""An agent that is pushed to lets each signed request in once."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.client.agent import Agent
from gateway.client.webhooks import Verifier
from gateway.protocol.errors import AMTPError
from gateway.protocol.webhook_signature import TOLERANCE, sign

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BODY = b'{"message_id":"m-1"}'
SECRETS = ["a secret of the caller's own"]


def test_a_request_is_let_in_once_and_its_replay_refused() -> None:
    verifier, headers = Verifier(), sign("m-1", NOW, BODY, SECRETS)
    assert verifier.verify_webhook(headers, BODY, SECRETS, NOW).id == "m-1"
    with pytest.raises(AMTPError, match="replay"):
        verifier.verify_webhook(headers, BODY, SECRETS, NOW)
    assert verifier.verify_webhook(sign("m-2", NOW, BODY, SECRETS), BODY, SECRETS, NOW).id == "m-2"


def test_a_retry_of_the_gateway_is_no_replay() -> None:
    verifier, later = Verifier(), NOW + timedelta(seconds=1)
    for moment in (NOW, later):
        signed = verifier.verify_webhook(sign("m-1", moment, BODY, SECRETS), BODY, SECRETS, later)
        assert signed.id == "m-1"


def test_a_forgery_does_not_keep_the_real_one_out() -> None:
    verifier, headers = Verifier(), sign("m-1", NOW, BODY, SECRETS)
    with pytest.raises(AMTPError, match="fits none"):
        verifier.verify_webhook(headers, BODY + b" ", SECRETS, NOW)
    assert verifier.verify_webhook(headers, BODY, SECRETS, NOW).id == "m-1"


def test_a_replay_is_refused_as_long_as_its_time_would_be_accepted() -> None:
    verifier, headers = Verifier(), sign("m-1", NOW + TOLERANCE, BODY, SECRETS)
    verifier.verify_webhook(headers, BODY, SECRETS, NOW)
    last = NOW + 2 * TOLERANCE
    verifier.verify_webhook(sign("m-2", last, BODY, SECRETS), BODY, SECRETS, last)
    with pytest.raises(AMTPError, match="replay"):
        verifier.verify_webhook(headers, BODY, SECRETS, last)


def test_what_is_too_old_to_be_accepted_is_forgotten_and_the_rest_bounded() -> None:
    verifier = Verifier(seen_max=3)
    for n in range(10):
        verifier.verify_webhook(sign(f"m-{n}", NOW, BODY, SECRETS), BODY, SECRETS, NOW)
    assert len(verifier._seen) == 3
    later = NOW + TOLERANCE + timedelta(seconds=1)
    verifier.verify_webhook(sign("m-0", later, BODY, SECRETS), BODY, SECRETS, later)
    assert len(verifier._seen) == 1


def test_an_agent_verifies_by_the_clock_of_its_machine() -> None:
    agent = Agent("bob@acme.test")
    headers = sign("m-1", datetime.now(UTC), BODY, SECRETS)
    assert agent.verify_webhook(headers, BODY, SECRETS).id == "m-1"
    with pytest.raises(AMTPError, match="replay"):
        agent.verify_webhook(headers, BODY, SECRETS)
    with pytest.raises(AMTPError, match="minutes away"):
        agent.verify_webhook(sign("m-1", NOW, BODY, SECRETS), BODY, SECRETS)
