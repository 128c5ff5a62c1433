"""A webhook is believed only where its signature fits, and only in its time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.webhook_signature import (
    ID,
    SIGNATURE,
    TIMESTAMP,
    TOLERANCE,
    parse_secret,
    render_secret,
    sign,
    verify,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BODY = b'{"message_id":"m-1"}'
SECRET = render_secret(bytes(range(32)))
OTHER = render_secret(bytes(32))


def refused(headers: dict[str, str], body: bytes = BODY, now: datetime = NOW) -> str:
    """The header that the refusal names."""
    with pytest.raises(AMTPError) as failure:
        verify(headers, body, [SECRET], now)
    assert failure.value.code is Code.SIGNATURE_INVALID
    assert failure.value.details is not None
    return str(failure.value.details["field"])


def test_the_signature_is_the_one_that_standard_webhooks_publishes() -> None:
    # The test vector of the specification's reference libraries.
    headers = sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers == {
        ID: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        TIMESTAMP: "1614265330",
        SIGNATURE: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(st.text(max_size=200), st.binary(min_size=16, max_size=128))
def test_the_reference_library_signs_the_same(body: str, key: bytes) -> None:
    ours = sign("m-1", NOW, body.encode(), [render_secret(key)])
    assert ours[SIGNATURE] == Webhook(render_secret(key)).sign("m-1", NOW, body)


@given(st.binary(max_size=200), st.binary(min_size=16, max_size=128))
def test_what_is_signed_verifies(body: bytes, key: bytes) -> None:
    secret = render_secret(key)
    signed = verify(sign("m-1", NOW, body, [secret]), body, [secret], NOW)
    assert (signed.id, signed.at) == ("m-1", NOW)


def test_names_of_headers_may_be_written_in_any_case() -> None:
    headers = {name.title(): value for name, value in sign("m-1", NOW, BODY, [SECRET]).items()}
    assert verify(headers, BODY, [SECRET], NOW).id == "m-1"


@pytest.mark.parametrize(("signers", "holders"), [([OTHER, SECRET], [SECRET]), ([SECRET], [OTHER, SECRET])])
def test_while_a_secret_is_changed_one_that_fits_is_enough(signers: list[str], holders: list[str]) -> None:
    assert verify(sign("m-1", NOW, BODY, signers), BODY, holders, NOW).id == "m-1"


def test_signatures_of_other_versions_are_passed_over() -> None:
    headers = sign("m-1", NOW, BODY, [SECRET])
    headers[SIGNATURE] = f"v1a,AAAA v1,é {headers[SIGNATURE]}"
    assert verify(headers, BODY, [SECRET], NOW).id == "m-1"
    headers[SIGNATURE] = headers[SIGNATURE].replace(" v1,", " v2,")
    assert refused(headers) == SIGNATURE


@pytest.mark.parametrize("changed", [{ID: "m-2"}, {TIMESTAMP: str(int(NOW.timestamp()) + 1)}])
def test_a_changed_id_or_time_is_refused(changed: dict[str, str]) -> None:
    assert refused(sign("m-1", NOW, BODY, [SECRET]) | changed) == SIGNATURE


def test_a_changed_body_and_a_strange_secret_are_refused() -> None:
    assert refused(sign("m-1", NOW, BODY, [SECRET]), BODY + b" ") == SIGNATURE
    assert refused(sign("m-1", NOW, BODY, [OTHER])) == SIGNATURE


@pytest.mark.parametrize("side", [-1, 1])
def test_five_minutes_either_way_are_tolerated_and_no_more(side: int) -> None:
    headers = sign("m-1", NOW, BODY, [SECRET])
    assert verify(headers, BODY, [SECRET], NOW + side * TOLERANCE).at == NOW
    assert refused(headers, now=NOW + side * (TOLERANCE + timedelta(seconds=1))) == TIMESTAMP


@pytest.mark.parametrize("missing", [ID, TIMESTAMP, SIGNATURE])
def test_each_missing_header_is_named(missing: str) -> None:
    headers = sign("m-1", NOW, BODY, [SECRET])
    del headers[missing]
    assert refused(headers) == missing


@pytest.mark.parametrize("seconds", ["", "-1", "1e9", "soon", "９", "1" * 30, " 1"])
def test_a_time_that_is_no_number_of_seconds_is_refused(seconds: str) -> None:
    assert refused(sign("m-1", NOW, BODY, [SECRET]) | {TIMESTAMP: seconds}) == TIMESTAMP


def test_a_full_stop_in_an_id_is_refused_on_both_sides() -> None:
    with pytest.raises(ValueError, match="webhook id"):
        sign("m.1", NOW, BODY, [SECRET])
    assert refused(sign("m-1", NOW, BODY, [SECRET]) | {ID: "m.1"}) == ID


def test_without_a_secret_nothing_is_signed_and_nothing_believed() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        sign("m-1", NOW, BODY, [])
    with pytest.raises(AMTPError, match="fits none"):
        verify(sign("m-1", NOW, BODY, [SECRET]), BODY, [], NOW)


def test_a_callers_own_secret_is_its_utf_8_bytes() -> None:
    assert parse_secret("schlüsselschlüssel") == "schlüsselschlüssel".encode()
    assert parse_secret(SECRET) == bytes(range(32))


@pytest.mark.parametrize(
    "text", ["", "fifteen letters", "x" * 129, "whsec_", "whsec_AAAA", "whsec_not base64", "\ud800" * 16]
)
def test_a_secret_that_protects_nothing_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(AMTPError) as failure:
        parse_secret(text, "webhook.secret")
    assert failure.value.details == {"field": "webhook.secret"}
    assert not text or text not in failure.value.message.removeprefix("webhook.secret behind whsec_ ")
