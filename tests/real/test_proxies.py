"""The desync corpus through proxies that people put in front: what they pass on is what we read, no more.

The proxy marks every request it passes on. A request without the mark that reaches a handler was smuggled in the
body of another: the proxy and we saw different ends.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.http.answers import Answer
from gateway.http.request import Request
from gateway.http.routing import Route
from tests.attacks.test_desync import INSIDE, LAST, PLAIN, REFUSED, SMUGGLED, converse
from tests.ports import free_port, listening
from tests.receive.doorway import LIMITS, doorway

MARK = "X-Passed-On"
AT_ONCE = 16
CORPUS = {**REFUSED, **LAST, **{name: raw for name, (raw, _) in INSIDE.items()}}

# As lenient as they get: what the proxy lets through is ours to refuse.
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_timeout 1s; client_header_timeout 1s; client_body_timeout 1s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  ignore_invalid_headers off; underscores_in_headers on; merge_slashes off;
  upstream gateway {{ server 127.0.0.1:{gateway}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header {mark} yes; proxy_request_buffering off; proxy_read_timeout 5s;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 1s
  timeout server 5s
  timeout http-keep-alive 1s
  option accept-invalid-http-request
  http-reuse always
frontend front
  bind 127.0.0.1:{port}
  http-request set-header {mark} yes
  default_backend back
backend back
  server gateway 127.0.0.1:{gateway}
"""


def nginx(folder: Path, port: int, gateway: int) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, gateway=gateway, mark=MARK))
    return ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]


def haproxy(folder: Path, port: int, gateway: int) -> list[str]:
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, gateway=gateway, mark=MARK))
    return ["haproxy", "-db", "-f", str(config)]


class Sight:
    """The marks of the requests that reached a handler."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, ...]] = []

    async def look(self, request: Request) -> Answer:
        if request.method == "POST":
            await request.body(10_000)
        self.marks.append(tuple(request.header_values(MARK)))
        return Answer(200, b"{}")

    @property
    def routes(self) -> list[Route]:
        paths = ("/plain", "/smuggled")
        return [Route(method, path, self.look) for method in ("GET", "POST") for path in paths]


@asynccontextmanager
async def behind(
    proxy: Callable[[Path, int, int], list[str]], folder: Path
) -> AsyncIterator[tuple[int, int, Sight]]:
    """The proxy's port, the door's own, and what the handlers saw."""
    sight = Sight()
    async with doorway(sight.routes, limits=replace(LIMITS, keep_alive_seconds=2.0)) as opened:
        port = free_port()
        process = await asyncio.create_subprocess_exec(*proxy(folder, port, opened.port))
        try:
            await listening(port)
            yield port, opened.port, sight
        finally:
            process.terminate()
            await process.wait()


each_proxy = pytest.mark.parametrize("proxy", [nginx, haproxy], ids=["nginx", "haproxy"])


@each_proxy
async def test_no_request_reaches_a_handler_that_the_proxy_did_not_pass_on(
    proxy: Callable[[Path, int, int], list[str]], tmp_path: Path
) -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with behind(proxy, tmp_path) as (port, _, sight):
        for attacks in chunks([pieces for raw in CORPUS.values() for pieces in ([raw], [raw, PLAIN])]):
            await asyncio.gather(*(_patiently(converse(port, pieces)) for pieces in attacks))
            assert set(sight.marks) <= {("yes",)}, attacks
        assert sight.marks, "the proxy passes on what is in order"
    gc.collect()  # a task that failed alone is told of when it goes
    assert faults == []


@each_proxy
async def test_the_oracle_tells_a_request_that_the_proxy_did_not_pass_on(
    proxy: Callable[[Path, int, int], list[str]], tmp_path: Path
) -> None:
    async with behind(proxy, tmp_path) as (port, own_port, sight):
        await _patiently(converse(port, [PLAIN]))
        await _patiently(converse(own_port, [SMUGGLED]))
        assert sight.marks == [("yes",), ()]


def chunks(attacks: list[list[bytes]]) -> Iterator[list[list[bytes]]]:
    """Some at once, few enough to find the guilty one among them."""
    for start in range(0, len(attacks), AT_ONCE):
        yield attacks[start : start + AT_ONCE]


async def _patiently(talk: Awaitable[bytes]) -> bytes:
    """A proxy may keep a doubtful connection for as long as its own limits say."""
    try:
        async with asyncio.timeout(3):
            return await talk
    except TimeoutError:
        return b""
