/** The client: one DEALER connection. */

import { performance } from "node:perf_hooks";
import { Dealer } from "zeromq";
import { asEndpoint, asMs, asSettings, connectSocket, needsIpv6, withOptions } from "./arguments.js";
import { Commands } from "./commands.js";
import { CommandError, InvalidArgument, ProtocolError, Timeout, Unreadable, VatnError } from "./errors.js";
import { shapeOf } from "./shapes.js";
import { after } from "./timer.js";
import * as wire from "./wire.js";

const PROTOCOL = 1;

// Commands of one turn of the event loop go out together, in messages of at most this size.
const MESSAGE_REQUESTS = 1000;
const MESSAGE_BYTES = 1 << 20;
// How long a message waits for a connection before those of its requests that have timed out are removed.
const SEND_MS = 200;
// How many bytes may wait to be sent when a notification is added, including each request's overhead. Commands are
// bounded by the program that awaits their answers.
const WAITING_BYTES = 64 << 20;
const REQUEST_BYTES = 100;
// How often the broker gets a `ping`. A broker that answers none for `timeout`, within these bounds, is taken for gone
// and connected anew: where the network fails silently, libzmq would wait for ever.
const HEARTBEAT_MS = 2_000;
const PATIENCE_LEAST_MS = 5_000;
const PATIENCE_MOST_MS = 3_600_000;

export class Client extends Commands {
  /** Commands without an answer, and without knowing their result: `client.notify.set("a", 1)`. */
  notify = new Notifier(this);
  /** The broker's answer to `hello`. */
  server = null;

  #socket;
  #nextId = 1;
  #pending = new Map();
  #outgoing = [];
  #waitingBytes = 0;
  #isSending = false;
  #isClosed = false;
  #timeout;
  #name;

  /**
   * Connects and says hello. `timeout` (ms) bounds every command; `wait` and `changes` get their own waiting
   * time on top. After a Timeout it is not known whether a write was done. The connection comes back by itself.
   */
  static async connect(endpoint = "tcp://127.0.0.1:7533", options) {
    const { timeout = 10_000, name = "node" } = asSettings(options, ["timeout", "name"]);
    const client = new Client(asEndpoint(endpoint), timeout, { name, ipv6: await needsIpv6(endpoint) });
    try {
      await client.#greet();
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Use `Client.connect`. */
  constructor(endpoint, timeout, made) {
    super();
    if (made === undefined) throw new InvalidArgument("a Client is made by await Client.connect(…)");
    const { name, ipv6 } = made;
    this.endpoint = endpoint;
    this.timeout = timeout;
    this.#name = name;
    // immediate: nothing is sent without a connection, so that a command that timed out is not executed later.
    this.#socket = new Dealer({
      linger: 0,
      ipv6,
      immediate: true,
      sendTimeout: SEND_MS,
      heartbeatInterval: HEARTBEAT_MS,
      heartbeatTimeout: Math.min(Math.max(timeout, PATIENCE_LEAST_MS), PATIENCE_MOST_MS),
    });
    connectSocket(this.#socket, endpoint);
    this.#receive();
  }

  get timeout() {
    return this.#timeout;
  }

  set timeout(timeout) {
    this.#timeout = asMs(timeout, "timeout");
  }

  /** Closes the connection; rejects commands that wait for an answer. */
  close() {
    this.#isClosed = true;
    this.#socket.close();
    this.#reject(new VatnError(`the connection to ${this.endpoint} was closed`));
  }

  /** Every item of a range, page by page; each page is its own moment. `page` is its size. */
  async *scan(given) {
    const { page, ...options } = withOptions([], given)[0] ?? {};
    let after;
    do {
      const { items, next } = await this.range({ ...options, limit: page, after });
      yield* items;
      after = next;
    } while (after !== null);
  }

  /** Several commands as one write: `await client.atomic((a) => { a.incr("n"); a.delete("m"); })`; their results. */
  async atomic(build, options) {
    if (typeof build !== "function") throw new InvalidArgument("atomic takes a function that gives the commands");
    const block = new Collector();
    const returned = build(block);
    // Commands after its first await would not be in the block.
    if (typeof returned?.then === "function") throw new InvalidArgument("the function of atomic must not be async");
    const results = await this.batch(block.commands, options);
    return results.map((result, place) => (block.makes[place] ? block.makes[place](result) : result));
  }

  _call(method, build, make) {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const params = build();
      const frame = wire.request(id, method, params);
      this.#checkSize(frame);
      const shape = shapeOf(method, params);
      const call = { method, make, shape, resolve, reject, callOff: null, state: "waits", isLate: false };
      const waits = waiting(method, params);
      const patience = this.timeout + waits;
      const until = performance.now() + patience;
      this.#queue({ frame, id, call, until, isAlone: waits > 0 });
      call.callOff = after(patience, () => this.#expire(id));
      this.#pending.set(id, call);
    });
  }

