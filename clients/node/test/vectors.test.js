/** The vectors: over a plain DEALER against a broker, and against this client's own codec. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { decode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";
import { CODES } from "../src/errors.js";
import { Commands } from "../src/commands.js";
import { response, request, unpack } from "../src/wire.js";
import { inRepository, startBroker } from "./broker.js";

const DIRECTORY = inRepository("proto/vectors");
const FILES = readdirSync(DIRECTORY, { recursive: true }).filter((name) => name.endsWith(".json")).sort();
const LISTED = JSON.parse(readFileSync(inRepository("proto/commands.json"), "utf8"));

const stepsOf = (name) => JSON.parse(readFileSync(join(DIRECTORY, name), "utf8"));

function octets(notation) {
  const words = notation.split(" ").filter((word) => word !== "");
  return Buffer.concat(
    words.map((word) => {
      const [digits, times] = word.split("*");
      return Buffer.concat(Array(Number(times ?? 1)).fill(Buffer.from(digits, "hex")));
    }),
  );
}

/** Throws when a reply frame is not as expected. */
function check(expected, frame, about) {
  if (typeof expected === "string") {
    return assert.equal(Buffer.from(frame).toString("hex"), octets(expected).toString("hex"), about);
  }
  const [kind, id, error, result] = decode(frame);
  assert.equal(kind, 1, about);
  if (expected.error) {
    assert.equal(typeof error?.[1], "string", about);
    assert.deepEqual([error[0], id, error[2]], [expected.error, expected.id, expected.details], about);
    return;
  }
  const [, wantedId, wantedError, wanted] = expected.decoded;
  assert.deepEqual([id, error], [wantedId, wantedError], about);
  if (expected.ignore[0] === "*") return;
  for (const [name, value] of Object.entries(wanted)) {
    assert.ok(name in result, `${about}: ${name} is missing`);
    if (!expected.ignore.includes(name)) assert.deepEqual(result[name], value, `${about}: ${name}`);
  }
}

describe("over the wire", () => {
  for (const name of FILES) {
    test(name, async (t) => {
      const broker = await startBroker(t);
      const socket = new Dealer({ linger: 0, receiveTimeout: 20_000 });
      t.after(() => socket.close());
      socket.connect(broker.router);
      const ask = async (id, method, params) => {
        await socket.send(request(id, method, params));
        return decode((await socket.receive())[0])[3];
      };
      for (const step of stepsOf(name)) {
        await socket.send(step.request.map(octets));
        if (step.reply.length === 0) continue;
        const frames = await socket.receive();
        assert.equal(frames.length, step.reply.length, step.about);
        step.reply.forEach((expected, place) => check(expected, frames[place], step.about));
      }
      assert.equal(await ask(2 ** 31, "ping", ["end"]), "end", "a reply came that should not have come");
    });
  }
});

test("a wrong reply would be noticed", () => {
  const error = { error: "CONFLICT", id: 7, details: { seq: 1 } };
  const frame = (details) => octets(`94 01 07 93 a8434f4e464c494354 a178 81 a3736571 ${details} c0`);
  check(error, frame("01"));
  assert.throws(() => check(error, frame("02")));
  assert.throws(() => check("94 01 07 c0 01", octets("94 01 07 c0 02")));
});

class Recorder extends Commands {
  _call(method, build) {
    return Buffer.from(request(7, method, build()));
  }
}

test("each method sends the bytes of the vectors", () => {
  const described = new Map(LISTED.commands.map((command) => [command.name, command.arguments.length]));
  const tried = new Set();
  for (const step of FILES.flatMap(stepsOf)) {
    if (step.request.length !== 1 || step.reply.length !== 1 || typeof step.reply[0] !== "string") continue;
    const frame = octets(step.request[0]);
    let envelope;
    try {
      envelope = unpack(frame);
    } catch {
      continue; // Maps with keys that JavaScript does not have.
    }
    const [, id, method, params] = envelope;
    const positional = described.get(method);
    const options = params[positional];
    // Encodings that this client does not send: longer ones, options that are nil, empty options, a lone ping.
    if (id !== 7 || positional === undefined || method === "ping" || params.length < positional) continue;
    if (!Array.isArray(params) || !Buffer.from(request(7, method, params)).equals(frame)) continue;
    if (options && (Object.keys(options).length === 0 || Object.values(options).includes(null))) continue;
    const sent = new Recorder()[method](...params.slice(0, positional), options);
    assert.deepEqual(sent, frame, step.about);
    tried.add(method);
  }
  const without = ["hello", "ping", "flush", "compact", "stats"];
  for (const { name } of LISTED.commands) {
    if (!without.includes(name)) assert.ok(tried.has(name), `${name} was not tried`);
  }
});

test("a response is decoded with any id and any result", () => {
  const frames = [
    ["94 01 c0 c0 01", null, 1],
    ["94 01 07 c0 c3", 7, true],
    ["94 01 ccff c0 a161", 255, "a"],
    ["94 01 cd0100 c0 90", 256, []],
    ["94 01 ce00010000 c0 80", 65536, {}],
    ["94 01 cf0000010000000000 c0 c0", 2 ** 40, null],
  ];
  for (const [notation, id, result] of frames) {
    const taken = response(octets(notation));
    assert.equal(taken.id, id);
    assert.deepEqual(unpack(taken.result), result);
  }
  for (const notation of ["", "c1", "93 01 07 c0", "94 00 07 c0 c0", "94 01 07 c0", "94 01 a0 c0 c0", "94 01 07 93 a0"]) {
    assert.throws(() => response(octets(notation)), /no response/, notation);
  }
});

test("the codes are those of the protocol", () => {
  assert.deepEqual(CODES, LISTED.errors.map((error) => error.code));
});
