"""Writes every record, as any program would that has pyzmq, msgpack and PROTOCOL.md.

    python write.py ROUTER ACKS

Records are written one after the other at the levels `stored` and `synced`. Prints `acknowledged N` as it goes; at the
end it leaves {key: seq} of all that was acknowledged in the file ACKS, and its figures on stdout.
"""

import collections
import json
import sys
import time

import msgpack
import zmq
from records import load

LEVELS = ("stored", "synced")
PER_MESSAGE = 16
IN_FLIGHT = 2048
# No answer for this long means that the connection, and requests sent over it, may be lost.
SILENCE_MS = 2_000
GIVE_UP_AFTER = 30


class Writer:
    def __init__(self, endpoint, records):
        self.endpoint = endpoint
        self.records = list(records.items())
        self.to_send = collections.deque(range(len(self.records)))
        self.under_way = set()
        self.acknowledged = {}
        self.sent_again = 0
        self.rates = []
        self.context = zmq.Context()
        self.connect()

    def connect(self):
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(self.endpoint)

    def run(self):
        silences = 0
        begun, before = time.monotonic(), 0
        answered = begun
        while len(self.acknowledged) < len(self.records):
            self.send()
            if self.socket.poll(SILENCE_MS):
                self.receive()
                answered = time.monotonic()
                silences = 0
                continue
            silences += 1
            if silences == GIVE_UP_AFTER:
                sys.exit(f"no answer from {self.endpoint} in {GIVE_UP_AFTER * SILENCE_MS / 1000} seconds")
            self.note_rate(before, answered - begun)
            self.begin_anew()
            begun, before = time.monotonic(), len(self.acknowledged)
        self.note_rate(before, answered - begun)

    def send(self):
        """As many requests as may be under way, a few in each message. A request's id is its record's number."""
        while self.to_send and len(self.under_way) < IN_FLIGHT:
            numbers = [self.to_send.popleft() for _ in range(min(PER_MESSAGE, len(self.to_send)))]
            self.under_way.update(numbers)
            self.socket.send_multipart([self.request(number) for number in numbers])

    def request(self, number):
        key, fields = self.records[number]
        level = LEVELS[number % len(LEVELS)]
        return msgpack.packb([0, number, "set", [key, fields, {"durability": level}]])

    def receive(self):
        for frame in self.socket.recv_multipart():
            kind, number, error, seq = msgpack.unpackb(frame)
            assert kind == 1 and error is None, error
            self.under_way.remove(number)
            self.acknowledged[self.records[number][0]] = seq
        before = len(self.acknowledged) - PER_MESSAGE
        if before // 1000 != len(self.acknowledged) // 1000:
            print("acknowledged", len(self.acknowledged), flush=True)

    def begin_anew(self):
        """Over a new connection, first the writes with an unknown result: a `set` of the same value may be repeated."""
        self.socket.close()
        self.connect()
        self.sent_again += len(self.under_way)
        self.to_send.extendleft(sorted(self.under_way, reverse=True))
        self.under_way.clear()

    def note_rate(self, before, seconds):
        count = len(self.acknowledged) - before
        if count:
            self.rates.append(round(count / seconds))


def main(endpoint, acks):
    source, records = load()
    writer = Writer(endpoint, records)
    writer.run()
    with open(acks, "w") as file:
        json.dump(writer.acknowledged, file)
    size = sum(len(msgpack.packb(fields)) for fields in records.values())
    print(json.dumps({"source": source, "records": len(records), "bytes": size, "sent_again": writer.sent_again,
                      "per_second": writer.rates}))


if __name__ == "__main__":
    main(*sys.argv[1:])
