/** Values that cannot be read or written: each is reported alone, and none is changed in silence. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { runInNewContext } from "node:vm";
import { Client, ExtData, Subscriber, Unreadable, Unwritable } from "../src/index.js";
import { pack } from "../src/wire.js";
import { setRaw, startBroker } from "./broker.js";
import { meaning, randomValue, seeded } from "./random.js";

async function start(t) {
  const broker = await startBroker(t);
  const client = await Client.connect(broker.router);
  t.after(() => client.close());
  return { broker, client };
}

const collect = async (items) => {
  const collected = [];
  for await (const item of items) collected.push(item);
  return collected;
};
const keyAndValue = ({ key, value }) => [key, value];
const isOdd = (value, hex) => value instanceof Unreadable && value.bytes.toString("hex") === hex && value.reason !== "";

test("an unreadable value is reported in its place", async (t) => {
  const { broker, client } = await start(t);
  for (const hex of [
    "81c001",
    "c701ff00",
    "8101c0",
    "82a16101a16102",
    "a1ff",
    "8180c0",
    "d7ff0000000400000000",
    "c70cff0000000000ffffffffffffff",
  ]) {
    await t.test(hex, async (t) => {
      await client.delete_multi(["a", "b", "c"]);
      const seq = await client.set("a", 1);
      const past = await Subscriber.connect(broker.publisher, [""], { client, after: seq - 1 });
      t.after(() => past.close());
      const live = await Subscriber.connect(broker.publisher);
      t.after(() => live.close());
      await setRaw(t, broker, "b", hex);
      await client.set("c", 3);
      const pages = [
        (await client.range()).items,
        await collect(client.scan({ page: 2 })),
        [...(await client.get_multi(["a", "b", "c"]))],
        (await client.changes(seq - 1)).changes.map(keyAndValue),
        (await collect(past.until(seq + 2))).map(keyAndValue),
        [["a", 1], ...(await collect(live.until(seq + 2))).map(keyAndValue)],
        [
          ["a", 1],
          ...(
            await client.batch([
              ["get", ["b"]],
              ["get", ["c"]],
            ])
          ).map((value, place) => ["bc"[place], value]),
        ],
        (await client.range({ meta: true })).items.map(([key, [value]]) => [key, value]),
      ];
      for (const [[a, one], [b, odd], [c, three]] of pages) {
        assert.deepEqual([a, one, b, c, three], ["a", 1, "b", "c", 3]);
        assert.ok(isOdd(odd, hex), odd);
      }
      const entry = await client.get("b", { meta: true });
      assert.ok(isOdd(entry.value, hex) && entry.seq === seq + 1);
      const [range, get, several] = await client.batch([
        ["range", [{ meta: true }]],
        ["get", ["b", { meta: true }]],
        ["get_multi", [["b"]]],
      ]);
      for (const odd of [range[0][1][1][0], get[0], several[0][1]]) assert.ok(isOdd(odd, hex));
      await assert.rejects(client.get("b"), (error) => isOdd(error, hex));
      await assert.rejects(client.delete("b", { return_value: true }), (error) => isOdd(error, hex));
    });
  }
});

test("any MessagePack is read as an equal value or as its bytes", async (t) => {
  const { broker, client } = await start(t);
  const seed = Number(process.env.VATN_SEED ?? Math.floor(Math.random() * 2 ** 32));
  t.diagnostic(`VATN_SEED=${seed}`);
  const random = seeded(seed);
  const packed = new Map(Array.from({ length: 600 }, (_, n) => [`k${`${n}`.padStart(4, "0")}`, randomValue(random)]));
  packed.set("deep", Buffer.concat([Buffer.alloc(63, 0x91), Buffer.from([0x90])]));
  packed.set("wide", Buffer.concat([Buffer.from("dd00030d40", "hex"), Buffer.alloc(200_000, 0xc0)]));
  for (const [key, value] of packed) await setRaw(t, broker, key, value.toString("hex"));
  const read = new Map(await collect(client.scan({ page: 50 })));
  assert.deepEqual([...read.keys()], [...packed.keys()].sort());
  let readable = 0;
  for (const [key, value] of read) {
    const sent = packed.get(key);
    if (value instanceof Unreadable) {
      assert.deepEqual(value.bytes, sent, `VATN_SEED=${seed}`);
      continue;
    }
    readable += 1;
    assert.equal(meaning(Buffer.from(pack(value))), meaning(sent), `VATN_SEED=${seed} ${sent.toString("hex")}`);
  }
  assert.ok(readable > 100, "many can be read");
});

class Boat {
  oars = 2;
}

const itself = [];
itself.push([itself]);
const withMembers = Object.assign([1], { index: 0 });
const throwing = {
  get boat() {
    throw new Error("sunk");
  },
};
const inherits = Object.create(Object.assign(Object.create(null), { lost: 1 }));

const REFUSED = {
  undefined: undefined,
  "a hole in an array": [, 1],
  "an invalid Date": new Date(NaN),
  "a Date of a class": new (class Day extends Date {})(0),
  "a function": () => 1,
  "a symbol": Symbol("a"),
  "a symbol as a key": { [Symbol("a")]: 1 },
  "a Set": new Set([1]),
  "a WeakMap": new WeakMap(),
  "a Map with a number as a key": new Map([[1, 1]]),
  "a Map with bytes as a key": new Map([[Buffer.from([0xff]), 1]]),
  "an instance of a class": new Boat(),
  "an instance of a class without a prototype": new (class extends null {
    constructor() {
      return Object.create(new.target.prototype);
    }
  })(),
  "an object that inherits": inherits,
  "an object with toJSON": { toJSON: () => 1 },
  "a boxed number": new Number(1),
  "a boxed string": new String("a"),
  "a boxed bigint": Object(2n ** 60n),
  "a RegExp": /a/,
  "an Error": new Error("a"),
  "a Promise": Promise.resolve(1),
  arguments: (function () {
    return arguments;
  })(1),
  Math: Math,
  "a typed array": new Float64Array(1),
  "clamped bytes": new Uint8ClampedArray(1),
  "an ArrayBuffer": new ArrayBuffer(1),
  "a DataView": new DataView(new ArrayBuffer(1)),
  "bytes of a class": new (class Bytes extends Uint8Array {})(1),
  "an array of a class": new (class List extends Array {})(1, 2),
  "an array with members": withMembers,
  "an array with a symbol": Object.assign([1], { [Symbol("a")]: 1 }),
  "a Buffer with members": Object.assign(Buffer.from("a"), { own: 1 }),
  "a Buffer with a symbol": Object.assign(Buffer.from("a"), { [Symbol("a")]: 1 }),
  "bytes with members": Object.assign(new Uint8Array(1), { own: 1 }),
  "a Date with members": Object.assign(new Date(0), { own: 1 }),
  "a Date with a symbol": Object.assign(new Date(0), { [Symbol("a")]: 1 }),
  "a Map with members": Object.assign(new Map([["a", 1]]), { own: 1 }),
  "an ext with members": Object.assign(new ExtData(5, Buffer.from([0])), { own: 1 }),
  "what a match found": "boat".match(/o/),
  "a bigint that a number holds": 5n,
  "an integer of more than 64 bits": 2n ** 64n,
  "a negative one": -(2n ** 63n) - 1n,
  "half a surrogate pair": "\ud800",
  "half a pair, far in": "x".repeat(100) + "\udc00",
  "half a pair in a key": { "\udc00": 1 },
  "what holds itself": itself,
  "a getter that throws": throwing,
  "an ext that is a time": new ExtData(-1, Buffer.from([0, 0, 0, 1])),
  "an ext of no type": new ExtData(300, Buffer.from([0])),
  "an ext whose data is a function": new ExtData(5, () => Buffer.from([0])),
  "65 levels": Array.from({ length: 64 }).reduce((inner) => [inner], [1]),
};

test("a value that would not come back equal is refused with its path", async (t) => {
  const { client } = await start(t);
  for (const [name, value] of Object.entries(REFUSED)) {
    await t.test(name, async () => {
      const attempts = [
        [() => client.set("v", value), /^value/],
        [() => client.set("v", { a: [0, value] }), /^value\.a\[1\]/],
        [() => client.set("v", new Map([["odd one", value]])), /^value\["odd one"\]/],
        [() => client.ping([value]), /^payload\[0\]/],
        [() => client.set_multi({ u: 1, v: value }), /^pairs\[1\]\[1\]/],
        [
          () =>
            client.batch([
              ["get", ["u"]],
              ["set", ["v", value]],
            ]),
          /^commands\[1\]: value/,
        ],
        [() => client.atomic((block) => block.set("v", value)), /^commands\[0\]: value/],
      ];
      for (const [attempt, path] of attempts) {
        if (path.source === "^payload\\[0\\]" && name === "a hole in an array") continue;
        await assert.rejects(
          attempt(),
          (error) => error instanceof Unwritable && path.test(error.path) && error.message.includes(error.reason),
        );
      }
      assert.throws(() => client.notify.set("v", value), Unwritable);
      assert.equal(await client.count(), 0);
    });
  }
});

test("a value that comes back equal is stored", async (t) => {
  const { client } = await start(t);
  const values = [
    -0,
    [0, -0],
    NaN,
    Infinity,
    -Infinity,
    2 ** 53,
    2 ** 60,
    -(2 ** 31) - 1,
    2 ** 40,
    5e-324,
    2n ** 53n,
    2n ** 64n - 1n,
    -(2n ** 63n),
    "\ufeff",
    "\ufffd",
    "\u0000",
    "💧",
    new Date(0),
    new Date(-1),
    new Date(8.64e15),
    new Date(-8.64e15),
    new Date(1_700_000_000_123),
    { ["__proto__"]: 1, constructor: 2, hasOwnProperty: 3 },
    { "": 0, 1: 1, "-1": 2 },
    [],
    {},
    [[]],
    Buffer.alloc(0),
    new ExtData(-2, Buffer.from([1])),
    new ExtData(0, Buffer.alloc(16)),
    Array.from({ length: 63 }).reduce((inner) => [inner], [new Date(5)]),
    {
      get oars() {
        return 2;
      },
    },
  ];
  for (const value of values) {
    await client.set("v", value);
    const read = await client.get("v");
    assert.deepEqual(
      read,
      JSON.parse === value
        ? value
        : typeof value === "object" && value !== null && "oars" in value
          ? { oars: 2 }
          : value,
    );
  }
  assert.equal(Object.getPrototypeOf(await client.ping({ ["__proto__"]: { a: 1 } })), Object.prototype);
});

test("the values that come back as another type are those in the README", async (t) => {
  const { client } = await start(t);
  const realm = runInNewContext(
    "({ plain: { a: [1] }, date: new Date(5), bytes: new Uint8Array([1]), map: new Map([['a', 1]]) })",
  );
  for (const [value, read] of [
    [new Map([["a", 1]]), { a: 1 }],
    [new Uint8Array([1, 2]), Buffer.from([1, 2])],
    [Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
    [new Proxy({ a: 1 }, {}), { a: 1 }],
    [realm, { plain: { a: [1] }, date: new Date(5), bytes: Buffer.from([1]), map: { a: 1 } }],
    [Object.freeze({ a: 1 }), { a: 1 }],
  ]) {
    await client.set("v", value);
    assert.deepEqual(await client.get("v"), read);
  }
});

test("a property is read once", async (t) => {
  const { client } = await start(t);
  let reads = 0;
  const counting = {
    get n() {
      return ++reads === 1 ? 1 : undefined;
    },
  };
  assert.deepEqual(await client.ping(counting), { n: 1 });
});
