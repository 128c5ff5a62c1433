"""The check of a message's attachments: number, size and types, and that uploads to this gateway exist.

A file elsewhere is not looked at until somebody fetches it. One that was uploaded to this gateway is compared at once,
and stays as long as the message does.
"""

from collections.abc import Awaitable, Sequence

from gateway.admit.caller import Caller
from gateway.admit.checks import Judgement, Pass, Stage
from gateway.config.sections import AttachmentSettings
from gateway.features.attachments.uploads import Held, Upload, Uploads
from gateway.protocol.attachments import Attachment, token_in
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.fields import fault
from gateway.protocol.message import Message
from gateway.protocol.url import Url


class AttachmentCheck:
    """The check of the attachments of a message."""

    stage = Stage.ATTACHMENTS

    def __init__(self, rules: AttachmentSettings, uploads: Uploads, base: Url) -> None:
        """Takes the rules; `base` is the URL under which uploads of this gateway are fetched."""
        self._rules = rules
        self._uploads = uploads
        self._base = base

    def judge(self, message: Message, _caller: Caller, /) -> Awaitable[Judgement] | None:
        """Holds the uploads that the message refers to; raises where an attachment is not allowed."""
        return self._judge(message) if message.attachments else None

    async def _judge(self, message: Message) -> Judgement:
        attachments = message.attachments
        attachments_rule(attachments, self._rules)
        tokens = [token_in(each.url, self._base) for each in attachments]
        here = {token for token in tokens if token is not None}
        found = await self._uploads.find(here) if here else {}
        for place, (attachment, token) in enumerate(zip(attachments, tokens, strict=True)):
            if token is not None:
                upload_rule(attachment, found.get(token), f"attachments[{place}]")
        return Pass(tuple(Held(message.row, upload.id) for upload in found.values()))


def attachments_rule(attachments: Sequence[Attachment], rules: AttachmentSettings) -> None:
    if len(attachments) > rules.count:
        raise fault("attachments", "are too many", f"send at most {rules.count} with one message")
    for place, attachment in enumerate(attachments):
        if attachment.size > rules.bytes_each:
            raise _too_large(f"attachments[{place}].size", rules.bytes_each)
        type_rule(attachment.media_type, rules, f"attachments[{place}].content_type")
    if sum(attachment.size for attachment in attachments) > rules.bytes_together:
        raise _too_large("attachments", rules.bytes_together)


def type_rule(media_type: str, rules: AttachmentSettings, field: str) -> None:
    family = f"{media_type.partition('/')[0]}/*"
    if rules.types and media_type not in rules.types and family not in rules.types:
        raise fault(field, "is not taken here", f"send one of {', '.join(rules.types)}")


def upload_rule(attachment: Attachment, upload: Upload | None, field: str) -> None:
    """Raises where a message contradicts what the gateway knows of an upload."""
    if upload is None:
        raise fault(f"{field}.url", "leads to no upload of this gateway", "upload the file again")
    for name, said, known in (
        ("size", attachment.size, upload.size),
        ("hash", attachment.digest, upload.digest),
        ("content_type", attachment.media_type, upload.media_type),
    ):
        if said != known:
            raise fault(
                f"{field}.{name}", "is not what was uploaded", "send what the upload was answered with"
            )


def _too_large(field: str, bytes_max: int) -> AMTPError:
    return AMTPError(
        Code.MESSAGE_TOO_LARGE,
        f"{field} comes to more than the {bytes_max} bytes taken here.",
        {"field": field, "limit": bytes_max},
    )
