/** The subscriber: one SUB connection that knows whether it has heard everything. */

import { Subscriber as Socket } from "zeromq";
import { Missed, Timeout } from "./errors.js";
import * as wire from "./wire.js";

const BEAT = Buffer.from([0xff, ...Buffer.from("beat")]);

/**
 * An async iterable over the changes of keys that begin with one of `prefixes` (without any: of all keys), each
 * `{ key, op, value, seq, index, count, ttl_ms, level }`; `value` is null where `op` is not "set".
 *
 * Every change comes in order, or Missed is thrown in its place, once for each stretch; go on by iterating again.
 * `last` is the seq up to which nothing is missing. Timeout is thrown when not even a beat came for `patience` ms.
 */
export class Subscriber {
  last = -1;

  #seen = -1;
  #ready = [];
  #socket;

  /** Connects; done when the subscription is in effect, which takes up to a second. */
  static async connect(endpoint = "tcp://127.0.0.1:7534", prefixes = [""], { patience = 5_000 } = {}) {
    const subscriber = new Subscriber(endpoint, prefixes, patience);
    try {
      while (!(await subscriber.#receive()));
      return subscriber;
    } catch (error) {
      subscriber.close();
      throw error;
    }
  }

  /** Use `Subscriber.connect`. */
  constructor(endpoint, prefixes, patience) {
    this.endpoint = endpoint;
    this.#socket = new Socket({ linger: 0, receiveTimeout: patience });
    // The beat last: subscriptions take effect in order, so the first beat says that all have.
    for (const prefix of [...prefixes, BEAT]) this.#socket.subscribe(prefix);
    this.#socket.connect(endpoint);
  }

  close() {
    this.#socket.close();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    while (this.#ready.length === 0) await this.#receive();
    return { value: this.#take(), done: false };
  }

  /** The changes up to `seq`; ends when all of them have been seen. */
  async *until(seq) {
    while (this.last < seq || this.#ready.length > 0) {
      if (this.#ready.length > 0) yield this.#take();
      else await this.#receive();
    }
  }

  #take() {
    const item = this.#ready.shift();
    if (item instanceof Error) throw item;
    return item;
  }

  /** Receives one message and keeps the books of the protocol; whether it was a beat. */
  async #receive() {
    const [topic, head, body] = await this.#next();
    const [seq, op, index, count, prev, ttl_ms, level] = wire.unpack(head);
    if (this.#seen === -1 || seq < this.#seen) {
      // The first message; or a lower seq, which is another history that begins.
      if (this.#seen !== -1) this.#ready.push(new Missed(0, prev));
      this.#seen = prev;
    }
    const missedTo = op === "lost" ? Math.max(prev, seq) : prev;
    if (missedTo > this.#seen) this.#ready.push(new Missed(this.#seen, missedTo));
    if (op !== "beat" && op !== "lost") {
      try {
        const value = body.length > 0 ? wire.unpack(body) : null;
        this.#ready.push({ key: wire.keyText(topic), op, value, seq, index, count, ttl_ms, level });
      } catch (unreadable) {
        this.#ready.push(unreadable);
      }
    }
    this.#seen = seq;
    // More changes of the same write may follow, until the last of them, a later seq or a beat.
    const isWhole = op === "beat" || op === "lost" || index + 1 === count;
    this.last = isWhole ? seq : Math.max(this.last, seq - 1);
    return op === "beat";
  }

  async #next() {
    try {
      return await this.#socket.receive();
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      const text = `nothing heard from ${this.endpoint} in time: is \`vatn serve\` running there?`;
      throw new Timeout(text, { cause: error });
    }
  }
}
