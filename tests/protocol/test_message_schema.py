"""A second opinion: the published JSON Schema and the parser call the same messages valid.

What a schema cannot say is left out of the values tried here: duplicate members, depth, the size of numbers
(test_json_strict), IDNA and the length of a whole domain (test_address), the thirty days of `deliver-after`
(test_headers), the finer points of URLs and cron expressions. A schema calls 1.0 an integer, the parser does
not.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from gateway.protocol.address import ADDRESS_CHARACTERS_MAX
from gateway.protocol.attachments import ATTACHMENTS_MAX, SIZE_BYTES_MAX
from gateway.protocol.errors import AMTPError
from gateway.protocol.fields import LINE_CHARACTERS_MAX
from gateway.protocol.headers import KNOWN, TTL_SECONDS_MAX
from gateway.protocol.message import KEY_CHARACTERS_MAX, MEMBERS_MAX, RECIPIENTS_MAX
from gateway.protocol.timestamp import TIMESTAMP_CHARACTERS_MAX
from tests.protocol.samples import (
    ATTACHMENT,
    COMPLETE,
    HEADERS,
    SIGNATURE,
    messages,
    read,
    spellings,
    values,
    written,
)
from tests.protocol.test_attachments import BAD as BAD_ATTACHMENTS
from tests.protocol.test_headers import BAD as BAD_HEADERS
from tests.protocol.test_message import MUTATIONS

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "message.schema.json").read_text())


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Any:
    """In JSON Schema "$" is the very end of a text; in Python it also matches before a last line break."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$(?=\)|\Z)", r"\\Z", pattern), instance):
        yield ValidationError(f"{instance!r} does not match")


OPINION = extend(Draft202012Validator, {"pattern": _pattern})(
    SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
)


def accepted(message: dict[str, Any]) -> bool:
    try:
        read(written(message))
    except AMTPError:
        return False
    return True


def test_the_schema_is_a_schema_that_checks_dates() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert not OPINION.is_valid(COMPLETE | {"timestamp": "2026-02-30T12:00:00Z"})


def test_the_schema_has_the_limits_of_the_parser() -> None:
    assert SCHEMA["maxProperties"] == MEMBERS_MAX
    assert SCHEMA["properties"]["recipients"]["maxItems"] == RECIPIENTS_MAX
    assert SCHEMA["properties"]["attachments"]["anyOf"][1]["maxItems"] == ATTACHMENTS_MAX
    assert SCHEMA["properties"]["idempotency_key"]["anyOf"][1]["maxLength"] == KEY_CHARACTERS_MAX
    assert SCHEMA["$defs"]["line"]["maxLength"] == LINE_CHARACTERS_MAX
    assert SCHEMA["$defs"]["moment"]["maxLength"] == TIMESTAMP_CHARACTERS_MAX
    assert SCHEMA["$defs"]["address"]["maxLength"] == ADDRESS_CHARACTERS_MAX
    assert SCHEMA["$defs"]["headers"]["properties"]["ttl"]["anyOf"][1]["maximum"] == TTL_SECONDS_MAX
    assert SCHEMA["$defs"]["attachment"]["properties"]["size"]["maximum"] == SIZE_BYTES_MAX


def test_the_schema_knows_every_header_the_parser_knows() -> None:
    assert set(SCHEMA["$defs"]["headers"]["properties"]) == set(KNOWN)


@given(spellings())
def test_both_accept_every_valid_message(spelling: tuple[dict[str, Any], bytes]) -> None:
    message, raw = spelling
    read(raw)
    OPINION.validate(message)


@pytest.mark.parametrize(
    "members", [members for members, _, _ in MUTATIONS], ids=lambda value: repr(value)[:40]
)
def test_both_refuse_every_mutation(members: dict[str, Any]) -> None:
    assert not OPINION.is_valid(COMPLETE | members)


def sayable(name: str, value: Any) -> bool:
    """Whether a schema could know that this header is bad."""
    too_late = name == "deliver-after" and isinstance(value, str) and value.endswith("Z")
    fine_cron = name == "repeat" and isinstance(value, str) and re.fullmatch(r"[^ \s]+( [^ \s]+){4}", value)
    return not (too_late or fine_cron or value == 60.0)


@pytest.mark.parametrize(
    ("name", "value"), [bad for bad in BAD_HEADERS if sayable(*bad)], ids=lambda value: repr(value)[:30]
)
def test_both_refuse_every_bad_header(name: str, value: Any) -> None:
    assert not OPINION.is_valid(COMPLETE | {"headers": {name: value}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        bad
        for bad in BAD_ATTACHMENTS
        if bad[1] not in (10.0, "https://2130706433/", "https://a.test\\@b.test/")
    ],
    ids=lambda value: repr(value)[:30],
)
def test_both_refuse_every_bad_attachment(name: str, value: Any) -> None:
    assert not OPINION.is_valid(COMPLETE | {"attachments": [ATTACHMENT | {name: value}]})


@given(messages(), st.sampled_from(sorted(COMPLETE)), values)
@settings(max_examples=300)
def test_both_agree_on_a_message_with_any_member_replaced(
    message: dict[str, Any], name: str, value: Any
) -> None:
    message = message | {name: value}
    assert accepted(message) == OPINION.is_valid(message)


@given(messages(), st.sampled_from(sorted(COMPLETE)))
def test_both_agree_on_a_message_with_any_member_missing(message: dict[str, Any], name: str) -> None:
    message.pop(name, None)
    assert accepted(message) == OPINION.is_valid(message)


@given(st.sampled_from(sorted(HEADERS)), values)
def test_both_agree_on_any_value_of_a_header(name: str, value: Any) -> None:
    message = COMPLETE | {"headers": {name: value}}
    assert accepted(message) == OPINION.is_valid(message)


@given(st.sampled_from(sorted(ATTACHMENT)), values)
def test_both_agree_on_any_value_in_an_attachment(name: str, value: Any) -> None:
    message = COMPLETE | {"attachments": [ATTACHMENT | {name: value}]}
    assert accepted(message) == OPINION.is_valid(message)


@given(st.sampled_from(sorted(SIGNATURE)), values)
def test_both_agree_on_any_value_in_a_signature(name: str, value: Any) -> None:
    message = COMPLETE | {"signature": SIGNATURE | {name: value}}
    assert accepted(message) == OPINION.is_valid(message)


@given(st.from_regex(r"\A[a-z.+]{1,5}@[a-z0-9.-]{1,8}\Z") | st.text("a+.@-_ 0\n", max_size=8))
@settings(max_examples=300)
def test_both_agree_on_what_an_address_is(text: str) -> None:
    message = COMPLETE | {"sender": text}
    assert accepted(message) == OPINION.is_valid(message)
