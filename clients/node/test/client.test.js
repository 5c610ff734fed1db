/** The client against a real broker. */

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { once } from "node:events";
import { test } from "node:test";
import { Router } from "zeromq";
import {
  Client, CommandError, ExtData, ProtocolError, Timeout, Unreadable, VatnError,
} from "../src/index.js";
import { pack, unpack } from "../src/wire.js";
import { setRaw, startBroker, temporary } from "./broker.js";
import { startRelay } from "./relay.js";

async function connect(t, broker, options) {
  const client = await Client.connect(broker.router, options);
  t.after(() => client.close());
  return client;
}

const refused = (code, details = {}) => (error) => {
  assert.ok(error instanceof CommandError, error);
  assert.equal(error.code, code);
  for (const [name, value] of Object.entries(details)) assert.equal(error.details[name], value, name);
  return true;
};

test("every command returns its documented result", async (t) => {
  const client = await connect(t, await startBroker(t));
  assert.equal(client.server.protocol, 1);
  assert.equal((await client.hello()).server, "vatn");
  assert.deepEqual(await client.ping({ a: 1 }), { a: 1 });
  assert.equal(await client.set("boat", { oars: 2 }), 1);
  assert.deepEqual(await client.get("boat"), { oars: 2 });
  assert.deepEqual(await client.get("boat", { meta: true }), { value: { oars: 2 }, seq: 1, ttl_ms: null, level: "synced" });
  assert.equal(await client.get("none"), null);
  assert.equal(await client.get("none", { meta: true }), null);
  assert.equal(await client.set_multi({ a: 1, b: 2 }, { durability: "stored", key_prefix: "p:" }), 2);
  assert.equal(await client.set_multi(new Map([["x", 1]])), 3);
  assert.deepEqual([...(await client.get_multi(["x", "none", "p:a"]))], [["x", 1], ["p:a", 1]]);
  assert.equal(await client.delete("x"), true);
  assert.equal(await client.delete("x"), false);
  assert.equal(await client.delete("p:a", { return_value: true }), 1);
  assert.equal(await client.delete_multi(["p:b", "none"]), 1);
  await client.set_multi({ "r:1": 1, "r:2": 2, "r:3": 3 });
  assert.deepEqual(await client.delete_range({ prefix: "r:", limit: 2 }), { count: 2, next: "r:2" });
  assert.deepEqual(await client.delete_range({ from: "r:", after: "r:2", to: "s" }), { count: 1, next: null });
  await assert.rejects(client.delete_range({ limit: 1 }), { code: "BAD_ARGUMENT" });
  assert.equal(await client.append("log", "ebb, "), 5);
  assert.equal(await client.append("log", "flood", { durability: "stored" }), 10);
  assert.equal(await client.get("log"), "ebb, flood");
  assert.equal(await client.delete("log"), true);
  assert.equal(await client.incr("n", { initial: 5 }), 5);
  assert.equal(await client.incr("n", { delta: 2 }), 7);
  assert.equal(await client.decr("n"), 6);
  assert.deepEqual(await client.range(), { items: [["boat", { oars: 2 }], ["n", 6]], next: null });
  assert.deepEqual(await client.range({ keys_only: true, limit: 1 }), { items: ["boat"], next: "boat" });
  assert.equal(await client.count(), 2);
  assert.equal(await client.count({ prefix: "bo" }), 1);
  assert.deepEqual(await client.batch([["incr", ["n"]], ["get", ["n"]]], { durability: "stored" }), [7, 7]);
  assert.match(await client.flush(), /0 items in queue :: 2 items in storage memory$/);
  assert.equal((await client.stats()).items, 2);
});

test("times to live, waiting for a level, and the history", async (t) => {
  const client = await connect(t, await startBroker(t));
  await client.set("short", 1, { ttl_ms: 60_000 });
  assert.ok((await client.get("short", { meta: true })).ttl_ms > 0);
  assert.equal(await client.set("short", 2, { expires_at_ms: 2 ** 50, return_value: true }), 1);
  assert.equal(await client.touch("short", null, { expires_at_ms: 2 ** 51 }), true);
  await client.set("over", 1, { expires_at_ms: 1 });
  assert.equal(await client.get("over"), null);
  assert.equal(await client.touch("short", null), true);
  assert.equal((await client.get("short", { meta: true })).ttl_ms, null);
  assert.equal(await client.wait(await client.set("a", 1, { durability: "queued" }), "synced"), true);
  assert.equal(await client.wait(2 ** 40, "memory", { timeout_ms: 1 }), false);
  const seq = await client.set("a", [1]);
  await client.set("b", 1);
  assert.deepEqual(await client.changes(seq - 1, { prefix: "a" }), {
    changes: [{ key: "a", op: "set", value: [1], seq, index: 0, count: 1, ttl_ms: null, level: "synced" }],
    next: seq + 1,
  });
});

