/** The subscriber against a real broker, and its checks of seq and prev against a forged one. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rename } from "node:fs/promises";
import { createServer } from "node:net";
import { performance } from "node:perf_hooks";
import { test } from "node:test";
import { queryObjects } from "node:v8";
import { XPublisher } from "zeromq";
import { Client, Missed, Subscriber } from "../src/index.js";
import { Feed } from "../src/feed.js";
import { pack } from "../src/wire.js";
import { startBroker, temporary } from "./broker.js";
import { startRelay } from "./relay.js";

async function both(t, prefixes, flags) {
  const broker = await startBroker(t, { flags });
  const client = await Client.connect(broker.router);
  t.after(() => client.close());
  const subscriber = await Subscriber.connect(broker.publisher, prefixes);
  t.after(() => subscriber.close());
  return { client, subscriber };
}

async function collect(changes) {
  const collected = [];
  for await (const change of changes) collected.push(change);
  return collected;
}

test("changes come in order once the subscriber is made", async (t) => {
  const { client, subscriber } = await both(t, ["a"]);
  await client.set("a1", { x: 1 }, { durability: "stored" });
  await client.set("b1", 1);
  await client.set_multi({ a2: 2, b2: 2 });
  await client.delete("a1");
  assert.deepEqual(await collect(subscriber.until(4)), [
    { key: "a1", op: "set", value: { x: 1 }, seq: 1, index: 0, count: 1, ttl_ms: null, level: "stored" },
    { key: "a2", op: "set", value: 2, seq: 3, index: 0, count: 2, ttl_ms: null, level: "synced" },
    { key: "a1", op: "delete", value: null, seq: 4, index: 0, count: 1, ttl_ms: null, level: "synced" },
  ]);
  assert.equal(subscriber.last, 4);
});

/** A copy of the store applies a change: of a touch it takes the time alone. */
function apply(copy, { key, op, value, ttl_ms }) {
  if (op === "set") copy[key] = [value, ttl_ms !== null];
  else if (op === "touch") copy[key][1] = ttl_ms !== null;
  else delete copy[key];
  return copy;
}

test("a copy that takes only the time of a touch is equal to the store", async (t) => {
  const { client, subscriber } = await both(t, ["a"]);
  await client.set_multi(Array.from({ length: 9 }, (_, n) => [`a${n}`, n]));
  await client.set("a0", [0], { ttl_ms: 3_600_000 });
  assert.ok((await client.touch("a0", null)) && (await client.touch("a1", 3_600_000)));
  assert.deepEqual(await client.delete_range({ prefix: "a", after: "a2", limit: 2 }), { count: 2, next: "a4" });
  await client.atomic((block) => {
    block.touch("a5", 3_600_000);
    block.delete_range({ from: "a6", to: "a8" });
  });
  const { seq } = await client.hello();
  const store = {};
  for await (const key of client.scan({ prefix: "a", keys_only: true })) {
    const { value, ttl_ms } = await client.get(key, { meta: true });
    store[key] = [value, ttl_ms !== null];
  }
  assert.deepEqual(Object.keys(store), ["a0", "a1", "a2", "a5", "a8"]);
  assert.deepEqual((await collect(subscriber.until(seq))).reduce(apply, {}), store);
  const { changes } = await client.changes(0, { prefix: "a" });
  assert.deepEqual(changes.reduce(apply, {}), store);
});

test("several next at once get one change each, in order, and take loses none", async (t) => {
  const { client, subscriber } = await both(t, ["a"]);
  assert.equal(await subscriber.take(5), null);
  const two = [next(subscriber), next(subscriber)];
  const third = subscriber.take(20_000);
  for (let n = 0; n < 5; n++) await client.set("a", n);
  assert.deepEqual(await Promise.all(two), [1, 2]);
  assert.equal((await third).seq, 3);
  assert.equal(await next(subscriber), 4);
  assert.equal((await subscriber.take(20_000)).seq, 5);
  assert.equal(await subscriber.take(0), null);
  const waiting = subscriber.take(20_000);
  subscriber.close();
  await assert.rejects(waiting, /was closed/);
});

