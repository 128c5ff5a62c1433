"""What we lean on inside aiohttp.

When one of these fails after an upgrade: read what changed there, see that gateway/http/connection.py
still holds, let the desync corpus judge, then write the new fingerprints down.
"""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gateway.http.connection import Connection

OURS = ("connection_made", "connection_lost", "data_received", "start")
LEANED_ON = (
    "_buffer_paused",
    "_close",
    "_drain_helper",
    "_force_close",
    "_loop",
    "_manager",
    "_max_msg_queue_size",
    "_messages",
    "_msg_queue_resume_size",
    "_parser",
    "_paused",
    "_reading_paused",
    "_resume_reading_if_drained",
    "_resume_transport_reading",
    "_task_handler",
    "_waiter",
    "close",
    "transport",
)
FINGERPRINTS: dict[Callable[..., Any], str] = {
    RequestHandler.__init__: "46c577d1f419158f",
    RequestHandler.connection_made: "44d50b5763b2c7e4",
    RequestHandler.connection_lost: "df2fe6e95fd04c7c",
    RequestHandler.data_received: "1ee57ebe052e6c80",
    RequestHandler._resume_reading_if_drained: "27f2a6fbbb3a790e",
    RequestHandler.close: "84518f965e198ee3",
    RequestHandler.force_close: "38d0e1e798e4d3b7",
    BaseProtocol.resume_reading: "21dee847a31af724",
    BaseProtocol._drain_helper: "43a2da08aabcc94f",
    StreamReader.readany: "766f946ae360b8ea",
    StreamReader.set_exception: "dfa3db714fb895ed",
}


@pytest.mark.parametrize("name", LEANED_ON)
def test_aiohttps_protocol_still_has_what_we_lean_on(name: str) -> None:
    assert hasattr(RequestHandler, name)


@pytest.mark.parametrize("name", OURS)
def test_aiohttps_protocol_still_has_what_we_put_ours_in_place_of(name: str) -> None:
    theirs, ours = getattr(RequestHandler, name), getattr(Connection, name)
    assert ours is not theirs
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_our_attributes_hide_none_of_aiohttps() -> None:
    theirs = {name for each in RequestHandler.__mro__ for name in getattr(each, "__slots__", ())}
    assert theirs.isdisjoint(Connection.__slots__)


def test_a_refusal_of_the_parser_looks_as_it_did() -> None:
    assert [field.name for field in _ErrInfo.__attrs_attrs__] == ["status", "exc", "message"]


@pytest.mark.parametrize("function", FINGERPRINTS, ids=lambda function: function.__qualname__)
def test_what_we_lean_on_does_what_it_did(function: Callable[..., Any]) -> None:
    assert fingerprint(function) == FINGERPRINTS[function]


def fingerprint(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
