"""The doctor's check of the gateway's listeners, over HTTP as a load balancer would."""

import json
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from gateway.cli.for_operators.finding import Finding
from gateway.cli.printable import plain
from gateway.config.sections import ListenerSettings
from gateway.config.settings import Config
from gateway.serve import pid_file

SECONDS_MAX = 5.0  # for one answer
ANSWER_BYTES_MAX = 65_536
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
FULL = "find out who holds its places: lines connection_refused in the log, amtp_connections_refused_total in /metrics"
SILENT = "read the gateway's log; if it says nothing, restart the gateway"


def listeners(config: Config) -> Iterator[Finding]:
    """Checks each listener with a known port, if a gateway runs from the data folder."""
    if pid_file.holder(config.data) is None:
        return
    for listener in config.listen:
        if listener.address.port:
            yield _listener(listener)


def _listener(listener: ListenerSettings) -> Finding:
    name = f"listener {listener.address}"
    heard = {path: _ask(listener, path) for path in ("/health", "/ready")}
    text = "; ".join(f"{path} {answer}" for path, (_, answer) in heard.items())
    (alive, _), (ready, _) = heard.values()
    if alive == ready == 200:
        return Finding(name, text)
    if alive is None or ready is None:
        return Finding(name, text, SILENT)
    return Finding(name, text, FULL if alive != 200 else "remove the cause; it is ready again by itself")


def _ask(listener: ListenerSettings, path: str) -> tuple[int | None, str]:
    """Returns the status, None without an answer, and a text about it."""
    connection = _connection(listener)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        raw = response.read(ANSWER_BYTES_MAX)
    except (OSError, HTTPException) as failure:
        return None, f"does not answer ({failure or type(failure).__name__})"
    finally:
        connection.close()
    return response.status, f"answers {response.status}{_reason(raw) if response.status != 200 else ''}"


def _connection(listener: ListenerSettings) -> HTTPConnection:
    host = ANYWHERE.get(listener.address.host, listener.address.host)
    if not listener.tls:
        return HTTPConnection(host, listener.address.port, timeout=SECONDS_MAX)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is for another name, and judged from its file
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, listener.address.port, timeout=SECONDS_MAX, context=context)


def _reason(raw: bytes) -> str:
    try:
        error = json.loads(raw)["error"]
        return plain(f" {error['code']}: {error['message']}")
    except (ValueError, LookupError, TypeError):
        return ""
