"""Attachments: uploaded piece by piece, and checked by their hash when fetched."""

import asyncio
import hashlib
import mimetypes
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from urllib.parse import quote

from gateway.client.errors import Unreachable
from gateway.client.message import Attachment, Message
from gateway.client.wire import MESSAGES, Body, Wire

ATTACHMENTS = "/v1/attachments"
PIECE_BYTES = 256 * 1024
FILENAME, CONTENT_TYPE = "attachment", "application/octet-stream"  # of files without a name or a known type


async def upload(
    wire: Wire, file: Path | bytes, filename: str | None, content_type: str | None
) -> Attachment:
    """Uploads a file; returns the attachment by which a message names it."""
    filename = filename or (file.name if isinstance(file, Path) else FILENAME)
    headers = {"Content-Type": content_type or mimetypes.guess_type(filename)[0] or CONTENT_TYPE}
    body: Body
    if isinstance(file, Path):
        size = (await asyncio.to_thread(file.stat)).st_size
        headers["Content-Length"] = str(size)
        body = partial(_pieces, file, size)  # each attempt reads it anew
    else:
        body = file
    answer = await wire.call("POST", ATTACHMENTS, body, headers, query={"filename": filename})
    return answer.read(Attachment)


async def fetch(wire: Wire, message: Message, place: int) -> bytes:
    """Returns the content of an attachment after checking its hash."""
    attachment = message.attachments[place]
    path = f"{MESSAGES}/{quote(message.id, safe='')}/attachments/{place}"
    content = (await wire.call("GET", path)).raw
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != attachment.hash.lower():
        raise Unreachable(f"What came is not {attachment.filename}: its hash differs.")
    return content


async def _pieces(path: Path, size: int) -> AsyncGenerator[bytes, None]:
    """Yields the first `size` bytes: a file that grows meanwhile is read up to the announced length."""
    with path.open("rb") as file:
        while size > 0 and (piece := await asyncio.to_thread(file.read, min(PIECE_BYTES, size))):
            size -= len(piece)
            yield piece
