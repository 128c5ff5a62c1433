"""Whose program is at the other end of a loopback connection."""

import asyncio

import pytest

from gateway.http.same_user import TABLES, is_same_user, owner_of

TOLD = TABLES[0].exists()  # whether this system tells of its sockets
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"


def line(local: str, remote: str, *, uid: int, inode: int = 4711) -> str:
    return f"   1: {local} {remote} 01 00000000:00000000 00:00000000 00000000 {uid:5} 0 {inode} 1 0000 20 4 30 10 -1"


V4 = line("0100007F:9C40", "0100007F:1F90", uid=33)
V6 = line("00000000000000000000000001000000:9C40", "00000000000000000000000001000000:1F90", uid=65534)
MAPPED = line("0000000000000000FFFF00000100007F:9C40", "0000000000000000FFFF00000100007F:1F90", uid=1000)


@pytest.mark.parametrize(
    ("lines", "address", "uid"),
    [
        ([HEAD, V4], "127.0.0.1", 33),
        ([HEAD, V6], "::1", 65534),
        ([HEAD, MAPPED], "127.0.0.1", 1000),
        ([HEAD], "127.0.0.1", None),
        ([HEAD, line("0100007F:1F90", "0100007F:9C40", uid=0)], "127.0.0.1", None),  # our own end of it
        (
            [HEAD, line("0100007F:9C40", "0100007F:1F90", uid=0, inode=0)],
            "127.0.0.1",
            None,
        ),  # nobody's any more
    ],
)
def test_the_other_end_is_found_and_nothing_else(lines: list[str], address: str, uid: int | None) -> None:
    assert owner_of(lines, (address, 40000), (address, 8080)) == uid


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_program_of_ours_is_known_as_such_and_a_stranger_to_the_system_is_not(address: str) -> None:
    seen: asyncio.Future[tuple[tuple[str, int], tuple[str, int]]] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = (writer.get_extra_info("peername")[:2], writer.get_extra_info("sockname")[:2])
        seen.set_result(ends)

    server = await asyncio.start_server(connected, address, 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection(address, port)
    client, here = await seen
    assert owner_of([], client, here) is None
    assert is_same_user(client, here)
    assert is_same_user((address, 1), here) is not TOLD
    writer.close()
    server.close()
