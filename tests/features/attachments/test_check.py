"""What files a message may refer to."""

from dataclasses import replace

import pytest

from gateway.config.sections import AttachmentSettings
from gateway.features.attachments.check import attachments_rule, type_rule, upload_rule
from gateway.features.attachments.uploads import Upload
from gateway.protocol.attachments import Attachment
from gateway.protocol.errors import AMTPError, Code
from tests.protocol.samples import ROW

FILE = Attachment("offer.pdf", "application/pdf", 1000, b"x" * 32, "https://files.b.test/offer.pdf")
UPLOAD = Upload(ROW, "token", "offer.pdf", "Application/PDF; x=y", "file", 1000, b"x" * 32)
RULES = AttachmentSettings(count=2, bytes_each=1000, bytes_together=1500)


def refusal(*attachments: Attachment, rules: AttachmentSettings = RULES) -> AMTPError:
    with pytest.raises(AMTPError) as refused:
        attachments_rule(attachments, rules)
    return refused.value


def test_what_keeps_the_limits_may_enter() -> None:
    attachments_rule([FILE, replace(FILE, size=500)], RULES)


def test_too_many_are_refused() -> None:
    error = refusal(*[replace(FILE, size=0)] * 3)
    assert (error.code, error.details) == (Code.INVALID_MESSAGE_FORMAT, {"field": "attachments"})


def test_one_that_is_too_large_is_refused_by_name() -> None:
    error = refusal(replace(FILE, size=0), replace(FILE, size=1001))
    assert error.code is Code.MESSAGE_TOO_LARGE
    assert error.details == {"field": "attachments[1].size", "limit": 1000}


def test_those_that_are_too_large_together_are_refused() -> None:
    error = refusal(FILE, replace(FILE, size=501))
    assert error.code is Code.MESSAGE_TOO_LARGE
    assert error.details == {"field": "attachments", "limit": 1500}


@pytest.mark.parametrize("written", ["application/pdf", "Application/PDF", "image/png", "IMAGE/webp;q=1"])
def test_a_type_that_is_taken_may_be_written_in_any_way(written: str) -> None:
    attachments_rule(
        [replace(FILE, content_type=written)], replace(RULES, types=("application/pdf", "image/*"))
    )


@pytest.mark.parametrize("written", ["application/zip", "imagex/png", "text/html; x=image/png"])
def test_another_type_is_refused_with_those_that_are_taken(written: str) -> None:
    rules = replace(RULES, types=("application/pdf", "image/*"))
    error = refusal(replace(FILE, content_type=written), rules=rules)
    assert error.details == {"field": "attachments[0].content_type"}
    assert "application/pdf, image/*" in error.message


def test_without_a_list_every_type_is_taken() -> None:
    type_rule("x/anything", RULES, "field")


def test_an_upload_is_what_the_message_says_of_it() -> None:
    upload_rule(FILE, UPLOAD, "attachments[0]")


@pytest.mark.parametrize(
    ("upload", "field"),
    [
        (None, "url"),
        (replace(UPLOAD, size=999), "size"),
        (replace(UPLOAD, digest=b"y" * 32), "hash"),
        (replace(UPLOAD, content_type="text/html"), "content_type"),
    ],
)
def test_a_message_that_says_otherwise_of_an_upload_is_refused(upload: Upload | None, field: str) -> None:
    with pytest.raises(AMTPError) as refused:
        upload_rule(FILE, upload, "attachments[3]")
    assert refused.value.details == {"field": f"attachments[3].{field}"}