test("many changes, none missing", async (t) => {
  const { client, subscriber } = await both(t, ["a"]);
  const numbers = Array.from({ length: 10_000 }, (_, n) => n);
  const seqs = await Promise.all(
    numbers.map((n) => client.set(`${n % 2 ? "b" : "a"}${n}`, n, { durability: "queued" })),
  );
  const changes = await collect(subscriber.until(seqs.at(-1)));
  assert.deepEqual(changes.map((change) => change.value), numbers.filter((n) => n % 2 === 0));
});

test("silence is reported with the endpoint", async () => {
  await assert.rejects(Subscriber.connect("tcp://127.0.0.1:1", [""], { patience: 100 }), {
    name: "Timeout",
    message: /tcp:\/\/127.0.0.1:1 in time/,
  });
});

test("a silently broken connection is replaced", async (t) => {
  const broker = await startBroker(t);
  const relay = await startRelay(t, broker.publisher);
  const client = await Client.connect(broker.router);
  t.after(() => client.close());
  const subscriber = await Subscriber.connect(relay.endpoint, ["a"], { patience: 4_000 });
  t.after(() => subscriber.close());
  await client.set("a", 1);
  assert.equal(await next(subscriber), 1);
  relay.mute();
  await client.set("a", 2);
  await assert.rejects(next(subscriber), { name: "Timeout" });
  await assert.rejects(next(subscriber), (error) => error instanceof Missed && error.after === 1 && error.upTo === 2);
});

test("messages received while the process was stopped are read before a reconnect", async (t) => {
  const broker = await startBroker(t);
  const feed = new Feed(broker.publisher, [beat], { silence: 1_500 });
  t.after(() => feed.close());
  assert.ok(await feed.next(20_000));
  const waiting = feed.next(20_000);
  // Nothing else runs meanwhile.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_000);
  assert.ok(await waiting);
  assert.ok(await feed.next(20_000));
  assert.equal(await feed.connections(), 1);
});

test("the wait doubles after each silence", async (t) => {
  const begun = [];
  const server = createServer((socket) => {
    begun.push(performance.now());
    socket.on("error", () => {});
    if (begun.length === 5) server.emit("enough");
  });
  t.after(() => server.close());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const feed = new Feed(`tcp://127.0.0.1:${server.address().port}`, [beat], { silence: 100 });
  t.after(() => feed.close());
  const waiting = feed.next(60_000);
  waiting.catch(() => {});
  await once(server, "enough");
  assert.ok(begun[4] - begun[0] >= 100 + 200 + 400 + 800 - 50);
});

test("waiting while the broker is away leaves nothing behind", async (t) => {
  const feed = new Feed("tcp://127.0.0.1:1", [beat]);
  t.after(() => feed.close());
  // Counts live objects after a full collection: heap sizes also change with what the engine compiles.
  const leftBy = async (waits) => {
    for (let wait = 0; wait < waits; wait++) assert.equal(await feed.next(0), null);
    return queryObjects(Promise, { format: "count" }) + queryObjects(Function, { format: "count" });
  };
  const before = await leftBy(500);
  const after = await leftBy(3_000);
  assert.ok(after - before < 300, `${after - before} promises and functions were left by 3,000 waits`);
});

test("an invalid endpoint keeps no process alive", async (t) => {
  const index = new URL("../src/index.js", import.meta.url);
  const code = `
    import { Subscriber } from ${JSON.stringify(index)};
    await Subscriber.connect("nonsense").catch(() => console.log("refused"));`;
  const stdio = ["ignore", "pipe", "inherit"];
  const child = spawn(process.execPath, ["--input-type=module", "--eval", code], { stdio });
  t.after(() => child.kill("SIGKILL"));
  let said = "";
  child.stdout.on("data", (data) => (said += data));
  assert.deepEqual(await once(child, "close", { signal: AbortSignal.timeout(20_000) }), [0, null]);
  assert.equal(said, "refused\n");
});

