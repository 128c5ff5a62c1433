"""The door through which agents read the attachments of their messages, whether uploaded here or fetched from elsewhere.

The gateway fetches a file for whoever may see its message: so an agent need not connect to strangers' servers, and size,
type and hash are verified on the way. An upload to this gateway is read from its own storage.
"""

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from gateway.admit.authenticate import Authenticator
from gateway.config.sections import AttachmentSettings
from gateway.features.attachments.blocks import in_blocks, mismatch, proven
from gateway.features.attachments.fetched_files import FetchedFiles
from gateway.features.attachments.file_answer import answer_file, attended, within
from gateway.features.attachments.openapi import FETCH_ATTACHMENT
from gateway.features.attachments.upload_door import Reading
from gateway.http.answers import Answer, Stream
from gateway.http.limits import Load
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.journal.journal import Journal
from gateway.net.outbound import Download, Kind, Outbound, OutboundError, Patience
from gateway.net.pace import Pace
from gateway.net.shares import Holder
from gateway.protocol.attachments import Attachment, attachments_in, media_type_of, token_in
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.url import Url, parse_url
from gateway.receive.content import ContentRule
from gateway.receive.status import ROLES, not_found, seen_of, viewer_of
from gateway.store.database import Database
from gateway.store.messages.messages import body_of

PAUSE_SECONDS = 30.0
GRACE_SECONDS = 60.0
BYTES_PER_SECOND_MIN = 32_768  # a server that is slower for long is given up
RETRY_AFTER_SECONDS = 30

UNTYPED = frozenset({"application/octet-stream", "binary/octet-stream"})  # says that it doesn't know

_PLACE = re.compile(r"[0-9]{1,3}")


class MessageFileDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        reading: Reading,
        content: ContentRule,
        outbound: Outbound,
        fetched: FetchedFiles,
        journal: Journal,
        rules: AttachmentSettings,
        base: Url,
        load: Load,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._reading = reading
        self._content = content
        self._outbound = outbound
        self._fetched = fetched
        self._journal = journal
        self._rules = rules
        self._base = base
        self._load = load

    def routes(self) -> list[Route]:
        return [Route("GET", "/v1/messages/{id}/attachments/{n}", self.fetch, ROLES, FETCH_ATTACHMENT)]

    async def fetch(self, request: Request) -> Answer | Stream:
        caller = await self._authenticator.caller(request)
        seen = await seen_of(self._database, request, viewer_of(caller))
        body = await body_of(self._database, seen.found.row)
        attachments = attachments_in(body) if body is not None else ()
        place = request.params["n"]
        if not _PLACE.fullmatch(place) or int(place) >= len(attachments):
            raise not_found()
        await self._content.require(request, caller, seen.found.message_id, f"attachment {place}")
        return await self._answer(request, attachments[int(place)])

    async def _answer(self, request: Request, attachment: Attachment) -> Answer | Stream:
        token = token_in(attachment.url, self._base)
        if token is not None:
            return await self._reading.answer(request, token, attachment)
        if attachment.size > self._rules.bytes_each:
            raise AMTPError(
                Code.MESSAGE_TOO_LARGE,
                f"The file has more than the {self._rules.bytes_each} bytes that are fetched here.",
                {"limit": self._rules.bytes_each},
            )
        kept = await self._fetched.find(attachment)
        if kept is not None:
            blocks = self._reading.within(request, kept)
        else:
            blocks = attended(request, self._fetched.keep(attachment, self._fetch(request, attachment)))
        return await answer_file(
            blocks,
            filename=attachment.filename,
            content_type=attachment.content_type,
            size=attachment.size,
        )

    async def _fetch(self, request: Request, attachment: Attachment) -> AsyncGenerator[bytes, None]:
        """Fetches the file from its URL and verifies it on the way."""
        try:
            taken = within(self._place(attachment.url), self._taken(attachment))
            taken = within(self._load.fetches.held(request.holder), taken)
            async with aclosing(proven(taken, attachment.size, attachment.digest)) as blocks:
                async for block in blocks:
                    yield block
        except OutboundError as error:
            self._journal.noted("info", f"An attachment could not be fetched: {error.message}.")
            raise refusal_of(error) from error

    @contextmanager
    def _place(self, url: str) -> Iterator[None]:
        """Holds a place of the host, which may have as many as one caller may."""
        parsed = parse_url(url)
        assert isinstance(parsed, Url), "checked when the message came"
        host = parsed.host
        holder = Holder(owner=host)
        try:
            self._load.hosts.take(holder)
        except AMTPError:
            raise _later(f"Enough files are on their way from {host}; try again later.") from None
        try:
            yield
        finally:
            self._load.hosts.give(holder)

    async def _taken(self, attachment: Attachment) -> AsyncGenerator[bytes, None]:
        times = Patience(PAUSE_SECONDS, Pace(GRACE_SECONDS, BYTES_PER_SECOND_MIN))
        async with self._outbound.download(
            attachment.url, {}, times=times, answer_bytes_max=attachment.size
        ) as download:
            check_head(download, attachment)
            async with aclosing(in_blocks(download.chunks)) as blocks:
                async for block in blocks:
                    yield block


def check_head(download: Download, attachment: Attachment) -> None:
    """Raises unless the response head announces the file itself; a redirect is not followed."""
    status, headers = download.status, download.headers
    if status in (404, 410):
        raise AMTPError(Code.NOT_FOUND, f"There is no file at its URL any more (HTTP {status}).")
    if status == 429 or status >= 500:
        raise _later(f"Where the file lies there is trouble (HTTP {status}); try again later.")
    if status != 200:
        raise AMTPError(Code.CONFLICT, f"Its URL does not give the file but HTTP {status}.")
    given = media_type_of(headers.get("content-type", ""))
    if given and given not in UNTYPED and given != attachment.media_type:
        raise mismatch(f"is {given!a:.100} and should be {attachment.media_type}")
    length = headers.get("content-length")
    if length is not None and int(length) != attachment.size:
        raise mismatch(f"has {length} of the {attachment.size} bytes it should have")


def refusal_of(error: OutboundError) -> AMTPError:
    """Returns the error an agent gets for a failed fetch; it does not reveal what internal names resolve to."""
    match error.kind:
        case Kind.REFUSED_ADDRESS:
            return AMTPError(Code.POLICY_DENIED, "The file lies where this gateway fetches nothing from.")
        case Kind.TOO_LARGE:
            return mismatch("is larger than it should be")
        case Kind.PROTOCOL:
            return AMTPError(Code.CONFLICT, f"The file can't be fetched: {error.message}.")
        case _:
            return _later(f"The file can't be fetched at the moment: {error.message}.")


def _later(text: str) -> AMTPError:
    return AMTPError(Code.TEMPORARY_FAILURE, text, retry_after=RETRY_AFTER_SECONDS)
