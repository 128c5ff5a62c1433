"""The core's part of the OpenAPI document: what it says of the gateway, and the shapes and path parts of the core."""

from gateway import __version__
from gateway.http.operation import Words
from gateway.receive.openapi_operations import PATH_PARTS
from gateway.receive.openapi_shapes import SHAPES, message_shapes

INFO = {
    "title": "AMTP gateway",
    "version": __version__,
    "summary": "A mail server for agents: AMTP messages in, committed, delivered.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}
CORE = Words({**SHAPES, **message_shapes()}, PATH_PARTS)
