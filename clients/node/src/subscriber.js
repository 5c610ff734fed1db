/** The subscriber: it knows whether it has received every change. */

import { performance } from "node:perf_hooks";
import { asEndpoint, asKey, asMs, asSeq, asSettings, needsIpv6 } from "./arguments.js";
import { InvalidArgument, Missed, ProtocolError, Timeout } from "./errors.js";
import { Feed } from "./feed.js";
import * as wire from "./wire.js";

const BEAT = Buffer.from([0xff, ...Buffer.from("beat")]);
// How long the broker may take for changes that it has published already.
const WAIT_MS = 1000;

/**
 * An async iterable over the changes of keys that begin with one of `prefixes` (without any: of all keys), each
 * `{ key, op, value, seq, index, count, ttl_ms, level }`; `value` is null where the change has none, and an Unreadable
 * where it cannot be read.
 *
 * Every change comes in order, or Missed is thrown in its place, once for each stretch; go on by iterating again.
 * With a `client` of the same broker, what is missing is fetched with its `changes`, and Missed is thrown only where
 * that fails, with the `cause`, or where the store is another one; with `after`, the changes of writes later than
 * that seq come first. `last` is the seq up to which nothing is missing. Timeout is thrown when not even a beat came
 * for `patience` ms.
 */
export class Subscriber {
  last = -1;

  // The seq of the last change seen, of that write maybe not all changes, and how many connections there had been, at
  // least, when it arrived.
  #seen = -1;
  #seenOver = 0;
  // The expected `prev` of the next message, if it comes over the same connection.
  #chain = null;
  #yielded;
  #ready = [];
  #feed;
  #patience;
  #prefixes;
  #client;
  // The history that is followed: another store has another one.
  #store = null;
  // The seq up to which changes are to be fetched, and the message that must wait until they are yielded.
  #missing = null;
  #held = null;
  // With several prefixes: changes published up to this seq count as earlier ones.
  #firstBeat = null;
  #turn = Promise.resolve();

  /**
   * Connects; done when the subscription is in effect, which takes up to a second; with several prefixes, when the
   * first beat has come, and it is a Timeout when none came within `patience` (one that lags gets none).
   */
  static async connect(endpoint = "tcp://127.0.0.1:7534", prefixes = [""], options) {
    const settings = asSettings(options, ["patience", "client", "after"]);
    const ipv6 = await needsIpv6(asEndpoint(endpoint));
    const subscriber = new Subscriber(endpoint, prefixes, { ...settings, ipv6 });
    try {
      await subscriber.#begin();
      return subscriber;
    } catch (error) {
      subscriber.close();
      throw error;
    }
  }

  /** Use `Subscriber.connect`. */
  constructor(endpoint, prefixes, made) {
    if (made === undefined) throw new InvalidArgument("a Subscriber is made by await Subscriber.connect(…)");
    const { patience = 5_000, client = null, after = -1, ipv6 = false } = made;
    if (!Array.isArray(prefixes)) throw new InvalidArgument('prefixes must be an array, such as ["lake:"]');
    this.endpoint = endpoint;
    this.last = this.#seen = after === -1 ? -1 : asSeq(after, "after");
    this.#yielded = [this.last, Infinity];
    this.#client = client;
    this.#prefixes = prefixes.map((prefix, place) => Buffer.from(asKey(prefix, `prefixes[${place}]`)));
    this.#patience = asMs(patience, "patience");
    // The beat last: subscriptions take effect in order, so the first beat shows that all have.
    this.#feed = new Feed(endpoint, [...this.#prefixes, BEAT], { ipv6 });
  }

