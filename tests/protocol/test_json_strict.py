"""What two readers of JSON could take differently is refused, wherever in the body it stands (S8)."""

import json
from typing import Any

import pytest
from hypothesis import given

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.json_strict import DEPTH_MAX, DIGITS_MAX, read_strict
from tests.protocol.samples import values

REFUSED = {
    "a member twice": b'{"a":1,"a":1}',
    "a member twice, deep inside": b'{"p":[{"q":{"a":1,"b":2,"a":3}}]}',
    "a member twice, once escaped": b'{"ab":1,"\\u0061b":2}',
    "NaN": b'{"a":NaN}',
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "1e400": b"[1e400]",
    "-1e400": b'{"a":[-1e400]}',
    "1E+400": b"[[1E+400]]",
    "12.5e308": b"[12.5e308]",
    "301 digits": b"[" + b"1" * 301 + b"]",
    "301 digits, negative": b"-" + b"1" * 301,
    "301 digits behind the point": b"[0." + b"1" * 300 + b"]",
    "301 digits on both sides of the point": b"[" + b"1" * 150 + b"." + b"1" * 151 + b"]",
    "301 digits with the exponent's": b"[0." + b"1" * 298 + b"e10]",
    "5000 digits": b"[" + b"9" * 5000 + b"]",
    "an escaped NUL": b'["a\\u0000b"]',
    "an escaped NUL in a name": b'{"a\\u0000":1}',
    "an escaped NUL behind an escaped backslash": b'["\\\\\\u0000"]',
    "a raw NUL": b'["a\0b"]',
    "a raw line break in a string": b'["a\nb"]',
    "a lone high surrogate": b'["\\ud800"]',
    "a lone low surrogate": b'["\\udc00"]',
    "a high surrogate before a letter": b'["\\ud800x"]',
    "two high surrogates": b'["\\ud800\\ud800"]',
    "surrogates the wrong way round": b'["\\udc00\\ud800"]',
    "a lone surrogate in a name": b'{"\\udbff":1}',
    "a surrogate encoded in UTF-8": b'["\xed\xa0\x80"]',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "two values": b"{} {}",
    "trailing text": b"{}x",
    "a trailing NUL": b"{}\0",
    "a trailing comma": b"[1,]",
    "nothing": b"",
    "blanks": b" \n",
    "a broken byte": b'["\xff"]',
    "an overlong encoding": b'["\xc0\xaf"]',
    "a cut character": b'["\xe2\x82"]',
    "Latin-1": '["é"]'.encode("latin-1"),
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16, little end first": '{"a":1}'.encode("utf-16-le"),
    "UTF-16, big end first": '{"a":1}'.encode("utf-16-be"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "a leading zero": b"[01]",
    "a leading plus": b"[+1]",
    "a bare point": b"[1.]",
    "hexadecimal": b"[0x1]",
    "single quotes": b"['a']",
    "a comment": b"[1/*2*/]",
    "an unknown escape": b'["\\x41"]',
    "a name without quotes": b"{a:1}",
    "no end": b'{"a":',
    "a no-break space": b"\xc2\xa0{}",
    "61 lists": b"[" * 61 + b"]" * 61,
    "61 objects": b'{"a":' * 60 + b"{}" + b"}" * 60,
    "61 levels beside shallow ones": b"[[],{}," + b"[" * 60 + b"]" * 60 + b"]",
    "61 levels behind a string full of brackets": b'["]]]]\\"]]]]\\\\",' + b"[" * 60 + b"]" * 60 + b"]",
    "100 000 levels": b"[" * 100_000 + b"]" * 100_000,
    "100 000 brackets without an end": b"[" * 100_000,
}

ACCEPTED = {
    "60 lists": b"[" * 60 + b"]" * 60,
    "60 objects": b'{"a":' * 59 + b"{}" + b"}" * 59,
    "60 levels, many times": b"[" + b",".join([b"[" * 59 + b"]" * 59] * 20) + b"]",
    "many brackets side by side": b"[" + b",".join([b'{"a":[]}'] * 200) + b"]",
    "brackets in a string": b'["' + b"[" * 500 + b'"]',
    "brackets behind an escaped quote": b'["\\"' + b"[" * 500 + b'"]',
    "300 digits": b"[" + b"1" * 300 + b"]",
    "300 digits with a point": b"[-" + b"1" * 150 + b"." + b"1" * 150 + b"]",
    "many digits in a string": b'["' + b"1" * 5000 + b'"]',
    "many digits in a name": b'{"' + b"1" * 5000 + b'":1}',
    "the largest double": b"[1.7976931348623157e308]",
    "less than the smallest double": b"[1e-400]",
    "an escaped backslash before u0000": b'["\\\\u0000"]',
    "a pair of surrogates": b'["\\ud83d\\ude00"]',
    "a noncharacter": b'["\\uffff"]',
    "blanks around": b" \r\n\t[1]\n ",
    "an empty name": b'{"":1}',
    "the same name in two objects": b'[{"a":1},{"a":2}]',
    "names that differ in case": b'{"a":1,"A":2}',
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_it_is_refused(raw: bytes) -> None:
    with pytest.raises(AMTPError) as refused:
        read_strict(raw)
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
    assert refused.value.details is not None
    assert refused.value.details["field"] == "body"


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_it_is_read_as_everybody_reads_it(raw: bytes) -> None:
    assert read_strict(raw) == json.loads(raw)


@given(values)
def test_any_value_is_read_as_it_was_written(value: Any) -> None:
    assert read_strict(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("raw", "remedy"),
    [
        (b'{"a":1,"a":1}', "keep one"),
        (b"[1e400]", "send it as a string"),
        (b"[" * 300 + b"]" * 300, f"deeper than {DEPTH_MAX} levels"),
        (b"[" * 61 + b"]" * 61, f"deeper than {DEPTH_MAX} levels"),
        (b"1" * 5000, f"over {DIGITS_MAX} digits"),
        (b'["\\u0000"]', "NUL"),
        (b'["\\ud800x"]', "surrogate"),
        (b'["\xff"]', "UTF-8"),
        (b"{}{}", "one value"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
    ],
)
def test_the_error_says_what_to_do(raw: bytes, remedy: str) -> None:
    with pytest.raises(AMTPError, match=remedy):
        read_strict(raw)


def test_the_error_names_the_place_and_repeats_nothing_of_the_input() -> None:
    with pytest.raises(AMTPError) as refused:
        read_strict(b'{"secret-name":1,\n"secret-name":2}')
    assert refused.value.details == {"field": "body", "place": "at line 2 column 15"}
    assert "secret" not in refused.value.message