/** The store of a forged client. */
const hello = async () => ({ store_id: "0".repeat(32) });

const beat = Buffer.from([0xff, ...Buffer.from("beat")]);

/**
 * A publisher that sends the messages of a test, and a subscriber that has received those of `first`: a beat at seq 10.
 * `reconnect()` cuts the connection; done when the next one has its subscriptions.
 */
async function forged(t, { prefixes = ["a"], first = (send) => send(beat, 10, "beat", 10), ...options } = {}) {
  const publisher = new XPublisher({ linger: 0, verbosity: "allSubs" });
  t.after(() => publisher.close());
  await publisher.bind("tcp://127.0.0.1:*");
  const send = (topic, seq, op, prev, [index, count] = [0, 1]) =>
    publisher.send([topic, pack([seq, op, index, count, prev, null, "synced"]), op === "set" ? pack(1) : ""]);
  const subscribed = async () => {
    const wanted = Buffer.concat([Buffer.from([1]), beat]);
    while (!wanted.equals((await publisher.receive())[0]));
  };
  const relay = await startRelay(t, publisher.lastEndpoint);
  const connecting = Subscriber.connect(relay.endpoint, prefixes, options);
  const isMade = connecting.then(() => true, () => true);
  await subscribed();
  await first(send, isMade);
  const subscriber = await connecting;
  t.after(() => subscriber.close());
  const reconnect = async () => {
    relay.cut();
    await subscribed();
  };
  return { subscriber, send, reconnect };
}

const next = async (subscriber) => (await subscriber.next()).value.seq;

test("seq and prev are checked", async (t) => {
  const { subscriber, send } = await forged(t);
  await send("a", 12, "set", 10);
  await send(beat, 15, "beat", 12);
  await send("a", 16, "set", 12, [0, 3]);
  await send("a", 16, "delete", 16, [1, 3]);
  await send(beat, 16, "beat", 16);
  const changes = await collect(subscriber.until(16));
  assert.deepEqual(changes.map(({ seq, op }) => [seq, op]), [[12, "set"], [16, "set"], [16, "delete"]]);
});

test("a gap in prev is thrown once and before the change", async (t) => {
  const { subscriber, send } = await forged(t);
  await send("a", 20, "set", 17);
  await send("a", 21, "set", 20);
  await assert.rejects(next(subscriber), (error) => error instanceof Missed && error.after === 10 && error.upTo === 17);
  assert.deepEqual([await next(subscriber), await next(subscriber)], [20, 21]);
});

test("lost is thrown, and another history", async (t) => {
  const { subscriber, send } = await forged(t);
  await send("a", 30, "lost", 10);
  await send("a", 31, "set", 30);
  await send("a", 3, "set", 2);
  await assert.rejects(next(subscriber), (error) => error instanceof Missed && error.after === 10 && error.upTo === 30);
  assert.equal(await next(subscriber), 31);
  await assert.rejects(next(subscriber), Missed);
  assert.equal(await next(subscriber), 3);
});

for (const before of ["a change", "a beat", "a beat alone"]) {
  test(`another history that is behind only at first is thrown, after ${before}`, async (t) => {
    const { subscriber, send, reconnect } = await forged(t);
    if (before === "a beat alone") {
      await send(beat, 1000, "beat", 10);
      assert.deepEqual(await collect(subscriber.until(1000)), []);
    } else {
      await send("a", 1000, "set", 10);
      assert.equal(await next(subscriber), 1000);
    }
    if (before === "a beat") {
      await send(beat, 1002, "beat", 1000);
      await send("a", 1003, "set", 1000);
      assert.equal(await next(subscriber), 1003);
    }
    const missed = next(subscriber);
    missed.catch(() => {});
    await reconnect();
    await send("a", 1005, "set", 950);
    await assert.rejects(missed, (error) => error instanceof Missed && error.after === 0 && error.upTo === 950);
    await send("a", 1006, "set", 1005);
    assert.deepEqual([await next(subscriber), await next(subscriber)], [1005, 1006]);
  });
}

