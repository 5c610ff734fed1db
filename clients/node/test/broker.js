/** A broker process for a test: its own directory, ports chosen by the system, ended by its own handle. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Dealer } from "zeromq";
import { pack } from "../src/wire.js";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const BINARY = process.env.VATN_BIN ?? join(ROOT, "target/debug/vatn");

export const inRepository = (path) => join(ROOT, path);

/** `{ router, publisher, stop() }`; without `directory`, in one that is removed when the test `t` ends. */
export async function startBroker(t, { directory, flags = [] } = {}) {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is not there: run \`cargo build\`, or set VATN_BIN`);
  const store = directory ?? (await temporary(t));
  const ports = ["--port", "0", "--router", "tcp://127.0.0.1:0", "--publisher", "tcp://127.0.0.1:0"];
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("VATN_")));
  const child = spawn(BINARY, ["serve", "--database", store, ...ports, ...flags], { env });
  let said = "";
  child.stderr.on("data", (data) => (said += data));
  const exited = once(child, "exit");
  t.after(() => {
    child.kill("SIGKILL");
    return exited;
  });
  const broker = {
    async stop() {
      child.kill("SIGTERM");
      return (await exited)[0];
    },
  };
  for await (const line of createInterface(child.stdout)) {
    const [word, door, endpoint] = line.split(" ");
    if (word === "listening") broker[door] = endpoint;
    if (word === "ready") {
      child.stdout.resume();
      return broker;
    }
  }
  throw new Error(`the broker did not start; it said: ${said}`);
}

/** Sets a key to bytes, in hexadecimal, that a client of JavaScript would not send. */
export async function setRaw(t, broker, key, hex) {
  const socket = new Dealer({ linger: 0, receiveTimeout: 20_000 });
  t.after(() => socket.close());
  socket.connect(broker.router);
  const head = Buffer.concat([Buffer.from("940001a373657492", "hex"), pack(key)]);
  await socket.send(Buffer.concat([head, Buffer.from(hex, "hex")]));
  const [answer] = await socket.receive();
  if (answer[3] !== 0xc0) throw new Error(`${hex}: ${answer}`);
}

export async function temporary(t) {
  const directory = await mkdtemp(join(tmpdir(), "vatn-node-"));
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
  return join(directory, "store");
}
