"""Carries packets between hosts, each late by a delay or lost, as a kernel without netem can't.

Usage: wires.py DELAY_MS JITTER_MS LOSS_PERCENT DESCRIPTOR=NETWORK...
Each descriptor is a TUN device; the network is the first address of its /24. Ends with SIGTERM or with its parent, and
tells how many packets it carried and lost, as a list.
"""

import ctypes
import heapq
import json
import os
import random
import select
import signal
import socket
import sys
import time

PR_SET_PDEATHSIG = 1
PACKET_BYTES_MAX = 65_536
AT_ONCE = 64
HEAD_BYTES = 20
NETWORK = slice(16, 19)  # of an IPv4 header: where the packet goes


class Wires:
    def __init__(self, delay: float, jitter: float, loss: float, ends: dict[bytes, int]) -> None:
        self._delay, self._jitter, self._loss, self._ends = delay, jitter, loss, ends
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._last = dict.fromkeys(ends.values(), 0.0)  # packets of one wire stay in order
        self.carried = self.lost = 0

    def run(self) -> None:
        while True:
            wait = max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None
            readable, _, _ = select.select([*self._ends.values()], [], [], wait)
            for end in readable:
                self._take(end)
            self._hand_over()

    def _take(self, end: int) -> None:
        for _ in range(AT_ONCE):
            try:
                packet = os.read(end, PACKET_BYTES_MAX)
            except OSError:  # nothing more, or the wire is cut
                return
            to = self._ends.get(packet[NETWORK])
            if len(packet) < HEAD_BYTES or packet[0] >> 4 != 4 or to is None:
                continue
            self.carried += 1
            if random.random() < self._loss:
                self.lost += 1
                continue
            due = time.monotonic() + self._delay + random.uniform(-self._jitter, self._jitter)
            self._last[end] = due = max(due, self._last[end])
            heapq.heappush(self._under_way, (due, self.carried, to, packet))

    def _hand_over(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            *_, to, packet = heapq.heappop(self._under_way)
            try:
                os.write(to, packet)
            except OSError:  # full, or cut: it is lost as on any wire
                self.lost += 1


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; whoever started it ends it
    delay, jitter, loss = (float(word) for word in sys.argv[1:4])
    ends = {}
    for word in sys.argv[4:]:
        end, _, network = word.partition("=")
        ends[socket.inet_aton(network)[:3]] = int(end)
    wires = Wires(delay / 1000, jitter / 1000, loss / 100, ends)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        wires.run()
    finally:
        print(json.dumps([wires.carried, wires.lost]), flush=True)


if __name__ == "__main__":
    main()