test("a beat behind fetched changes is no other history", async (t) => {
  const { subscriber, send } = await forged(t, { client: paged() });
  await send("a", 11, "set", 10);
  await send(beat, 15, "beat", 11);
  await send("a", 20, "lost", 11);
  await send(beat, 23, "beat", 20);
  await send("a", 24, "set", 20, [0, 2]);
  await send("a", 24, "set", 24, [1, 2]);
  const changes = await collect(subscriber.until(24));
  assert.deepEqual(changes.map(({ seq }) => seq), [11, 16, 17, 18, 19, 20, 24, 24]);
});

test("with a client, missed changes are fetched, and half a write is completed", async (t) => {
  const written = [[11, 0], [11, 1], [13, 0], [13, 1], [14, 0]];
  const client = {
    hello,
    changes: async (after) => {
      assert.equal(after, 10, "the write that may have more is read again");
      return { changes: written.map(([seq, index]) => ({ key: "a", op: "set", value: 1, seq, index })), next: 14 };
    },
  };
  const { subscriber, send } = await forged(t, { client });
  await send("a", 11, "set", 10, [0, 2]);
  await send("a", 14, "set", 13);
  const changes = await collect(subscriber.until(14));
  assert.deepEqual(changes.map(({ seq, index }) => [seq, index]), written);
});

test("the rest of a write lost with a connection is missed without a gap", async (t) => {
  const { subscriber, send, reconnect } = await forged(t);
  await send("a", 11, "set", 10, [0, 3]);
  assert.equal(await next(subscriber), 11);
  const missed = next(subscriber);
  missed.catch(() => {});
  await reconnect();
  await send(beat, 11, "beat", 11);
  await assert.rejects(missed, (error) => error instanceof Missed && error.after === 10 && error.upTo === 11);
  await send("a", 12, "set", 11);
  assert.equal(await next(subscriber), 12, "once, and only that write");
});

test("with a client, the rest of a write lost with a connection is fetched", async (t) => {
  const client = {
    hello,
    changes: async (after) => {
      assert.equal(after, 10);
      return { changes: [0, 1, 2].map((index) => ({ key: "a", op: "set", value: 1, seq: 11, index })), next: 11 };
    },
  };
  const { subscriber, send, reconnect } = await forged(t, { client });
  await send("a", 11, "set", 10, [0, 3]);
  assert.equal(await next(subscriber), 11);
  const collected = collect(subscriber.until(12));
  await reconnect();
  await send("a", 12, "set", 11);
  assert.deepEqual((await collected).map(({ seq, index }) => [seq, index]), [[11, 1], [11, 2], [12, 0]]);
});

test("a write with changes outside the prefixes is whole over one connection", async (t) => {
  const { subscriber, send, reconnect } = await forged(t);
  const first = next(subscriber);
  await reconnect();
  // The subscriber notices the connection, and that no message of the earlier one is left.
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  await send(beat, 10, "beat", 10);
  await send("a", 11, "set", 10, [0, 3]);
  await send("a", 12, "set", 11, [0, 2]);
  assert.deepEqual([await first, await next(subscriber)], [11, 12]);
  assert.equal(subscriber.last, 11);
  await send(beat, 12, "beat", 12);
  assert.deepEqual(await collect(subscriber.until(12)), []);
  assert.equal(subscriber.last, 12);
});

test("Missed is thrown with the reason where fetching fails", async (t) => {
  const client = { hello, changes: async () => Promise.reject(new Error("COMPACTED")) };
  const { subscriber, send } = await forged(t, { client });
  await send("a", 20, "set", 17);
  await assert.rejects(next(subscriber), (error) => error instanceof Missed && error.cause.message === "COMPACTED");
  assert.equal(await next(subscriber), 20);
});