test("values come back equal, integers of 64 bits exactly", async (t) => {
  const client = await connect(t, await startBroker(t));
  const values = [
    null, true, -1, 0.5, 2 ** 31, 2 ** 32, -(2 ** 31) - 1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER,
    2n ** 64n - 1n, -(2n ** 63n), "væ", [1, [2n ** 60n]], { a: { b: 2 ** 40 } }, Buffer.from([0, 255]),
    new ExtData(5, Buffer.from([1])), new Date(1_700_000_000_000),
  ];
  for (const value of values) {
    await client.set("v", value);
    assert.deepEqual(await client.get("v"), value);
  }
  await client.set("v", 2 ** 40);
  assert.equal(await client.incr("v"), 2 ** 40 + 1, "it is an integer for the broker too");
});

test("a value without an equal in JavaScript rejects its own command alone", async (t) => {
  const broker = await startBroker(t);
  const client = await connect(t, broker);
  await setRaw(t, broker, "odd", "c703ff010203");
  const [odd, well] = await Promise.allSettled([client.get("odd"), client.ping("well")]);
  assert.equal(odd.reason.name, "Unreadable");
  assert.equal(odd.reason.bytes.toString("hex"), "c703ff010203");
  assert.equal(well.value, "well");
});

test("a result of get_multi can be stored", async (t) => {
  const client = await connect(t, await startBroker(t));
  await client.set_multi({ a: 2 ** 40, b: new Map([["c", [2n ** 60n]]]) });
  await client.set("all", await client.get_multi(["a", "b"]));
  assert.deepEqual(await client.get("all"), { a: 2 ** 40, b: { c: [2n ** 60n] } });
});

test("text comes back unchanged, and a str that is not UTF-8 is unreadable", async (t) => {
  const broker = await startBroker(t);
  const client = await connect(t, broker);
  const marked = `\ufeff${"x".repeat(300)}`;
  for (const value of [marked, "\ufeff", { [marked]: marked, "\ufeffa": 1 }, ["væ".repeat(200)]]) {
    await client.set("v", value);
    assert.deepEqual(await client.get("v"), value);
  }
  await client.set_multi({ [`${marked}1`]: 1, [`${marked}2`]: 2, [`${marked}3`]: 3 });
  const keys = [];
  for await (const key of client.scan({ prefix: marked, page: 1, keys_only: true })) {
    keys.push(key);
    assert.ok(keys.length <= 3, "it ends");
  }
  assert.deepEqual(keys, [`${marked}1`, `${marked}2`, `${marked}3`]);
  const strings = ["a1ff", `d9c8${"ff".repeat(200)}`, "81a1ff01"];
  for (const string of strings) {
    await setRaw(t, broker, "odd", string);
    const isWanted = (error) => error instanceof Unreadable && error.bytes.toString("hex") === string;
    await assert.rejects(client.get("odd"), isWanted);
  }
});

test("keys are bytes and come back as text where they can", async (t) => {
  const client = await connect(t, await startBroker(t));
  await client.set_multi([[Buffer.from("text"), 1], [new Uint8Array([0xfe, 0]), 2]]);
  assert.equal(await client.get("text"), 1);
  assert.deepEqual((await client.range({ keys_only: true })).items, ["text", Buffer.from([0xfe, 0])]);
});

test("errors have code and details", async (t) => {
  const client = await connect(t, await startBroker(t));
  const seq = await client.set("a", "text");
  await assert.rejects(client.set("a", 1, { if: "absent" }), refused("CONFLICT", { seq }));
  await assert.rejects(client.delete("none", { if: "present" }), refused("CONFLICT", { seq: null }));
  await assert.rejects(client.incr("a"), refused("NOT_A_NUMBER"));
  await assert.rejects(client.incr("none"), refused("NOT_FOUND"));
  await assert.rejects(client.get(new Uint8Array([0xff])), refused("BAD_KEY"));
  await assert.rejects(client.set("a", 1, { colour: 1 }), refused("BAD_ARGUMENT", { argument: "colour" }));
  await assert.rejects(client.batch([["get", ["a"]], ["incr", ["a"]]]), refused("NOT_A_NUMBER", { index: 1 }));
});

test("thousands of commands at once are answered each", async (t) => {
  const client = await connect(t, await startBroker(t));
  const numbers = Array.from({ length: 5000 }, (_, n) => n);
  const seqs = await Promise.all(numbers.map((n) => client.set(`k${n}`, n, { durability: "queued" })));
  assert.deepEqual(seqs, numbers.map((n) => n + 1), "in the order in which they were made");
  assert.deepEqual(await Promise.all(numbers.map((n) => client.get(`k${n}`))), numbers);
  const keys = [];
  for await (const key of client.scan({ prefix: "k", keys_only: true, page: 777, reverse: true })) keys.push(key);
  assert.deepEqual(keys, numbers.map((n) => `k${n}`).sort().reverse());
});

test("an atomic block is executed whole or not at all", async (t) => {
  const client = await connect(t, await startBroker(t));
  const build = (block) => {
    block.set("a", 1);
    block.get("a", { meta: true });
  };
  assert.deepEqual(await client.atomic(build, { durability: "stored" }), [
    1, { value: 1, seq: 1, ttl_ms: null, level: "stored" },
  ]);
  const failing = client.atomic((block) => {
    block.set("b", 1);
    block.incr("none");
  });
  await assert.rejects(failing, refused("NOT_FOUND", { index: 1 }));
  assert.equal(await client.get("b"), null);
});

