/** Mistakes of a program or its environment: each rejects with a VatnError at once, and changes nothing. */

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { once } from "node:events";
import { test } from "node:test";
import { Router } from "zeromq";
import {
  Client,
  CommandError,
  InvalidArgument,
  ProtocolError,
  Subscriber,
  Unwritable,
  VatnError,
} from "../src/index.js";
import { pack, request, unpack } from "../src/wire.js";
import { startBroker, temporary } from "./broker.js";

async function connect(t, broker, options) {
  const client = await Client.connect(broker.router, options);
  t.after(() => client.close());
  return client;
}

const MISTAKES = {
  "a key for a list of keys": (c) => c.delete_multi("boat"),
  "a boxed string for a list of keys": (c) => c.delete_multi(new String("boat")),
  "bytes for a list of keys": (c) => c.delete_multi(Buffer.from("boat")),
  "a key for a list to get": (c) => c.get_multi("boat"),
  "nothing for a list of keys": (c) => c.get_multi(),
  "null for a list of keys": (c) => c.delete_multi(null),
  "an object for a list of keys": (c) => c.delete_multi({ b: 1 }),
  "a Map for a list of keys": (c) => c.delete_multi(new Map([["b", 1]])),
  "numbers for keys": (c) => c.delete_multi([1, 2]),
  "text for pairs": (c) => c.set_multi("boat"),
  "texts for pairs": (c) => c.set_multi(["bo", "at"]),
  "bytes for pairs": (c) => c.set_multi(Buffer.from("bo")),
  "a Set for pairs": (c) => c.set_multi(new Set(["bo"])),
  "a Date for pairs": (c) => c.set_multi(new Date()),
  "nothing for pairs": (c) => c.set_multi(),
  "triples for pairs": (c) => c.set_multi([["b", 1, 2]]),
  "a symbol for a key of pairs": (c) => c.set_multi({ [Symbol("b")]: 1 }),
  "text for commands": (c) => c.batch("get"),
  "an object for commands": (c) => c.batch({ set: ["b", 1] }),
  "a method alone": (c) => c.batch([["flush"]]),
  "text for params": (c) => c.batch([["set", "bo"]]),
  "no function for atomic": (c) => c.atomic([]),
  "an async function for atomic": (c) => c.atomic(async (block) => block.set("b", 1)),
  "a number for a key": (c) => c.get(1),
  "nothing for a key": (c) => c.get(),
  "null for a key": (c) => c.set(null, 1),
  "an array for a key": (c) => c.delete(["b"]),
  "half a pair in a key": (c) => c.get("\ud800"),
  "half a pair in a prefix": (c) => c.range({ prefix: "\ud800" }),
  "text for options": (c) => c.get("b", "meta"),
  "an array for options": (c) => c.set("b", 1, ["durability"]),
  "text for the options of scan": (c) => c.scan("b").next(),
  "text for a time": (c) => c.wait(1, "memory", { timeout_ms: "1" }),
  "a negative time": (c) => c.changes(0, { wait_ms: -1 }),
  "no number for a time": (c) => c.changes(0, { wait_ms: NaN }),
  "undefined in an option": (c) => c.set("b", 1, { if: [undefined] }),
  "more than 64 bits in an option": (c) => c.incr("n", { delta: 2n ** 64n }),
  "a timeout that is text": async (c) => {
    c.timeout = "10";
  },
  "a timeout that is no number": (c) => Client.connect(c.endpoint, { timeout: NaN }),
  "a number for the options of connect": (c) => Client.connect(c.endpoint, 5),
  "an unknown option of connect": (c) => Client.connect(c.endpoint, { timeuot: 5 }),
  "an unknown option of a subscriber": () => Subscriber.connect("tcp://127.0.0.1:1", [], { form: 1 }),
  "an endpoint that is none": () => Client.connect("nonsense"),
  "an endpoint that is a number": () => Client.connect(7533),
  "an endpoint without a port": () => Client.connect("tcp://127.0.0.1"),
  "a subscriber's endpoint that is none": () => Subscriber.connect("nonsense"),
  "a prefix for a list of prefixes": () => Subscriber.connect("tcp://127.0.0.1:1", "boat"),
  "a prefix that is a number": () => Subscriber.connect("tcp://127.0.0.1:1", [1]),
  "half a pair in a prefix of a subscriber": () => Subscriber.connect("tcp://127.0.0.1:1", ["\ud800"]),
  "patience that is text": () => Subscriber.connect("tcp://127.0.0.1:1", [], { patience: "1" }),
  "a seq to begin after that is text": () => Subscriber.connect("tcp://127.0.0.1:1", [], { after: "1" }),
};

