"""Errors of AMTP: the codes, their HTTP status, and the one exception for expected failures."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Code(StrEnum):
    INVALID_MESSAGE_FORMAT = "INVALID_MESSAGE_FORMAT"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    INVALID_RECIPIENT = "INVALID_RECIPIENT"
    SCHEMA_VALIDATION_FAILED = "SCHEMA_VALIDATION_FAILED"
    SCHEMA_UNSUPPORTED = "SCHEMA_UNSUPPORTED"
    LOOP_DETECTED = "LOOP_DETECTED"
    AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    SENDER_NOT_ALLOWED = "SENDER_NOT_ALLOWED"
    RELAY_DENIED = "RELAY_DENIED"
    POLICY_DENIED = "POLICY_DENIED"
    AGENT_UNKNOWN = "AGENT_UNKNOWN"
    RECIPIENT_NOT_FOUND = "RECIPIENT_NOT_FOUND"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    MESSAGE_ID_CONFLICT = "MESSAGE_ID_CONFLICT"
    CONFLICT = "CONFLICT"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    RECIPIENT_UNAVAILABLE = "RECIPIENT_UNAVAILABLE"
    TEMPORARY_FAILURE = "TEMPORARY_FAILURE"
    QUEUE_FULL = "QUEUE_FULL"
    WORKFLOW_TIMEOUT = "WORKFLOW_TIMEOUT"
    REQUIRED_RESPONSE_MISSING = "REQUIRED_RESPONSE_MISSING"
    COORDINATION_FAILED = "COORDINATION_FAILED"


# The last three codes of the list above stand in reports and results only: no request is answered with them.
STATUS_OF: Mapping[Code, int] = MappingProxyType(
    {
        code: status
        for status, codes in {
            400: (
                Code.INVALID_MESSAGE_FORMAT,
                Code.UNSUPPORTED_VERSION,
                Code.INVALID_RECIPIENT,
                Code.SCHEMA_VALIDATION_FAILED,
                Code.SCHEMA_UNSUPPORTED,
                Code.LOOP_DETECTED,
            ),
            401: (Code.AUTHENTICATION_FAILED, Code.SIGNATURE_INVALID),
            403: (Code.SENDER_NOT_ALLOWED, Code.RELAY_DENIED, Code.POLICY_DENIED),
            404: (Code.AGENT_UNKNOWN, Code.RECIPIENT_NOT_FOUND, Code.NOT_FOUND),
            405: (Code.METHOD_NOT_ALLOWED,),
            409: (Code.IDEMPOTENCY_CONFLICT, Code.MESSAGE_ID_CONFLICT, Code.CONFLICT),
            413: (Code.MESSAGE_TOO_LARGE,),
            415: (Code.UNSUPPORTED_MEDIA_TYPE,),
            429: (Code.RATE_LIMIT_EXCEEDED,),
            503: (Code.RECIPIENT_UNAVAILABLE, Code.TEMPORARY_FAILURE, Code.QUEUE_FULL),
        }.items()
        for code in codes
    }
)

RETRY_AFTER_SECONDS_DEFAULT = 5  # for an answer of these statuses that knows no better time
RETRY_AFTER_STATUSES = frozenset({429, 503})


class AMTPError(Exception):
    """A request that is refused before it is acknowledged: the one expected failure that is raised."""

    def __init__(
        self,
        code: Code,
        message: str,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        if retry_after is None and STATUS_OF.get(code) in RETRY_AFTER_STATUSES:
            retry_after = RETRY_AFTER_SECONDS_DEFAULT
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return STATUS_OF[self.code]

    def __reduce__(self) -> tuple[type["AMTPError"], tuple[Any, ...]]:
        # Large messages are parsed in a child process, and so are their errors.
        return AMTPError, (self.code, self.message, self.details, self.retry_after)


def envelope(error: AMTPError, request_id: str, timestamp: str) -> dict[str, Any]:
    """Returns the body of an answer that is not a success."""
    body: dict[str, Any] = {"code": error.code.value, "message": error.message}
    if error.details is not None:
        body["details"] = error.details
    body["timestamp"] = timestamp
    body["request_id"] = request_id
    return {"error": body}
