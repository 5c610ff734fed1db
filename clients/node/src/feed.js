/** The feed: the messages of a change door, and how many connections they came over. */

import { performance } from "node:perf_hooks";
import { Subscriber as Socket } from "zeromq";
import { VatnError } from "./errors.js";
import { within } from "./timer.js";

/**
 * A SUB socket. libzmq connects it again by itself and says nothing about it; here it is counted.
 *
 * `before` is how many connections had been made when the last message that `next` gave was still to come: it came
 * over that one, or over a later one up to `connections()`.
 */
export class Feed {
  before = 0;

  #endpoint;
  #socket;
  #connections = 0;
  #isClosed = false;
  // What the socket is asked for next: a promise, and what came of it.
  #receiving = null;
  #arrived = null;
  #fault = null;

  constructor(endpoint, topics) {
    this.#endpoint = endpoint;
    this.#socket = new Socket({ linger: 0 });
    this.#socket.events.on("handshake", () => {
      this.#connections += 1;
      this.#look();
    });
    for (const topic of topics) this.#socket.subscribe(topic);
    this.#socket.connect(endpoint);
  }

  close() {
    this.#isClosed = true;
    this.#socket.close();
  }

  /** How many connections were made until now, those among them that every message so far came over. */
  async connections() {
    // Events come by a way of their own. What happened before a message came is told within a turn of the event loop
    // that begins after it.
    for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate);
    return this.#connections;
  }

  /** The next message, or null when none comes within `patience` ms. */
  async next(patience) {
    this.#look();
    this.#receiving ??= this.#receive();
    const deadline = performance.now() + patience;
    while (!this.#arrived) {
      // What is there already needs no timer.
      if (this.#socket.readable) await this.#receiving;
      else if (!(await within(deadline - performance.now(), this.#receiving))) return null;
      if (this.#fault) throw this.#fault;
    }
    const frames = this.#arrived;
    this.#arrived = this.#receiving = null;
    return frames;
  }

  async #receive() {
    try {
      this.#arrived = await this.#socket.receive();
    } catch (cause) {
      const what = this.#isClosed ? "was closed" : `failed: ${cause.message}`;
      this.#fault = new VatnError(`the connection to ${this.#endpoint} ${what}`, { cause });
    }
  }

  /** Where nothing is left to read, what came over the connections before the last one has all been taken. */
  #look() {
    if (!this.#isClosed && !this.#arrived && !this.#socket.readable) this.before = this.#connections;
  }
}
