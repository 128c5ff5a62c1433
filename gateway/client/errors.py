"""What a call can come to, other than its answer."""

from typing import Any

# Statuses whose refusal is the same again: the message has to change, not the time.
_FINAL = frozenset({400, 404, 405, 409, 413, 415, 422})


class Refused(Exception):
    """The gateway said no. `code` is for the program, the text for people; `details` may name the field."""

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
        """Whether saying the same again can't help."""
        return self.status in _FINAL


class Unreachable(ConnectionError):
    """No gateway answered for as long as the agent is patient. With the same idempotency key it is safe to
    try again: whether the last attempt arrived is not known."""


class NoReply(TimeoutError):
    """The reply did not come in time. When it comes later it is in the inbox, `in_reply_to` this id."""

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
    """The request was accepted, and then could not be delivered; its sender was told so."""

    def __init__(self, message_id: str, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})" if code else message)
        self.message_id = message_id
        self.code = code
        self.message = message