  /** Closes the connection; until then the process lives. */
  close() {
    this.#feed.close();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** The next change. Concurrent calls get one each, in order. For a time limit, use `take`. */
  next() {
    return this.#inTurn(async () => {
      while (this.#ready.length === 0) await this.#receive();
      return { value: this.#take(), done: false };
    });
  }

  /** The next change, or null when there is none within `timeout` ms. */
  take(timeout) {
    return this.#inTurn(async () => {
      const until = performance.now() + asMs(timeout, "timeout");
      while (this.#ready.length === 0) {
        const left = Math.max(0, until - performance.now());
        if (!(await this.#receive(left))) return null;
      }
      return this.#take();
    });
  }

  /** The changes up to `seq`; ends when all of them have been seen. */
  async *until(seq) {
    asSeq(seq, "seq");
    const one = async () => {
      while (this.last < seq && this.#ready.length === 0) await this.#receive();
      return this.#ready.length > 0 ? this.#take() : null;
    };
    for (let change; (change = await this.#inTurn(one)) !== null; ) yield change;
  }

  /** Does `step` after the steps before it: the first caller gets the first change. */
  #inTurn(step) {
    const done = this.#turn.then(step);
    this.#turn = done.catch(() => {});
    return done;
  }

  #take() {
    const item = this.#ready.shift();
    if (item instanceof Error) throw item;
    return item;
  }

  async #begin() {
    this.#store = (await this.#client?.hello())?.store_id;
    if (this.#prefixes.length > 1) {
      // The messages before the first beat may be only some of the changes, and are not kept: that beat is taken for
      // the first message.
      const deadline = performance.now() + this.#patience;
      let frames;
      do {
        const left = deadline - performance.now();
        if (frames && left <= 0) {
          throw new Timeout(`no beat from ${this.endpoint} in time: with several prefixes, the first is awaited`);
        }
        frames = await this.#next(left);
      } while (!BEAT.equals(frames[0]));
      this.#held = this.#firstBeat = frames;
    }
    await this.#receive();
  }

  /** Receives one message, or fetches one page, and checks seq and prev; false when none came in time. */
  async #receive(timeout = Infinity) {
    if (this.#missing !== null) {
      await this.#fetch(this.#missing);
      return true;
    }
    const frames = this.#held ?? (await this.#next(this.#patience, timeout));
    if (!frames) return false;
    this.#held = null;
    const { topic, header, value } = parts(frames);
    const [seq, op, index, count, prev, ttl_ms, level] = header;
    const before = frames === this.#firstBeat ? seq : prev;
    // A new connection begins after all changes that were seen published before.
    const breaksChain = before < this.#seen && prev !== this.#chain;
    if (this.#seen === -1 || seq < this.#seen || breaksChain) {
      // The first message; or the beginning of another history.
      if (this.#seen !== -1) this.#ready.push(new Missed(0, before));
      this.#startAfter(before);
    }
    this.#chain = prev;
    const known = await this.#known(seq, op, before);
    const missedTo = op === "lost" ? Math.max(before, seq) : before;
    if (missedTo > known) {
      if (this.#client) {
        this.#missing = missedTo;
        this.#held = frames;
        return true;
      }
      this.#ready.push(new Missed(known, missedTo));
    }
    if (op !== "beat" && op !== "lost") {
      this.#ready.push({ key: wire.keyText(topic), op, value, seq, index, count, ttl_ms, level });
      this.#yielded = [seq, index];
      // It came over some connection: at least the first.
      this.#seenOver = Math.max(1, this.#feed.before);
    }
    if (op !== "beat") this.#chain = seq;
    this.#seen = seq;
    // More changes of the same write may follow, until the last of them, a later seq or a beat.
    const isWhole = op === "beat" || op === "lost" || index + 1 === count;
    this.last = isWhole ? seq : Math.max(this.last, seq - 1);
    return true;
  }

  #startAfter(seq) {
    this.last = this.#seen = seq;
    this.#yielded = [seq, Infinity];
  }

  /** The seq up to which all changes were seen, now that this message follows. */
  async #known(seq, op, prev) {
    const mayHaveMore = this.last < this.#seen;
    const isNextWrite = seq > this.#seen || op === "beat" || op === "lost";
    if (!mayHaveMore || !isNextWrite) return this.#seen;
    // Over one connection, the rest of the write would have come before this. A connection that ends takes the rest
    // with it, and no gap shows that if nothing was published until the next connection was made.
    const isCut = prev > this.#seen || (await this.#feed.connections()) > this.#seenOver;
    return isCut ? this.last : this.#seen;
  }

  /** Fetches one page of the missing changes; later ones are yielded as they were published. */
  async #fetch(upTo) {
    // The last write seen may have had more changes: it is read again, and changes already yielded are skipped.
    const prefix = this.#prefixes.length === 1 ? this.#prefixes[0] : undefined;
    let next = upTo;
    try {
      const page = await this.#client.changes(this.last, { prefix, wait_ms: WAIT_MS });
      // Requested after the page, to know which store the page is of.
      const { store_id } = await this.#client.hello();
      if (store_id !== this.#store) return await this.#changeTo(store_id, upTo);
      next = page.next;
      for (const change of page.changes) {
        const [seq, index] = this.#yielded;
        const isNew = change.seq > seq || (change.seq === seq && change.index > index);
        if (!isNew || change.seq > upTo || !this.#isOurs(Buffer.from(change.key))) continue;
        this.#ready.push(change);
        this.#yielded = [change.seq, change.index];
      }
    } catch (cause) {
      this.#ready.push(new Missed(this.last, upTo, { cause }));
    }
    this.last = Math.min(next, upTo);
    if (next >= upTo) {
      this.#seen = upTo;
      this.#missing = null;
    }
  }

  /** The store was replaced by one whose seqs have passed those seen: its history was missed up to `seq`. */
  async #changeTo(store, seq) {
    this.#ready.push(new Missed(0, seq));
    this.#startAfter(seq);
    this.#missing = null;
    // The message at hand may still be of the old store; then another one follows, and is detected again.
    if ((await this.#feed.connections()) <= Math.max(1, this.#feed.before)) this.#store = store;
  }

  #isOurs(key) {
    return this.#prefixes.some((prefix) => key.subarray(0, prefix.length).equals(prefix));
  }

  /** The next message; null when none comes within `timeout`, or a Timeout when that is as long as `patience`. */
  async #next(patience, timeout = Infinity) {
    const frames = await this.#feed.next(Math.min(patience, timeout));
    if (frames || timeout < patience) return frames;
    throw new Timeout(`nothing received from ${this.endpoint} in time: is \`vatn serve\` running there?`);
  }
}

/** `{ topic, header, value }` of a message; `value` may be an Unreadable. */
function parts(frames) {
  const [topic, head, body] = frames;
  const header = frames.length === 3 ? readable(head) : null;
  const isHeader = Array.isArray(header) && header.length >= 7 && typeof header[1] === "string";
  if (!isHeader || !Number.isInteger(header[0])) {
    throw new ProtocolError(`a message that is no change, of ${frames.length} frames`);
  }
  return { topic, header, value: body.length > 0 ? readable(body) : null };
}

function readable(bytes) {
  try {
    return wire.unpack(bytes);
  } catch (unreadable) {
    return unreadable;
  }
}
