"""An honest client: `honest.py ENDPOINT [reconnect]` prints its worst wait since the last line that it read."""

import sys
import threading
import time

from wire import Peer, packed

ROUND = (("set", ["honest:small", 1]), ("get", ["honest:small"]), ("get", ["honest:middle"]))


class Honest:
    worst, begin = 0.0, time.monotonic()

    def __init__(self, endpoint, reconnects):
        self.endpoint, self.reconnects = endpoint, reconnects
        self.peer = Peer(endpoint)
        self.peer.set("honest:middle", packed(bytes(100_000)))

    def go_on(self):
        while True:
            self.begin = time.monotonic()
            while not self.is_served():
                self.reconnects = True
                time.sleep(0.01)
            self.worst = max(self.worst, time.monotonic() - self.begin)
            self.begin = None
            time.sleep(0.002)

    def is_served(self):
        try:
            if self.reconnects:
                self.peer.socket.close()
                self.peer = Peer(self.endpoint)
            return all(self.peer.ask(*command) for command in ROUND)
        except OSError:
            return False

    def report(self):
        """In ms; a wait that goes on counts."""
        begin, worst, self.worst = self.begin, self.worst, 0.0
        return 1000 * max(worst, time.monotonic() - begin if begin else 0)


if __name__ == "__main__":
    honest = Honest(sys.argv[1], len(sys.argv) > 2)
    threading.Thread(target=honest.go_on, daemon=True).start()
    for _ in sys.stdin:
        print(honest.report(), flush=True)
