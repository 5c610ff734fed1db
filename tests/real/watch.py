"""Counts every change, and proves that it saw them all, as PROTOCOL.md says under "Proving that nothing is missing".

    python watch.py PUBLISHER ROUTER SEEN

Prints `watching` when its subscription is in effect. A number on stdin is the last seq there will be: when everything
up to it has been seen, it leaves [[seq, key, digest of the value], …] in the file SEEN, and its figures on stdout.
"""

import hashlib
import json
import sys

import msgpack
import zmq

BEAT = b"\xffbeat"
PATIENCE_MS = 30_000


class Watcher:
    def __init__(self, publisher, router):
        self.context = zmq.Context()
        self.router = router
        self.subscriber = self.context.socket(zmq.SUB)
        self.subscriber.connect(publisher)
        self.subscriber.subscribe(b"")
        self.last = None
        self.seen = []
        self.published = self.fetched = 0
        self.gaps = []

    def receive(self):
        """One message, with seq and prev checked."""
        key, header, value = self.subscriber.recv_multipart()
        seq, op, index, count, prev, *_ = msgpack.unpackb(header)
        if self.last is None:
            self.last = prev
        assert seq >= self.last, f"history went back from {self.last} to {seq}"
        missing_up_to = seq if op == "lost" else prev
        if missing_up_to > self.last:
            self.gaps.append([self.last, missing_up_to])
            self.fetch(missing_up_to)
        if op not in ("beat", "lost"):
            self.note(seq, op, key, value)
            self.published += 1
        self.last = max(seq, self.last)
        return key

    def fetch(self, up_to):
        """The missing changes after `last` and up to `up_to`, from the history."""
        dealer = self.context.socket(zmq.DEALER)
        dealer.rcvtimeo, dealer.linger = PATIENCE_MS, 0
        dealer.connect(self.router)
        while self.last < up_to:
            dealer.send(msgpack.packb([0, 0, "changes", [self.last]]))
            _, _, error, result = msgpack.unpackb(dealer.recv())
            assert error is None, error
            changes, next_seq = result
            assert next_seq > self.last, f"the history ends at {next_seq}, before {up_to}"
            for key, (seq, op, index, count, prev, *_), value in changes:
                assert prev == self.last, f"the history has a hole between {self.last} and {prev}"
                if seq <= up_to:
                    self.note(seq, op, key.encode(), msgpack.packb(value))
                    self.fetched += 1
                self.last = seq
            self.last = min(next_seq, up_to)
        dealer.close()

    def note(self, seq, op, key, value):
        assert op == "set", op
        self.seen.append((seq, key.decode(), hashlib.sha1(value).hexdigest()))


def main(publisher, router, seen):
    watcher = Watcher(publisher, router)
    poller = zmq.Poller()
    poller.register(watcher.subscriber, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    while watcher.receive() != BEAT:
        pass
    print("watching", flush=True)
    end = None
    while end is None or watcher.last < end:
        ready = dict(poller.poll(PATIENCE_MS))
        assert ready, f"nothing came for {PATIENCE_MS} ms, at seq {watcher.last} of {end}"
        if sys.stdin.fileno() in ready:
            end = int(sys.stdin.readline())
            poller.unregister(sys.stdin)
        if watcher.subscriber in ready:
            watcher.receive()
    with open(seen, "w") as file:
        json.dump(watcher.seen, file)
    print(json.dumps({"published": watcher.published, "fetched": watcher.fetched, "gaps": watcher.gaps}))


if __name__ == "__main__":
    main(*sys.argv[1:])
