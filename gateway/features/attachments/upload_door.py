"""The door for files: agents upload them, and whoever knows the URL fetches them.

The URL is the key: 256 random bits that stand in the messages of those who may have the file.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.admit.rules import require_known
from gateway.config.sections import AttachmentSettings
from gateway.features.attachments.blocks import proven
from gateway.features.attachments.check import type_rule
from gateway.features.attachments.file_answer import answer_file, within
from gateway.features.attachments.openapi import FETCH_UPLOAD, UPLOAD
from gateway.features.attachments.uploads import BYTES_PER_SECOND_MIN, Upload, Uploads
from gateway.http.answers import Answer, Stream, answer_json
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.net.pace import Pace
from gateway.net.shares import Pot
from gateway.protocol.attachments import (
    Attachment,
    check_content_type,
    check_filename,
    is_token,
    media_type_of,
    render_attachment,
    upload_url,
)
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.url import Url

FILENAME_DEFAULT = "attachment"
CONTENT_TYPE_DEFAULT = "application/octet-stream"
GRACE_SECONDS = 120.0  # for the slow start of any upload


class AttachmentDoor:
    def __init__(
        self,
        *,
        uploads: Uploads,
        reading: "Reading",
        authenticator: Authenticator,
        rules: AttachmentSettings,
        base: Url,
        places: Pot,
    ) -> None:
        self._uploads = uploads
        self._reading = reading
        self._authenticator = authenticator
        self._rules = rules
        self._base = base
        self._places = places

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/attachments", self.upload, frozenset({Role.AGENTS, Role.ADMIN}), UPLOAD),
            Route(
                "GET",
                "/v1/attachments/{token}",
                self.fetch,
                frozenset({Role.PUBLIC, Role.AGENTS}),
                FETCH_UPLOAD,
            ),
        ]

    async def upload(self, request: Request) -> Answer:
        caller = await self._authenticator.caller(request)
        owner = owner_of(caller)
        filename = check_filename(request.query.get("filename", FILENAME_DEFAULT), "query parameter filename")
        content_type = check_content_type(
            request.header("Content-Type") or CONTENT_TYPE_DEFAULT, "the header Content-Type"
        )
        type_rule(media_type_of(content_type), self._rules, "the header Content-Type")
        bytes_max = min(self._rules.bytes_each, self._rules.unsent_bytes, self._rules.agent_bytes)
        declared = request.declared_bytes
        with self._places.held(request.holder):
            pieces = request.pieces(bytes_max, Pace(GRACE_SECONDS, BYTES_PER_SECOND_MIN))
            async with aclosing(pieces):
                upload = await self._uploads.keep(
                    pieces,
                    owner=owner,
                    filename=filename,
                    content_type=content_type,
                    bytes_max=bytes_max if declared is None else declared,
                )
        return answer_json(render_attachment(self._attachment(upload)), 201)

    async def fetch(self, request: Request) -> Answer | Stream:
        return await self._reading.answer(request, request.params["token"])

    def _attachment(self, upload: Upload) -> Attachment:
        url = upload_url(self._base, upload.token)
        return Attachment(upload.filename, upload.content_type, upload.size, upload.digest, url)


class Reading:
    """The download of uploads, with a limit on concurrent ones. Hashes are verified here as well: disks lose bits."""

    def __init__(self, uploads: Uploads, places: Pot) -> None:
        self._uploads = uploads
        self._places = places

    async def answer(
        self, request: Request, token: str, attachment: Attachment | None = None
    ) -> Answer | Stream:
        """Returns the file as an answer, under the name that the attachment gives it."""
        upload = (await self._uploads.find([token])).get(token) if is_token(token) else None
        if upload is None:
            raise AMTPError(Code.NOT_FOUND, "There is no file at this URL, or not any more.")
        named = attachment or upload
        blocks = self.within(request, self._uploads.blocks(upload))
        return await answer_file(
            proven(blocks, upload.size, upload.digest),
            filename=named.filename,
            content_type=named.content_type,
            size=upload.size,
        )

    def within(self, request: Request, blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Returns the same blocks, which hold a place of the request's caller."""
        return within(self._places.held(request.holder), blocks)


def owner_of(caller: Caller) -> str:
    """Returns the owner of the caller's uploads: an agent, or a key that may submit for agents."""
    require_known(caller)
    if caller.agent is not None:
        return caller.agent
    if not caller.submits and not caller.development:
        raise AMTPError(
            Code.POLICY_DENIED, "This takes the key of an agent, or one that may submit for agents."
        )
    return caller.name or "development"