/** A client whose broker holds one write to a page. */
function paged() {
  const requested = [];
  return {
    requested,
    hello,
    changes: async (after) => {
      requested.push(after);
      return { changes: [{ key: "a", op: "set", value: null, seq: after + 1, index: 0, count: 1 }], next: after + 1 };
    },
  };
}

test("a replaced store with higher seqs is another history", async (t) => {
  const directory = await temporary(t);
  const old = await startBroker(t, { directory });
  const client = await Client.connect(old.router, { timeout: 20_000 });
  t.after(() => client.close());
  const subscriber = await Subscriber.connect(old.publisher, ["a"], { client });
  t.after(() => subscriber.close());
  const write = (count) => Promise.all(Array.from({ length: count }, (_, n) => client.set("a", n)));
  const seqs = (changes) => changes.map(({ seq }) => seq);
  await write(3);
  assert.deepEqual(seqs(await collect(subscriber.until(3))), [1, 2, 3]);
  await old.stop();
  await rename(directory, `${directory}-old`);
  await startBroker(t, { directory, flags: ["--router", old.router, "--publisher", old.publisher] });
  await write(6);
  await assert.rejects(next(subscriber), (error) => error instanceof Missed && error.after === 0 && error.upTo > 3);
  await write(2);
  assert.ok(seqs(await collect(subscriber.until(8))).includes(8));
});

test("a subscriber is made with the first message even without a beat", async (t) => {
  const { subscriber, send } = await forged(t, { first: (send) => send("a", 11, "set", 10) });
  await send("a", 12, "set", 11);
  assert.deepEqual([await next(subscriber), await next(subscriber)], [11, 12]);
});

test("past changes are fetched page by page as they are taken", async (t) => {
  const client = paged();
  const { subscriber } = await forged(t, { client, after: 0, first: (send) => send("a", 11, "set", 10) });
  assert.deepEqual(client.requested, []);
  assert.deepEqual([await next(subscriber), await next(subscriber), await next(subscriber)], [1, 2, 3]);
  assert.deepEqual(client.requested, [0, 1, 2]);
  const changes = await collect(subscriber.until(11));
  assert.deepEqual(changes.map(({ seq }) => seq), [4, 5, 6, 7, 8, 9, 10, 11]);
});

test("with several prefixes, messages before the first beat are dropped", async (t) => {
  const first = async (send) => {
    await send("a", 11, "set", 10);
    await send("b", 12, "set", 11);
    await send(beat, 13, "beat", 12);
  };
  const client = paged();
  const { subscriber, send } = await forged(t, { prefixes: ["a", "b"], client, after: 9, first });
  await send("b", 14, "set", 12);
  const changes = await collect(subscriber.until(14));
  assert.deepEqual(changes.map(({ seq }) => seq), [10, 11, 12, 13, 14]);
});

test("several prefixes without a beat time out", async (t) => {
  const first = async (send, isMade) => {
    const turn = () => new Promise((resolve) => setImmediate(resolve, false));
    for (let seq = 11; !(await Promise.race([isMade, turn()])); seq++) await send("a", seq, "set", seq - 1);
  };
  const giving = forged(t, { prefixes: ["a", "b"], patience: 500, first });
  await assert.rejects(giving, { name: "Timeout", message: /no beat|nothing received/ });
});

test("past changes come first with after", async (t) => {
  const broker = await startBroker(t);
  const client = await Client.connect(broker.router);
  t.after(() => client.close());
  const numbers = Array.from({ length: 300 }, (_, n) => n);
  const first = await client.set("a", -1);
  await Promise.all(numbers.map((n) => client.set(`${n % 2 ? "b" : "a"}`, n)));
  const subscriber = await Subscriber.connect(broker.publisher, ["a"], { client, after: first });
  t.after(() => subscriber.close());
  const last = await client.set("a", 300);
  const changes = await collect(subscriber.until(last));
  assert.deepEqual(changes.map((change) => change.value), [...numbers, 300].filter((n) => n % 2 === 0));
});
