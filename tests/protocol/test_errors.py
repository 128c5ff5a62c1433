"""Every code has the answer docs/protocol.md gives it, and an error survives the way home from a child process."""

import pickle

import pytest

from gateway.protocol.errors import STATUS_OF, AMTPError, Code, envelope

IN_REPORTS_ONLY = {Code.WORKFLOW_TIMEOUT, Code.REQUIRED_RESPONSE_MISSING, Code.COORDINATION_FAILED}


def test_every_code_that_answers_a_request_has_a_status() -> None:
    assert set(Code) - set(STATUS_OF) == IN_REPORTS_ONLY


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.INVALID_MESSAGE_FORMAT, 400),
        (Code.SIGNATURE_INVALID, 401),
        (Code.RELAY_DENIED, 403),
        (Code.AGENT_UNKNOWN, 404),
        (Code.IDEMPOTENCY_CONFLICT, 409),
        (Code.MESSAGE_TOO_LARGE, 413),
        (Code.UNSUPPORTED_MEDIA_TYPE, 415),
        (Code.RATE_LIMIT_EXCEEDED, 429),
        (Code.QUEUE_FULL, 503),
    ],
)
def test_an_error_knows_its_status(code: Code, status: int) -> None:
    assert AMTPError(code, "no").status == status


@pytest.mark.parametrize("code", sorted(STATUS_OF))
def test_who_is_told_to_come_back_is_told_when(code: Code) -> None:
    assert (AMTPError(code, "no").retry_after is not None) == (STATUS_OF[code] in {429, 503})
    assert AMTPError(code, "no", retry_after=30).retry_after == 30


def test_the_envelope_leaves_out_details_that_are_not_there() -> None:
    bare = envelope(AMTPError(Code.NOT_FOUND, "nothing here"), "r-1", "2026-03-01T12:00:00Z")
    assert bare == {
        "error": {
            "code": "NOT_FOUND",
            "message": "nothing here",
            "timestamp": "2026-03-01T12:00:00Z",
            "request_id": "r-1",
        }
    }
    told = envelope(AMTPError(Code.NOT_FOUND, "nothing here", {"field": "id"}), "r-1", "2026-03-01T12:00:00Z")
    assert told["error"]["details"] == {"field": "id"}


def test_an_error_comes_whole_out_of_a_pickle() -> None:
    error = AMTPError(Code.QUEUE_FULL, "later", {"field": "x"}, 7)
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error)
    assert str(again) == "later"
