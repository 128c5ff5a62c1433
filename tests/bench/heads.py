"""`python -m tests.bench.heads`: nanoseconds that a plain head costs at the door, by how many agents take turns."""

from time import process_time_ns

from gateway.http.fast_heads import PlainHeads, PlainReader
from gateway.http.limits import Manners

AGENTS = (1, 500, 5000)
HEADS = 200_000


def poll(agent: int) -> bytes:
    """What a client library sends to look into an inbox."""
    return (
        f"GET /v1/inbox/agent-{agent}@acme.example?wait=60 HTTP/1.1\r\nHost: amtp.acme.example:8443\r\n"
        f"Authorization: Bearer amtp_{agent:032x}_{agent:043x}\r\nAccept: */*\r\n"
        "Accept-Encoding: gzip, deflate\r\nUser-Agent: amtp-client/1.0 Python/3.11\r\n\r\n"
    ).encode()


def nanoseconds_each(agents: int) -> float:
    plain = PlainHeads(Manners())
    polls = [(PlainReader(plain), poll(agent)) for agent in range(agents)]  # each keeps its connection
    for reader, data in polls:
        assert reader.take(data, idle=True) is not None
    begun = process_time_ns()
    for _ in range(HEADS // agents):
        for reader, data in polls:
            reader.take(data, idle=True)
    return (process_time_ns() - begun) / (HEADS // agents * agents)


if __name__ == "__main__":
    for agents in AGENTS:
        print(f"{agents:5} agents: {nanoseconds_each(agents):6.0f} ns a head")
