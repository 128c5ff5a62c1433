"""Who may hand in what: every kind of caller against every kind of sender."""

import pytest

from gateway.admit.caller import Caller
from gateway.admit.rules import relay_rule, require_admin, require_known, resident_rule, sender_rule
from gateway.protocol.address import RESERVED, parse_address
from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.agents import Resident

DOMAINS = {"acme.test", "zeta.test"}

ANONYMOUS = Caller("192.0.2.1")
DEVELOPMENT = Caller("127.0.0.1", development=True)
ALICE = Caller("192.0.2.1", "alice@acme.test", frozenset({"agent"}), "k1")
ADMIN = Caller("192.0.2.1", scopes=frozenset({"admin"}), name="ops")
SUBMITTER = Caller("192.0.2.1", scopes=frozenset({"submit"}), name="robot")
FOR_ALICE = Caller("192.0.2.1", scopes=frozenset({"submit:alice@acme.test"}), name="robot")
PEER = Caller("192.0.2.1", scopes=frozenset({"peer:far.test"}), name="peer", proven_domain="far.test")

PROVEN, UNPROVEN = True, False
UNASKED, FORBIDDEN = Code.AUTHENTICATION_FAILED, Code.SENDER_NOT_ALLOWED


@pytest.mark.parametrize(
    ("caller", "own", "other", "foreign", "elsewhere"),
    [
        # sender: alice@acme.test, bob@zeta.test, carol@far.test, dave@elsewhere.test
        (ANONYMOUS, UNASKED, UNASKED, UNPROVEN, UNPROVEN),
        (DEVELOPMENT, PROVEN, PROVEN, UNPROVEN, UNPROVEN),
        (ALICE, PROVEN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
        (ADMIN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
        (SUBMITTER, PROVEN, PROVEN, FORBIDDEN, FORBIDDEN),
        (FOR_ALICE, PROVEN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
        (PEER, FORBIDDEN, FORBIDDEN, PROVEN, UNPROVEN),
    ],
)
def test_a_caller_hands_in_only_for_whom_it_speaks(
    caller: Caller, own: object, other: object, foreign: object, elsewhere: object
) -> None:
    answers = [
        answer(caller, sender)
        for sender in ("alice@acme.test", "bob@zeta.test", "carol@far.test", "dave@elsewhere.test")
    ]

    assert answers == [own, other, foreign, elsewhere]


def answer(caller: Caller, sender: str) -> bool | Code:
    try:
        return sender_rule(caller, parse_address(sender, "sender"), DOMAINS)
    except AMTPError as refusal:
        return refusal.code


def test_a_tag_is_the_same_agent() -> None:
    assert answer(ALICE, "Alice+session@ACME.test") is PROVEN


@pytest.mark.parametrize("local", sorted(RESERVED))
@pytest.mark.parametrize("caller", [ANONYMOUS, DEVELOPMENT, ALICE, ADMIN, SUBMITTER, PEER])
def test_nobody_sends_as_a_reserved_address_of_this_house(caller: Caller, local: str) -> None:
    assert answer(caller, f"{local}@acme.test") is FORBIDDEN


@pytest.mark.parametrize(
    ("sender", "recipient", "allowed"),
    [
        ("alice@acme.test", "bob@zeta.test", True),
        ("alice@acme.test", "carol@far.test", True),
        ("carol@far.test", "alice@acme.test", True),
        ("carol@far.test", "dave@elsewhere.test", False),
        ("carol@far.test", "dave@far.test", False),
    ],
)
def test_mail_from_elsewhere_to_elsewhere_is_not_relayed(sender: str, recipient: str, allowed: bool) -> None:
    try:
        relay_rule(parse_address(sender, "sender"), parse_address(recipient, "recipients"), DOMAINS)
        refused = None
    except AMTPError as refusal:
        refused = refusal.code

    assert refused is (None if allowed else Code.RELAY_DENIED)


@pytest.mark.parametrize(
    ("caller", "state", "allowed"),
    [
        (SUBMITTER, "active", True),
        (SUBMITTER, "retired", False),
        (SUBMITTER, None, False),
        (DEVELOPMENT, None, True),
        (ALICE, "active", True),
    ],
)
def test_a_key_submits_for_agents_that_are_there(caller: Caller, state: str | None, allowed: bool) -> None:
    resident = Resident(1, "alice@acme.test", "pull", state) if state else None
    try:
        resident_rule(caller, parse_address("alice@acme.test", "sender"), resident)
        refused = None
    except AMTPError as refusal:
        refused = refusal.code

    assert refused is (None if allowed else FORBIDDEN)


@pytest.mark.parametrize(
    ("caller", "admin", "known"),
    [
        (ANONYMOUS, UNASKED, UNASKED),
        (DEVELOPMENT, UNASKED, None),
        (ALICE, Code.POLICY_DENIED, None),
        (SUBMITTER, Code.POLICY_DENIED, None),
        (PEER, Code.POLICY_DENIED, None),
        (ADMIN, None, None),
    ],
)
def test_an_operators_work_takes_an_admin_key(caller: Caller, admin: Code | None, known: Code | None) -> None:
    refusals: list[Code | None] = []
    for rule in (require_admin, require_known):
        try:
            rule(caller)
            refusals.append(None)
        except AMTPError as refusal:
            refusals.append(refusal.code)

    assert refusals == [admin, known]
