/** Random MessagePack of every kind, in any encoding, and its meaning, for comparing. */

/** Numbers from 0 to 1, the same ones for the same seed. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function randomValue(random, depth = 0) {
  const pick = (choices) => choices[Math.floor(random() * choices.length)];
  const bytes = (length) => Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
  const text = () =>
    pick([
      Buffer.from(pick(["", "a", "væ", "\ufeffx", "__proto__", "1", "\ufffd", "x".repeat(300)])),
      Buffer.from([0xff]),
    ]);
  const str = (data = text()) => Buffer.concat([Buffer.from([0xda, data.length >> 8, data.length & 255]), data]);
  const list = (head, parts, count) => Buffer.concat([Buffer.from([head, count >> 8, count & 255]), ...parts]);
  const float = (number) => {
    const made = Buffer.alloc(9, 0xcb);
    made.writeDoubleBE(number, 1);
    return made;
  };
  const timestamp = () => {
    const made = Buffer.from("c70cff000000000000000000000000", "hex");
    made.writeUInt32BE(pick([0, 1, 1_000_000, 999_000_000, 1_000_000_000]), 3);
    made.writeBigInt64BE(pick([0n, 1n, -1n, 2n ** 33n, 8_640_000_000_000n, 8_640_000_000_001n, -(2n ** 63n)]), 7);
    return made;
  };
  const kinds = [
    () => Buffer.from([pick([0xc0, 0xc2, 0xc3, 0x7f, 0xe0])]),
    () =>
      Buffer.concat(
        pick(
          [
            [0xcc, 1],
            [0xcd, 2],
            [0xce, 4],
            [0xcf, 8],
            [0xd0, 1],
            [0xd1, 2],
            [0xd2, 4],
            [0xd3, 8],
          ].map(([head, size]) => [
            Buffer.from([head]),
            pick([bytes(size), Buffer.alloc(size, 255), Buffer.alloc(size, 0)]),
          ]),
        ),
      ),
    () => float(pick([0, -0, 1, 0.5, NaN, Infinity, 2 ** 60, -1e300, random()])),
    () => Buffer.from("ca3f000000", "hex"),
    str,
    () => list(0xc5, [bytes(3)], 3),
    () =>
      pick(
        [0, 1, 4, 8, 12].map((size) =>
          Buffer.concat([Buffer.from([0xc7, size, pick([0, 5, 127, 128, 254, 255])]), bytes(size)]),
        ),
      ),
    timestamp,
  ];
  if (depth < 4) {
    const size = pick([0, 1, 3, 20]);
    const inner = () => randomValue(random, depth + 1);
    kinds.push(() => list(0xdc, Array.from({ length: size }, inner), size));
    kinds.push(() =>
      list(0xde, Array.from({ length: size }, () => [random() < 0.9 ? str() : inner(), inner()]).flat(), size),
    );
    kinds.push(() =>
      list(0xde, Array.from({ length: size }, (_, n) => [str(Buffer.from(`k${n}`)), inner()]).flat(), size),
    );
  }
  return pick(kinds)();
}

/** The meaning of MessagePack in any encoding: an integral float is an integer, and map keys have no order. */
export function meaning(bytes) {
  let at = 0;
  const take = (size) => bytes.subarray(at, (at += size));
  const length = (width) => take(width).readUIntBE(0, width);
  const many = (count) => Array.from({ length: count }, one);
  const map = (count) => [
    "map",
    Array.from({ length: count }, () => [one(), one()])
      .map(JSON.stringify)
      .sort(),
  ];
  const number = (value) =>
    Number.isSafeInteger(value) && !Object.is(value, -0)
      ? ["int", `${value}`]
      : ["float", Object.is(value, -0) ? "-0" : `${value}`];
  const ext = (size) => {
    const type = take(1).readInt8(0);
    const data = take(size);
    if (type !== -1) return ["ext", type, data.toString("hex")];
    if (size === 4) return ["time", `${data.readUInt32BE(0)}`, 0];
    if (size === 8) return ["time", `${data.readBigUInt64BE(0) & 0x3ffffffffn}`, data.readUInt32BE(0) >>> 2];
    return ["time", `${data.readBigInt64BE(4)}`, data.readUInt32BE(0)];
  };
  function one() {
    const head = take(1)[0];
    if (head < 0x80 || head >= 0xe0) return ["int", `${head < 0x80 ? head : head - 256}`];
    if (head < 0x90) return map(head & 15);
    if (head < 0xa0) return ["array", many(head & 15)];
    if (head < 0xc0) return ["str", take(head & 31).toString("hex")];
    if (head <= 0xc3) return [["nil", "", "false", "true"][head - 0xc0]];
    if (head <= 0xc6) return ["bin", take(length(1 << (head - 0xc4))).toString("hex")];
    if (head <= 0xc9) return ext(length(1 << (head - 0xc7)));
    if (head === 0xca) return number(take(4).readFloatBE(0));
    if (head === 0xcb) return number(take(8).readDoubleBE(0));
    if (head <= 0xce) return ["int", `${length(1 << (head - 0xcc))}`];
    if (head === 0xcf) return ["int", `${take(8).readBigUInt64BE(0)}`];
    if (head <= 0xd2) return ["int", `${take(1 << (head - 0xd0)).readIntBE(0, 1 << (head - 0xd0))}`];
    if (head === 0xd3) return ["int", `${take(8).readBigInt64BE(0)}`];
    if (head <= 0xd8) return ext(1 << (head - 0xd4));
    if (head <= 0xdb) return ["str", take(length(1 << (head - 0xd9))).toString("hex")];
    if (head <= 0xdd) return ["array", many(length(2 << (head - 0xdc)))];
    return map(length(2 << (head - 0xde)));
  }
  return JSON.stringify(one());
}
