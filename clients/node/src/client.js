/** The client: one DEALER connection. */

import { performance } from "node:perf_hooks";
import { Dealer } from "zeromq";
import { Commands } from "./commands.js";
import { CommandError, ProtocolError, Timeout, VatnError } from "./errors.js";
import { after } from "./timer.js";
import * as wire from "./wire.js";

const PROTOCOL = 1;

// What is asked for in one turn of the event loop goes out together, in messages of at most so much.
const MESSAGE_REQUESTS = 1000;
const MESSAGE_BYTES = 1 << 20;
// How long a message waits for a connection before those of its requests that have timed out are taken back.
const SEND_MS = 200;
// How much may wait to be sent when a notification is added, with what each request takes besides its bytes. Commands
// are bounded by whoever awaits their answers.
const WAITING_BYTES = 64 << 20;
const REQUEST_BYTES = 100;
// How often the broker is asked for a sign of life. One that gives none for `timeout`, within these bounds, is taken
// for gone and connected anew: where the way to it broke without a word, libzmq would wait for ever.
const HEARTBEAT_MS = 2_000;
const PATIENCE_LEAST_MS = 5_000;
const PATIENCE_MOST_MS = 3_600_000;

export class Client extends Commands {
  /** Commands without an answer, and without knowing their fate: `client.notify.set("a", 1)`. */
  notify = new Notifier(this);
  /** What the broker said of itself. */
  server = null;

  #socket;
  #nextId = 1;
  #pending = new Map();
  #outgoing = [];
  #waitingBytes = 0;
  #isSending = false;
  #isClosed = false;

  /**
   * Connects and says hello. `timeout` (ms) bounds every command; `wait` and `changes` get their own waiting
   * time on top. After a Timeout it is not known whether a write was done. The connection comes back by itself.
   */
  static async connect(endpoint = "tcp://127.0.0.1:7533", { timeout = 10_000, name = "node" } = {}) {
    const client = new Client(endpoint, timeout);
    try {
      client.server = await client.hello({ client: name });
      if (client.server?.protocol !== PROTOCOL) {
        throw new ProtocolError(`${endpoint} does not speak version ${PROTOCOL} of the protocol`);
      }
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Use `Client.connect`. */
  constructor(endpoint, timeout) {
    super();
    this.endpoint = endpoint;
    this.timeout = timeout;
    // immediate: nothing is sent before there is a connection, so that what timed out is not done later.
    this.#socket = new Dealer({
      linger: 0,
      immediate: true,
      sendTimeout: SEND_MS,
      heartbeatInterval: HEARTBEAT_MS,
      heartbeatTimeout: Math.min(Math.max(timeout, PATIENCE_LEAST_MS), PATIENCE_MOST_MS),
    });
    this.#socket.connect(endpoint);
    this.#receive();
  }

  /** Closes the connection; what waits for an answer is rejected. */
  close() {
    this.#isClosed = true;
    this.#socket.close();
    this.#reject(new VatnError(`the connection to ${this.endpoint} was closed`));
  }

  /** Every item of a range, page by page; each page is its own moment. `page` is its size. */
  async *scan({ page, ...options } = {}) {
    let after;
    do {
      const { items, next } = await this.range({ ...options, limit: page, after });
      yield* items;
      after = next;
    } while (after !== null);
  }

  /** Several commands as one write: `await client.atomic((a) => { a.incr("n"); a.delete("m"); })`; their results. */
  async atomic(build, options) {
    const block = new Collector();
    build(block);
    const results = await this.batch(block.commands, options);
    return results.map((result, place) => (block.makes[place] ? block.makes[place](result) : result));
  }