test("a mistake is refused before anything is sent", async (t) => {
  const client = await connect(t, await startBroker(t));
  await client.set_multi({ b: 1, o: 1, a: 1, t: 1, boat: 1 });
  for (const [name, mistake] of Object.entries(MISTAKES)) {
    await t.test(name, async () => {
      let made;
      assert.doesNotThrow(() => (made = mistake(client)), "it rejects");
      await assert.rejects(made, (error) => error instanceof InvalidArgument && error.message.length > 20);
      assert.deepEqual([(await client.hello()).seq, await client.count()], [1, 5]);
    });
  }
});

test("a mistake that only the broker detects is a VatnError too", async (t) => {
  const client = await connect(t, await startBroker(t));
  for (const mistake of [
    client.set("b", 1, { ttl_ms: 0 }),
    client.range({ limit: 0 }),
    client.touch("b", 1.5),
    client.touch("b", "x"),
    client.wait(1, "level"),
    client.batch([["nonsense", []]]),
    client.get("x".repeat(40_000)),
    client.changes("1"),
    client.wait({}, "memory"),
    client.set("b", 1, { if: {} }),
  ])
    await assert.rejects(mistake, CommandError);
});

test("making a client or subscriber by new names the right way", () => {
  for (const [make, name] of [
    [() => new Client("tcp://127.0.0.1:1", 100), "Client.connect"],
    [() => new Subscriber("tcp://127.0.0.1:1", ["a"]), "Subscriber.connect"],
  ])
    assert.throws(make, (error) => error instanceof InvalidArgument && error.message.includes(name));
});

test("lists of every kind are lists", async (t) => {
  const client = await connect(t, await startBroker(t));
  const keys = function* () {
    yield "a";
    yield Buffer.from("b");
  };
  await client.set_multi(
    (function* () {
      for (const key of "abc") yield [key, 1];
    })(),
  );
  assert.equal((await client.get_multi(new Set(["a", "b"]))).size, 2);
  assert.equal(await client.delete_multi(keys()), 2);
  assert.equal(await client.delete_multi([]), 0);
  assert.equal(await client.incr("n", { initial: 5n }), 5);
  assert.equal(await client.set("n", 1, { if: BigInt((await client.hello()).seq), durability: undefined }), 4);
  assert.equal(await client.get("n", null), 1);
});

for (const address of ["[::1]", "localhost"]) {
  test(`${address} is reached`, async (t) => {
    const probe = createServer().listen(0, "::1");
    const isThere = await Promise.race([
      once(probe, "listening").then(() => true),
      once(probe, "error").then(() => false),
    ]);
    probe.close();
    if (!isThere) return t.skip("this machine has no IPv6");
    const host = address === "localhost" ? "127.0.0.1" : address;
    const flags = ["--router", `tcp://${host}:0`, "--publisher", `tcp://${host}:0`];
    const broker = await startBroker(t, { flags });
    const client = await connect(t, { router: broker.router.replace("127.0.0.1", address) });
    const subscriber = await Subscriber.connect(broker.publisher.replace("127.0.0.1", address));
    t.after(() => subscriber.close());
    await client.set("a", 1);
    assert.equal((await subscriber.next()).value.value, 1);
  });
}

