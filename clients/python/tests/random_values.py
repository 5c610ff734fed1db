"""Random MessagePack of every kind, and its meaning, for comparing."""

import math
import struct


def value(random, depth=0):
    """The bytes of a value, in any encoding that MessagePack has."""
    kinds = [integer, floating, constant, string, binary, ext, timestamp]
    if depth < 4:
        kinds += [array, mapping]
    return random.choice(kinds)(random, depth)


def nested(levels, inner):
    return b"\x91" * levels + inner


def constant(random, _):
    return random.choice([b"\xc0", b"\xc2", b"\xc3"])


def integer(random, _):
    code = random.choice("BBHHIIQQbhiqp")
    heads = {"B": 0xCC, "H": 0xCD, "I": 0xCE, "Q": 0xCF, "b": 0xD0, "h": 0xD1, "i": 0xD2, "q": 0xD3}
    if code == "p":
        return bytes([random.choice([*range(0x80), *range(0xE0, 0x100)])])
    size = struct.calcsize(">" + code)
    return bytes([heads[code]]) + random.choice([random.randbytes(size), b"\xff" * size, b"\0" * (size - 1) + b"\1"])


def floating(random, _):
    special = random.choice([0.0, -0.0, 1.0, 0.5, math.inf, -math.inf, math.nan, 2.0**53, 1e300, random.random()])
    return b"\xcb" + struct.pack(">d", special) if random.random() < 0.7 else b"\xca" + struct.pack(">f", 0.5)


def string(random, _):
    text = random.choice([b"", b"a", "væ".encode(), b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbfx", b"__proto__", b"1"])
    text *= random.choice([1, 1, 40])
    if len(text) < 32 and random.random() < 0.5:
        return bytes([0xA0 + len(text)]) + text
    return b"\xda" + struct.pack(">H", len(text)) + text


def binary(random, _):
    data = random.randbytes(random.choice([0, 1, 300]))
    return b"\xc5" + struct.pack(">H", len(data)) + data


def ext(random, _):
    data = random.randbytes(random.choice([0, 1, 2, 3, 4, 8, 12, 16]))
    return b"\xc7" + bytes([len(data), random.choice([0, 5, 127, 128, 200, 254, 255])]) + data


def timestamp(random, _):
    nanoseconds = random.choice([0, 1, 1_000_000, 999_999_999, 1_000_000_000, 2**30 - 1])
    seconds = random.choice([0, 1, 2**32 - 1, 2**33, -1, 8_640_000_000_000, 8_640_000_000_001, -(2**63), 2**63 - 1])
    if 0 <= seconds < 2**32 and nanoseconds == 0:
        return b"\xd6\xff" + struct.pack(">I", seconds)
    if 0 <= seconds < 2**34 and random.random() < 0.5:
        return b"\xd7\xff" + struct.pack(">Q", nanoseconds << 34 | seconds)
    return b"\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, seconds)


def array(random, depth):
    items = [value(random, depth + 1) for _ in range(random.choice([0, 1, 3, 20]))]
    return b"\xdc" + struct.pack(">H", len(items)) + b"".join(items)


def mapping(random, depth):
    pairs = []
    for _ in range(random.choice([0, 1, 2, 6])):
        key = string(random, 0) if random.random() < 0.7 else value(random, depth + 1)
        pairs.append(key + value(random, depth + 1))
    return b"\xde" + struct.pack(">H", len(pairs)) + b"".join(pairs)


def meaning(packed):
    """The meaning of MessagePack in any encoding: numbers are equal by value, timestamps by time."""
    said, end = _meaning(packed, 0)
    assert end == len(packed)
    return said


def _meaning(packed, at):
    head = packed[at]
    at += 1
    if head < 0x80 or head >= 0xE0:
        return ("int", head if head < 0x80 else head - 256), at
    if 0x80 <= head < 0xC0:
        count = head & (0x1F if head >= 0xA0 else 0x0F)
        kind = "str" if head >= 0xA0 else "array" if head >= 0x90 else "map"
        return _inside(packed, at, kind, count)
    if head in (0xC0, 0xC2, 0xC3):
        return ({0xC0: "nil", 0xC2: "false", 0xC3: "true"}[head],), at
    if 0xCA <= head <= 0xD3:
        code = ">" + "fdBHIQbhiq"[head - 0xCA]
        number, = struct.unpack_from(code, packed, at)
        at += struct.calcsize(code)
        if head >= 0xCC:
            return ("int", number), at
        return ("float", "nan" if math.isnan(number) else struct.pack(">d", number)), at
    if 0xD4 <= head <= 0xD8:
        return _ext(packed, at, 1 << (head - 0xD4))
    kind, code = {
        0xC4: ("bin", "B"), 0xC5: ("bin", "H"), 0xC6: ("bin", "I"), 0xC7: ("ext", "B"), 0xC8: ("ext", "H"),
        0xC9: ("ext", "I"), 0xD9: ("str", "B"), 0xDA: ("str", "H"), 0xDB: ("str", "I"), 0xDC: ("array", "H"),
        0xDD: ("array", "I"), 0xDE: ("map", "H"), 0xDF: ("map", "I"),
    }[head]
    count, = struct.unpack_from(">" + code, packed, at)
    at += struct.calcsize(">" + code)
    return _ext(packed, at, count) if kind == "ext" else _inside(packed, at, kind, count)


def _inside(packed, at, kind, count):
    if kind in ("str", "bin"):
        return (kind, packed[at:at + count]), at + count
    items = []
    for _ in range(count * (2 if kind == "map" else 1)):
        item, at = _meaning(packed, at)
        items.append(item)
    return (kind, *items), at


def _ext(packed, at, length):
    code, data = packed[at], packed[at + 1:at + 1 + length]
    if code == 255 and length in (4, 8, 12):
        if length == 4:
            time = (0, *struct.unpack(">I", data))
        elif length == 8:
            packed_time, = struct.unpack(">Q", data)
            time = (packed_time >> 34, packed_time & 0x3FFFFFFFF)
        else:
            time = struct.unpack(">Iq", data)
        return ("time", *time), at + 1 + length
    return ("ext", code, data), at + 1 + length