test("a notification is executed before later commands", async (t) => {
  const client = await connect(t, await startBroker(t));
  for (let n = 0; n < 100; n++) client.notify.set("a", n);
  client.notify.incr("none");
  assert.equal(await client.get("a"), 99);
});

async function silentServer(t) {
  const sockets = new Set();
  const server = createServer((socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    sockets.forEach((socket) => socket.destroy());
    server.close();
  });
  return { server, endpoint: `tcp://127.0.0.1:${server.address().port}` };
}

test("a missing broker and a silent peer are reported in time with the endpoint", async (t) => {
  const { server, endpoint } = await silentServer(t);
  const wanted = { name: "Timeout", message: new RegExp(`${endpoint} within 300 ms: is .vatn serve. running`) };
  await assert.rejects(Client.connect(endpoint, { timeout: 300 }), wanted);
  server.close();
  await assert.rejects(Client.connect(endpoint, { timeout: 300 }), wanted);
});

test("a command that timed out without a connection is not executed later, and the client reconnects", async (t) => {
  const directory = await temporary(t);
  const broker = await startBroker(t, { directory });
  const client = await connect(t, broker, { timeout: 1000 });
  await client.set("a", 1);
  assert.equal(await broker.stop(), 0);
  await assert.rejects(client.set("a", 2), Timeout);
  client.timeout = 20_000;
  const later = client.get("a");
  await startBroker(t, { directory, flags: ["--router", broker.router] });
  assert.equal(await later, 1);
});

test("a command reported as unsent is not executed when a connection comes", async (t) => {
  const broker = await startBroker(t);
  const relay = await startRelay(t, broker.router);
  const client = await Client.connect(relay.endpoint);
  t.after(() => client.close());
  let done = 0;
  let unknown = 0;
  for (let round = 0; round < 10; round++) {
    relay.cut();
    client.timeout = 20;
    try {
      await client.incr("n", { initial: 1, durability: "memory" });
      done++;
    } catch (error) {
      assert.ok(error instanceof Timeout, error);
      if (/no answer/.test(error.message)) unknown++;
    }
    client.timeout = 20_000;
    await client.ping();
  }
  const count = await client.get("n");
  assert.ok(done <= count && count <= done + unknown, `${count} of ${done} done and ${unknown} unknown`);
});

test("notifications without a connection in time are not sent, and their queue is bounded", async (t) => {
  const directory = await temporary(t);
  const broker = await startBroker(t, { directory });
  const client = await connect(t, broker);
  await broker.stop();
  client.timeout = 500;
  client.notify.incr("n", { initial: 1 });
  const megabyte = Buffer.alloc(1 << 20);
  const notify = () => {
    for (let n = 0; n < 100; n++) client.notify.set("v", megabyte);
  };
  assert.throws(notify, /requests wait to be sent/);
  await assert.rejects(client.get("n"), Timeout);
  client.timeout = 20_000;
  client.notify.set("after", 1);
  const later = client.get_multi(["n", "v", "after"]);
  await startBroker(t, { directory, flags: ["--router", broker.router] });
  assert.deepEqual(await later, new Map([["after", 1]]));
});

test("an invalid answer rejects the waiting commands, and the client goes on", async (t) => {
  const router = new Router({ linger: 0 });
  t.after(() => router.close());
  await router.bind("tcp://127.0.0.1:*");
  const answers = [(id) => [1, id, null, { protocol: 1 }], () => "junk", (id) => [1, id, null, "well"]];
  const answering = (async () => {
    for (const answer of answers) {
      const [peer, frame] = await router.receive();
      await router.send([peer, pack(answer(unpack(frame)[1]))]);
    }
  })();
  const client = await connect(t, { router: router.lastEndpoint });
  await assert.rejects(client.ping(), ProtocolError);
  assert.equal(await client.ping("well"), "well");
  await answering;
});

test("a limit longer than timers can wait is kept", async (t) => {
  const client = await connect(t, await startBroker(t));
  const waiting = client.wait(1, "memory", { timeout_ms: 2 ** 32 });
  waiting.catch(() => {});
  for (let n = 0; n < 100; n++) await client.ping();
  await client.set("a", 1);
  assert.equal(await waiting, true);
});

test("a silently broken connection is replaced", async (t) => {
  const broker = await startBroker(t);
  const relay = await startRelay(t, broker.router);
  const client = await Client.connect(relay.endpoint, { timeout: 1000 });
  t.after(() => client.close());
  await client.set("a", 1);
  relay.mute();
  await assert.rejects(client.get("a"), /no answer to `get`/);
  // Requests sent while the old connection is still taken for alive are lost with it.
  for (let tries = 0; (await client.get("a").catch(() => null)) !== 1; tries++) assert.ok(tries < 20);
});

test("closing rejects the waiting commands", async (t) => {
  const client = await connect(t, await startBroker(t));
  const waiting = client.ping();
  client.close();
  await assert.rejects(waiting, VatnError);
  await assert.rejects(client.ping(), /was closed/);
});