test("a message over the limit is refused at once, and one at the limit is sent", async (t) => {
  const client = await connect(t, await startBroker(t, { flags: ["--max-message-bytes", "65536"] }), {
    timeout: 30_000,
  });
  const over = Buffer.alloc(65_537);
  const isTooLarge = (error) =>
    error instanceof CommandError && error.code === "TOO_LARGE" && error.details.max === 65_536;
  for (const attempt of [
    client.set("a", over),
    client.set_multi({ b: 1, a: over }),
    client.ping(over),
    client.atomic((block) => block.set("a", over)),
    client.delete_multi([over.subarray(0, 30_000), over.subarray(0, 30_000), over.subarray(0, 30_000)]),
  ])
    await assert.rejects(attempt, isTooLarge);
  assert.throws(() => client.notify.set("a", over), isTooLarge);
  assert.equal(await client.count(), 0);
  const head = request(100, "set", ["a", Buffer.alloc(0)]).length;
  await client.set("a", Buffer.alloc(65_536 - head - 2));
  // Many requests that fit are sent in messages that fit.
  await Promise.all(Array.from({ length: 60 }, (_, n) => client.set(`k${n}`, Buffer.alloc(1000 * n))));
  assert.equal(await client.count(), 61);
});

test("messages have no more frames than the broker accepts", async (t) => {
  const client = await connect(t, await startBroker(t, { flags: ["--max-frames", "16"] }), { timeout: 30_000 });
  const seqs = await Promise.all(
    Array.from({ length: 100 }, (_, n) => client.set(`k${n}`, n, { durability: "queued" })),
  );
  assert.equal(seqs.at(-1), 100);
});

test("the limits of a restarted broker are requested again", async (t) => {
  const directory = await temporary(t);
  const broker = await startBroker(t, { directory, flags: ["--max-message-bytes", "65536"] });
  const client = await connect(t, broker, { timeout: 30_000 });
  await broker.stop();
  await startBroker(t, { directory, flags: ["--router", broker.router] });
  const value = Buffer.alloc(100_000);
  await assert.rejects(client.set("a", value), { code: "TOO_LARGE" });
  while (client.server.limits.message_bytes === 65_536) await client.ping();
  assert.ok(await client.set("a", value));
});

test("an answer in another form is a ProtocolError", async (t) => {
  const router = new Router({ linger: 0, receiveTimeout: 20_000 });
  t.after(() => router.close());
  await router.bind("tcp://127.0.0.1:*");
  const results = [{ protocol: 1 }, 5, "text", [[1], null], [[["a", 1]], null, 0], [1], 7];
  const answering = (async () => {
    for (const result of results) {
      const [peer, frame] = await router.receive();
      await router.send([peer, pack([1, unpack(frame)[1], null, result])]);
    }
  })();
  const client = await connect(t, { router: router.lastEndpoint });
  for (const attempt of [
    () => client.get("a", { meta: true }),
    () => client.range(),
    () => client.changes(0),
    () => client.changes(0),
    () => client.get_multi(["a"]),
    () => client.batch([["get", ["a"]]]),
  ])
    await assert.rejects(attempt(), ProtocolError);
  await answering;
});

test("a closed client and subscriber reject with that reason", async (t) => {
  const broker = await startBroker(t);
  const client = await connect(t, broker);
  const subscriber = await Subscriber.connect(broker.publisher);
  for (const one of [client, subscriber, client, subscriber]) one.close();
  for (const attempt of [
    () => client.ping(),
    () => client.scan().next(),
    () => subscriber.next(),
    () => subscriber.take(1),
  ]) {
    await assert.rejects(attempt(), (error) => error instanceof VatnError && /closed/.test(error.message));
  }
  assert.throws(() => client.notify.set("a", 1), VatnError);
  await assert.rejects(client.set("a", undefined), Unwritable);
});
