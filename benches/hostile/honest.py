"""An honest client: `honest.py ENDPOINT [reconnect]` prints its worst waits since the last line that it read: that of
its reads, and that of its `synced` sets, before which the disk has to take the writes of other clients."""

import sys
import threading
import time

from wire import Peer, packed

READS = (("get", ["honest:small"]), ("get", ["honest:middle"]))
SETS = (("set", ["honest:small", 1]),)


class Honest:
    begin, kind = time.monotonic(), 0

    def __init__(self, endpoint, reconnects):
        self.endpoint, self.reconnects = endpoint, reconnects
        self.worst = [0.0, 0.0]
        self.peer = Peer(endpoint)
        self.peer.set("honest:middle", packed(bytes(100_000)))

    def go_on(self):
        while True:
            for self.kind, commands in enumerate((READS, SETS)):
                self.begin = time.monotonic()
                while not self.is_served(commands):
                    self.reconnects = True
                    time.sleep(0.01)
                self.worst[self.kind] = max(self.worst[self.kind], time.monotonic() - self.begin)
                self.begin = None
            time.sleep(0.002)

    def is_served(self, commands):
        try:
            if self.reconnects:
                self.peer.socket.close()
                self.peer = Peer(self.endpoint)
            return all(self.peer.ask(*command) for command in commands)
        except OSError:
            return False

    def report(self):
        """In ms; an unfinished wait counts."""
        begin, worst, self.worst = self.begin, self.worst, [0.0, 0.0]
        if begin:
            worst[self.kind] = max(worst[self.kind], time.monotonic() - begin)
        return " ".join(str(1000 * wait) for wait in worst)


if __name__ == "__main__":
    honest = Honest(sys.argv[1], len(sys.argv) > 2)
    threading.Thread(target=honest.go_on, daemon=True).start()
    for _ in sys.stdin:
        print(honest.report(), flush=True)