  _call(method, params, make) {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const call = { method, make, resolve, reject, callOff: null, state: "waits", isLate: false };
      const waits = waiting(method, params);
      const patience = this.timeout + waits;
      const until = performance.now() + patience;
      this.#queue({ frame: wire.request(id, method, params), id, call, until, isAlone: waits > 0 });
      call.callOff = after(patience, () => this.#expire(id));
      this.#pending.set(id, call);
    });
  }

  _notify(method, params) {
    const frame = wire.notification(method, params);
    if (this.#waitingBytes + frame.length + REQUEST_BYTES > WAITING_BYTES) {
      const what = `${this.#outgoing.length} requests wait to be sent to ${this.endpoint}`;
      throw new VatnError(`${what}: await an answer now and then, and see whether \`vatn serve\` is running there`);
    }
    this.#queue({ frame, id: null, call: null, until: performance.now() + this.timeout, isAlone: false });
  }

  #expire(id) {
    const call = this.#pending.get(id);
    if (!call) return;
    // Whether it goes out is known only when the attempt has ended.
    call.isLate = true;
    if (call.state === "goes") return;
    this.#pending.delete(id);
    const why = call.state === "sent"
      ? `no answer to \`${call.method}\` from ${this.endpoint} within ${this.timeout} ms`
      : `no connection to ${this.endpoint} within ${this.timeout} ms: is \`vatn serve\` running there?`;
    call.reject(new Timeout(why));
  }

  #queue(item) {
    if (this.#isClosed) throw new VatnError(`the connection to ${this.endpoint} was closed`);
    this.#outgoing.push(item);
    this.#waitingBytes += item.frame.length + REQUEST_BYTES;
    if (!this.#isSending) {
      this.#isSending = true;
      queueMicrotask(() => this.#send());
    }
  }

  async #send() {
    while (!this.#isClosed) {
      const message = this.#takeMessage();
      if (message.length === 0) break;
      try {
        this.#boundAttempt(message);
        await this.#socket.send(message.map(({ frame }) => frame));
        this.#attempted(message, true);
      } catch (error) {
        this.#attempted(message, false);
        if (error.code === "EAGAIN") continue;
        this.#reject(new VatnError(`sending to ${this.endpoint}: ${error.message}`, { cause: error }));
        break;
      }
    }
    this.#isSending = false;
  }

  /** Takes what goes out next from what waits, as much as fits a message, without what nobody waits for any more. */
  #takeMessage() {
    const now = performance.now();
    const message = [];
    let size = 0;
    let count = 0;
    while (count < this.#outgoing.length && message.length < MESSAGE_REQUESTS && size < MESSAGE_BYTES) {
      const item = this.#outgoing[count];
      // The answers of one message come together: what the broker may wait with must not hold back others.
      if (message.length > 0 && (item.isAlone || message[0].isAlone)) break;
      count += 1;
      this.#waitingBytes -= item.frame.length + REQUEST_BYTES;
      const isWanted = item.call ? this.#pending.has(item.id) : now < item.until;
      if (!isWanted) continue;
      if (item.call) item.call.state = "goes";
      size += item.frame.length;
      message.push(item);
    }
    this.#outgoing.splice(0, count);
    return message;
  }

  /** No attempt outlasts what it holds: a connection that comes later must not find it. */
  #boundAttempt(message) {
    const earliest = message.reduce((least, { until }) => Math.min(least, until), Infinity);
    const left = Math.max(1, Math.min(SEND_MS, Math.floor(earliest - performance.now())));
    if (left !== this.#socket.sendTimeout) this.#socket.sendTimeout = left;
  }

  /** What was not sent waits again, before what came after it, unless its time ran out meanwhile. */
  #attempted(message, isSent) {
    for (const { call, id } of message) {
      if (!call) continue;
      call.state = isSent ? "sent" : "waits";
      if (call.isLate) this.#expire(id);
    }
    if (isSent) return;
    this.#outgoing = [...message, ...this.#outgoing];
    for (const { frame } of message) this.#waitingBytes += frame.length + REQUEST_BYTES;
  }

  async #receive() {
    try {
      for await (const frames of this.#socket) frames.forEach((frame) => this.#take(frame));
    } catch (error) {
      if (!this.#isClosed) this.#reject(error);
    }
  }

  #take(frame) {
    try {
      this.#settle(wire.response(frame));
    } catch (error) {
      // Whose answer it was is not known.
      this.#reject(error);
    }
  }

  #settle({ id, error, result }) {
    const call = this.#pending.get(id);
    // An id that is not pending is the late answer to a command that timed out.
    if (!call) return;
    this.#pending.delete(id);
    call.callOff();
    if (error) return call.reject(new CommandError(error));
    try {
      const value = wire.unpack(result);
      call.resolve(call.make ? call.make(value) : value);
    } catch (unreadable) {
      call.reject(unreadable);
    }
  }

  #reject(error) {
    for (const call of this.#pending.values()) {
      call.callOff();
      call.reject(error);
    }
    this.#pending.clear();
  }
}

/** How long the broker itself may wait before it answers. */
function waiting(method, params) {
  if (method !== "wait" && method !== "changes") return 0;
  const options = params.at(-1) instanceof Object ? params.at(-1) : {};
  return Number(options.timeout_ms ?? options.wait_ms ?? (method === "wait" ? Infinity : 0)) || 0;
}

class Notifier extends Commands {
  #client;

  constructor(client) {
    super();
    this.#client = client;
  }

  _call(method, params) {
    this.#client._notify(method, params);
  }
}

class Collector extends Commands {
  commands = [];
  makes = [];

  _call(method, params, make) {
    this.commands.push([method, params]);
    this.makes.push(make);
  }
}
