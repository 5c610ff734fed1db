"""Every vector, over one plain DEALER, on a fresh broker a file."""

import pytest
import vectors
import zmq
from plain import call, connect, pack


@pytest.mark.parametrize("name", vectors.files())
def test_replies_equal_those_of_the_vectors(name, context, broker):
    socket = connect(context, zmq.DEALER, broker.router)
    wrong = []
    for step in vectors.steps(name):
        socket.send_multipart([vectors.octets(frame) for frame in step["request"]])
        if not step["reply"]:
            continue
        frames = socket.recv_multipart()
        faults = [vectors.mismatch(*pair) for pair in zip(step["reply"], frames)]
        if len(frames) != len(step["reply"]):
            faults.append(f"{len(frames)} frames instead of {len(step['reply'])}")
        wrong += [f"{step['about']}: {fault}" for fault in faults if fault]
    assert not wrong, "\n".join(wrong)
    mark = 2**40
    assert call(socket, "ping", "end", id=mark) == "end", "a reply came that should not have come"


def test_no_vector_is_stale():
    import subprocess
    import sys

    made = subprocess.run([sys.executable, vectors.DIRECTORY / "make.py", "--check"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def test_a_wrong_reply_would_be_noticed():
    good = pack(1, 7, None, 5)
    assert vectors.mismatch(good.hex(), good) is None
    assert vectors.mismatch(good.hex(), pack(1, 7, None, 6))
    error = {"error": "CONFLICT", "id": 7, "details": {"seq": 1}}
    assert vectors.mismatch(error, pack(1, 7, ["CONFLICT", "any words", {"seq": 1}], None)) is None
    assert vectors.mismatch(error, pack(1, 7, ["CONFLICT", "any words", {"seq": 2}], None))
    assert vectors.mismatch(error, pack(1, 8, ["CONFLICT", "any words", {"seq": 1}], None))
    loose = {"decoded": [1, 7, None, {"a": 1, "b": None}], "ignore": ["b"]}
    assert vectors.mismatch(loose, pack(1, 7, None, {"a": 1, "b": 9, "c": 3})) is None
    assert vectors.mismatch(loose, pack(1, 7, None, {"a": 2, "b": 9}))
    assert vectors.mismatch(loose, pack(1, 7, None, {"a": 1}))
