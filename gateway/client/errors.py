"""Failures of a client's call."""

from typing import Any

# Statuses that no retry changes: the message has to change.
_FINAL = frozenset({400, 404, 405, 409, 413, 415, 422})


class Refused(Exception):
    """A refusal by the gateway. `code` is for programs, the text for people; `details` may name the field."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: dict[str, Any] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({code})" if code else message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details or {}
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def final(self) -> bool:
        """Returns whether a retry of the same can't succeed."""
        return self.status in _FINAL


class Unreachable(ConnectionError):
    """A call that no gateway answered within the agent's patience. The last attempt may have arrived; a retry with the
    same idempotency key is safe."""


class NoReply(TimeoutError):
    """A reply that did not come in time. A later one lies in the inbox, `in_reply_to` this id."""

    def __init__(self, message_id: str, seconds: float, *, doubted: bool = False) -> None:
        text = f"No reply to {message_id} came within {seconds:g} seconds."
        if doubted:
            text += (
                " One lies in the inbox whose sender the gateway could not prove; agree on a key with its domain,"
                " or take such replies with Agent(accept_unproven_replies=True)."
            )
        super().__init__(text)
        self.message_id = message_id


class Undelivered(Exception):
    """A request that was accepted, but could not be delivered."""

    def __init__(self, message_id: str, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})" if code else message)
        self.message_id = message_id
        self.code = code
        self.message = message