  _notify(method, build) {
    const frame = wire.notification(method, build());
    this.#checkSize(frame);
    if (this.#waitingBytes + frame.length + REQUEST_BYTES > WAITING_BYTES) {
      const what = `${this.#outgoing.length} requests wait to be sent to ${this.endpoint}`;
      throw new VatnError(`${what}: await an answer now and then, and see whether \`vatn serve\` is running there`);
    }
    this.#queue({ frame, id: null, call: null, until: performance.now() + this.timeout, isAlone: false });
  }

  async #greet() {
    const server = await this.hello({ client: this.#name });
    if (server?.protocol !== PROTOCOL) {
      throw new ProtocolError(`${this.endpoint} does not speak version ${PROTOCOL} of the protocol`);
    }
    this.server = server;
  }

  /** Called when the broker may have been replaced by one with other limits. */
  #greetAgain() {
    if (!this.#isClosed) this.#greet().catch(() => {});
  }

  #limit(name) {
    return this.server?.limits?.[name] ?? Infinity;
  }

  /** A message over the broker's limit would end the connection, and its answer would never come. */
  #checkSize({ length }) {
    const max = this.#limit("message_bytes");
    if (length <= max) return;
    this.#greetAgain();
    const what = `the request has ${length} bytes, and the broker takes ${max} (--max-message-bytes)`;
    throw new CommandError(["TOO_LARGE", what, { limit: "message_bytes", max }]);
  }

  #expire(id) {
    const call = this.#pending.get(id);
    if (!call) return;
    // Whether the message goes out is known only when the attempt has ended.
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

  /** Takes the next message's requests from the queue, as many as fit, and drops those that have timed out. */
  #takeMessage() {
    const now = performance.now();
    const message = [];
    const most = Math.min(MESSAGE_REQUESTS, this.#limit("frames"));
    const sizeMost = Math.min(MESSAGE_BYTES, this.#limit("message_bytes"));
    let size = 0;
    let count = 0;
    while (count < this.#outgoing.length && message.length < most) {
      const item = this.#outgoing[count];
      // The answers of one message come together: a command that the broker may defer must not delay others.
      const isOther = item.isAlone || message[0]?.isAlone || size + item.frame.length > sizeMost;
      if (message.length > 0 && isOther) break;
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

  /** No attempt lasts longer than its requests: a connection that comes later must not send them. */
  #boundAttempt(message) {
    const earliest = message.reduce((least, { until }) => Math.min(least, until), Infinity);
    const left = Math.max(1, Math.min(SEND_MS, Math.floor(earliest - performance.now())));
    if (left !== this.#socket.sendTimeout) this.#socket.sendTimeout = left;
  }

  /** Unsent requests wait again, before later ones, unless they have timed out meanwhile. */
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
      const what = `the connection to ${this.endpoint} failed: ${error.message}`;
      if (!this.#isClosed) this.#reject(new VatnError(what, { cause: error }));
    }
  }

  #take(frame) {
    try {
      this.#settle(wire.response(frame));
    } catch (error) {
      // The id that the answer belongs to is not known.
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
      const value = wire.result(result, call.shape);
      if (value instanceof Unreadable) throw value;
      call.resolve(call.make ? made(call, value) : value);
    } catch (fault) {
      call.reject(fault);
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

function made({ method, make }, value) {
  try {
    return make(value);
  } catch (cause) {
    throw new ProtocolError(`an answer to \`${method}\` of another form`, { cause });
  }
}

/** How long the broker itself may wait before it answers. */
function waiting(method, params) {
  if (method !== "wait" && method !== "changes") return 0;
  const options = params.at(-1) instanceof Object ? params.at(-1) : {};
  const given = options.timeout_ms ?? options.wait_ms ?? (method === "wait" ? Infinity : 0);
  return asMs(typeof given === "bigint" ? Number(given) : given, "a waiting time");
}

class Notifier extends Commands {
  #client;

  constructor(client) {
    super();
    this.#client = client;
  }

  _call(method, build) {
    this.#client._notify(method, build);
  }
}

class Collector extends Commands {
  commands = [];
  makes = [];

  _call(method, build, make) {
    this.commands.push([method, build()]);
    this.makes.push(make);
  }
}
