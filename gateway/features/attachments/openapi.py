"""The OpenAPI operations of attachments."""

from gateway.http.operation import ANYTHING, NO_KEY, Operation, Parameter, Words, ok
from gateway.http.shapes import text
from gateway.receive.openapi_operations import CONTENT_REASON, ROW, SENDER

ATTACHMENTS = "attachments"

FILENAME = Parameter("filename", text(minLength=1, maxLength=255), "Its name, without folders: `attachment`.")

UPLOAD = Operation(
    ATTACHMENTS,
    "Upload a file with the content type of its header; the answer is what a message lists as attachment.",
    ok("MessageAttachment", 201),
    refusals=(403,),
    parameters=(FILENAME,),
    body={ANYTHING: ""},
    body_required=False,
)
FETCH_UPLOAD = Operation(
    ATTACHMENTS, "Download an uploaded file; its URL is the only secret.", {200: {ANYTHING: ""}}, keys=NO_KEY
)
FETCH_ATTACHMENT = Operation(
    ATTACHMENTS,
    "Download an attachment of a message, from wherever it is stored, and check it.",
    {200: {ANYTHING: ""}},
    refusals=(403, 409, 413),
    parameters=(SENDER, ROW, CONTENT_REASON),
)

WORDS = Words(
    parts={
        "token": text("The unguessable part of an upload's URL.", pattern="^[A-Za-z0-9_-]{43}$"),
        "n": text("Its place in the list, from 0.", pattern="^[0-9]{1,3}$"),
    }
)
