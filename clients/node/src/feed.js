/** The feed: the messages of a change endpoint, and a count of the connections that they came over. */

import { performance } from "node:perf_hooks";
import { Subscriber as Socket } from "zeromq";
import { connectSocket } from "./arguments.js";
import { VatnError } from "./errors.js";
import { after } from "./timer.js";

// After this many milliseconds without any message, not even a beat, the connection is closed and made anew: where the
// network fails silently, libzmq would wait for ever. (Its own heartbeats would cut a slow reader: they see no answer
// while its queue is full.) After each such silence the wait is twice as long, until a message comes: a large value may
// be on its way, before which no beat can come.
const SILENCE_MS = 5_000;
const PATIENCE_MAX = 64;
// How long reading messages that have already arrived may take. A process that was busy or stopped for long finds the
// time of the next beat over.
const LAST_LOOK_MS = 100;

/**
 * A SUB socket. libzmq reconnects it silently; the feed counts the connections.
 *
 * `before` is how many connections had been made when the last message that `next` gave was still to come: it came
 * over that one, or over a later one up to `connections()`.
 */
export class Feed {
  before = 0;

  #endpoint;
  #socket;
  #connections = 0;
  #silence;
  #silent = 0;
  // The factor by which the wait is longer.
  #patience = 1;
  #isClosed = false;
  // The pending receive of the socket: a promise, and its outcome.
  #receiving = null;
  #arrived = null;
  #fault = null;
  // Ends the wait for the promise. One callback, and not one more reaction with each wait: the promise may last for
  // days.
  #wake = null;

  constructor(endpoint, topics, { silence = SILENCE_MS, ipv6 = false } = {}) {
    this.#silence = silence;
    this.#endpoint = endpoint;
    this.#socket = new Socket({ linger: 0, ipv6 });
    this.#socket.events.on("handshake", () => this.#connected());
    for (const topic of topics) this.#socket.subscribe(topic);
    connectSocket(this.#socket, endpoint);
  }

  close() {
    this.#isClosed = true;
    this.#socket.close();
  }

  /** How many connections were made until now, including those that every message so far came over. */
  async connections() {
    await delivered();
    return this.#connections;
  }

  /** The next message, or null when none comes within `patience` ms. */
  async next(patience) {
    if (!this.#receiving) {
      // Not called while the socket waits to receive: that would take the signal that the socket waits for.
      const isEmpty = !this.#isClosed && !this.#socket.readable;
      if (isEmpty) this.before = this.#connections;
      this.#receiving = this.#receive();
      // A message that is there already needs no timer.
      if (!isEmpty) await this.#receiving;
    }
    const deadline = performance.now() + patience;
    for (let left = patience; !this.#arrived && !this.#fault; left = deadline - performance.now()) {
      if (left < 0) return null;
      await this.#wait(left);
    }
    if (this.#fault) throw this.#fault;
    const frames = this.#arrived;
    this.#arrived = this.#receiving = null;
    this.#silent = 0;
    this.#patience = 1;
    return frames;
  }

  async #wait(left) {
    const begin = performance.now();
    const made = this.#connections;
    const longest = this.#silence * this.#patience;
    await this.#arrival(Math.min(left, longest - this.#silent));
    this.#silent = this.#connections === made ? this.#silent + performance.now() - begin : 0;
    if (this.#silent < longest) return;
    await this.#arrival(LAST_LOOK_MS);
    if (this.#silent < longest || this.#arrived || this.#fault) return;
    this.#silent = 0;
    this.#patience = Math.min(this.#patience * 2, PATIENCE_MAX);
    this.#socket.disconnect(this.#endpoint);
    this.#socket.connect(this.#endpoint);
  }

  /** Done when a message has arrived or the receive failed, or after `ms`. */
  async #arrival(ms) {
    if (this.#arrived || this.#fault) return;
    let callOff;
    await new Promise((resolve) => {
      this.#wake = resolve;
      callOff = after(ms, resolve);
    });
    this.#wake = null;
    callOff();
  }

  async #receive() {
    try {
      this.#arrived = await this.#socket.receive();
    } catch (cause) {
      const what = this.#isClosed ? "was closed" : `failed: ${cause.message}`;
      this.#fault = new VatnError(`the connection to ${this.#endpoint} ${what}`, { cause });
    }
    this.#wake?.();
  }

  async #connected() {
    const made = (this.#connections += 1);
    this.#silent = 0;
    const receiving = this.#receiving;
    if (!receiving || this.#arrived) return;
    await delivered();
    // The socket waited and waits: all messages of earlier connections were taken.
    if (this.#receiving === receiving && !this.#arrived) this.before = made;
  }
}

/**
 * Messages and events arrive separately. Events before now are reported within a turn of the event loop that begins
 * after now.
 */
async function delivered() {
  for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate);
}
