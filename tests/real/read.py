"""Reads everything back over HTTP and compares it with the records, read anew.

    python read.py HTTP

First all of it in one `/getrange`, then every key by name, some keys a request. Prints its figures.
"""

import http.client
import json
import sys
import time
from urllib.parse import quote, urlsplit

from records import load

# A request line has to be shorter than 8,192 bytes.
TARGET_BYTES_MAX = 8_000
FAULTS_SHOWN = 5


def get(connection, target):
    connection.request("GET", target)
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, (target, response.status, body)
    return body


def targets(keys):
    """`/get?key=…&key=…` for all keys."""
    arguments, length = [], 0
    for key in keys:
        argument = f"key={quote(key, safe='')}"
        if length + len(argument) + 1 > TARGET_BYTES_MAX:
            yield "/get?" + "&".join(arguments)
            arguments, length = [], 0
        arguments.append(argument)
        length += len(argument) + 1
    yield "/get?" + "&".join(arguments)


def compare(what, read, records):
    missing = [key for key in records if key not in read]
    foreign = [key for key in read if key not in records]
    other = [key for key in records if key in read and read[key] != records[key]]
    for fault, keys in (("missing", missing), ("not written", foreign), ("another value", other)):
        if keys:
            sys.exit(f"{what}: {len(keys)} records are {fault}: {keys[:FAULTS_SHOWN]}")


def main(endpoint):
    _, records = load()
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)

    begun = time.monotonic()
    body = get(connection, "/getrange?from=")
    range_seconds = time.monotonic() - begun
    everything = json.loads(body)
    compare("/getrange", everything, records)
    in_order = sorted(records, key=str.encode)
    assert list(everything) == in_order, "/getrange is not in bytewise order of the keys"

    begun = time.monotonic()
    read, requests = {}, 0
    for target in targets(records):
        read.update(json.loads(get(connection, target)))
        requests += 1
    get_seconds = time.monotonic() - begun
    compare("/get", read, records)
    print(json.dumps({
        "range_bytes": len(body), "range_per_second": round(len(records) / range_seconds),
        "requests": requests, "get_per_second": round(len(records) / get_seconds),
    }))


if __name__ == "__main__":
    main(*sys.argv[1:])
