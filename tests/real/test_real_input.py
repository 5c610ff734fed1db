"""Real records through every endpoint, and a kill -9 halfway.

Four processes, none with a library of ours: a writer (pyzmq DEALER), a watcher (pyzmq SUB), a reader (HTTP), and the
broker, killed when half of the records are acknowledged and restarted on its directory and ports.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import msgpack
import pytest
import zmq
from broker import Broker
from records import load

HERE = pathlib.Path(__file__).parent
SEQ_JUMP_MAX = 1 << 24
PATIENCE_S = 110


class Helper:
    """A process of the run: a script of this folder, lines in and out."""

    def __init__(self, script, *arguments):
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.script = script

    def line(self):
        line = self.process.stdout.readline()
        assert line, f"{self.script} ended early, with exit code {self.process.wait(PATIENCE_S)}"
        return line.split()

    def figures(self):
        """Waits for the end; the last line is JSON."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, f"{self.script} ended with exit code {self.process.returncode}"
        return json.loads(out.splitlines()[-1])


@pytest.fixture
def helper():
    with contextlib.ExitStack() as stack:
        def start(*arguments):
            started = Helper(*arguments)
            stack.callback(end, started.process)
            return started

        def end(process):
            process.kill()
            process.communicate()

        yield start


@pytest.fixture
def start(tmp_path):
    """Starts the broker, the second time on the ports it had."""
    brokers = []

    def start_one():
        brokers.append(Broker(tmp_path / "store", again=brokers[-1] if brokers else None))
        return brokers[-1]

    yield start_one
    for broker in brokers:
        if broker.process.returncode is None:
            broker.kill()


def test_every_record_survives_a_kill_and_is_seen_and_read_back(tmp_path, start, helper, say):
    begun = time.monotonic()
    source, records = load()
    broker = start()
    watcher = helper("watch.py", broker.publisher, broker.router, tmp_path / "seen.json")
    assert watcher.line() == ["watching"]
    writer = helper("write.py", broker.router, tmp_path / "acks.json")

    acknowledged = 0
    while acknowledged < len(records) // 2:
        word, acknowledged = writer.line()
        acknowledged = int(acknowledged)
    broker.kill()
    down = time.monotonic()
    assert writer.process.poll() is None, "the writer was done before the kill"
    broker = start()
    down = time.monotonic() - down

    wrote = writer.figures()
    acks = json.loads((tmp_path / "acks.json").read_text())
    assert acks.keys() == records.keys()
    assert_kept(broker.router, acks)
    print(max(acks.values()), file=watcher.process.stdin, flush=True)
    watched = watcher.figures()
    seen = json.loads((tmp_path / "seen.json").read_text())
    jump = assert_complete(seen, acks, records)
    read = helper("read.py", broker.http).figures()
    assert broker.stop() == 0

    assert wrote["records"] == len(records)
    rates = " and ".join(f"{rate:,}/s" for rate in wrote["per_second"])
    say(f"{len(records):,} records ({wrote['bytes'] / 1e6:.1f} MB) from {source}")
    say(f"  written: all, at {rates} before and after kill -9 at {acknowledged:,}; ready again after {down:.2f} s; "
        f"{wrote['sent_again']:,} of unknown fate sent again")
    say(f"  kept: every acknowledged write has the seq it was acknowledged with; the crash skipped {jump:,} seqs")
    say(f"  seen: {len(seen):,} changes, {watched['published']:,} published and {watched['fetched']:,} fetched for "
        f"{len(watched['gaps'])} gap in prev; complete")
    say(f"  read: /getrange {read['range_bytes'] / 1e6:.1f} MB at {read['range_per_second']:,} records/s, /get "
        f"{read['get_per_second']:,} records/s over {read['requests']:,} requests; all equal")
    say(f"  took {time.monotonic() - begun:.0f} s on {os.cpu_count()} cores")


def assert_kept(router, acks):
    """Each key has the seq of the write that was acknowledged last."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.rcvtimeo, dealer.linger = PATIENCE_S * 1000, 0
        dealer.connect(router)
        keys = list(acks)
        for first in range(0, len(keys), 1000):
            part = keys[first : first + 1000]
            dealer.send_multipart([msgpack.packb([0, 0, "get", [key, {"meta": True}]]) for key in part])
            for key, frame in zip(part, dealer.recv_multipart(), strict=True):
                _, _, error, entry = msgpack.unpackb(frame)
                assert error is None and entry is not None, f"{key}: acknowledged, and now {error or 'absent'}"
                assert entry[1] == acks[key], f"{key}: acknowledged as {acks[key]}, and now {entry[1]}"


def assert_complete(seen, acks, records):
    """Every write was seen once, in order, with its value; and no seq is missing but those a crash skips."""
    seqs = [seq for seq, _, _ in seen]
    jumps = [later - earlier - 1 for earlier, later in zip(seqs, seqs[1:], strict=False) if later != earlier + 1]
    assert seqs[0] == 1 and len(jumps) <= 1, f"seqs begin at {seqs[0]} and skip {jumps}"
    assert all(0 <= jump <= SEQ_JUMP_MAX for jump in jumps), f"seqs skip {jumps}"
    by_seq = {seq: (key, digest) for seq, key, digest in seen}
    for key, seq in acks.items():
        digest = hashlib.sha1(msgpack.packb(records[key])).hexdigest()
        assert by_seq.get(seq) == (key, digest), f"{key}: write {seq} was seen as {by_seq.get(seq)}"
    return sum(jumps)
