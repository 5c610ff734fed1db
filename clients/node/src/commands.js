/**
 * The commands, one method each, under the names of the protocol; the class that extends this sends them with
 * `_call`. Options are those of the protocol too: `durability` ("memory", "queued", "stored",
 * "synced"), `if` ("absent", "present", or a seq), `ttl_ms`, `key_prefix` and so on. Keys are strings or Uint8Arrays.
 *
 * `_call` gets a function that makes the params, so that a mistake in them is reported as any error of the command.
 */

import { asCommands, asKey, asKeys, asPairs, withOptions } from "./arguments.js";

const asEntry = (result) =>
  result && { value: result[0], seq: result[1], ttl_ms: result[2], level: result[3] };
const asPage = ([items, next]) => ({ items, next });
const asDeleted = ([count, next]) => ({ count, next });
const asHistory = ([changes, next]) => ({ changes: changes.map(asChange), next });
const asChange = ([key, [seq, op, index, count, , ttl_ms, level], value]) => ({
  key, op, value, seq, index, count, ttl_ms, level,
});
const asMap = (pairs) => new Map(pairs);

export class Commands {
  /** The broker's identity and properties: server, version, protocol, store_id, seq, limits, features. */
  hello(options) {
    return this._call("hello", () => withOptions([], options));
  }

  /** The payload, back from the broker. */
  ping(payload = null) {
    return this._call("ping", () => [payload]);
  }

  /** The value, or null; with `meta: true` `{ value, seq, ttl_ms, level }`, or null; `value` may be an Unreadable. */
  get(key, options) {
    return this._call("get", () => withOptions([asKey(key)], options), options?.meta ? asEntry : undefined);
  }

  /** A Map of the keys that were found; a value may be an Unreadable, as in every larger answer. */
  get_multi(keys) {
    return this._call("get_multi", () => [asKeys(keys)], asMap);
  }

  /** Writes one key; the write's seq. With `return_value: true` the old value, or null. */
  set(key, value, options) {
    return this._call("set", () => withOptions([asKey(key), value], options));
  }

  /** Writes several keys (a Map, an object, or pairs), all or none; the one seq. */
  set_multi(pairs, options) {
    return this._call("set_multi", () => withOptions([asPairs(pairs)], options));
  }

  /** Whether the key existed; with `return_value: true` the old value, or null. */
  delete(key, options) {
    return this._call("delete", () => withOptions([asKey(key)], options));
  }

  /** Deletes several keys, all or none; how many existed. */
  delete_multi(keys, options) {
    return this._call("delete_multi", () => withOptions([asKeys(keys)], options));
  }

  /**
   * `{ count, next }`: deletes one page of the keys of a range (`from`, `to`, `prefix`, `after`, `limit`), all or
   * none. One of `from`, `to` and `prefix` must be given. Repeat with `after: next` until `next` is null.
   */
  delete_range(options) {
    return this._call("delete_range", () => withOptions([], options), asDeleted);
  }

  /** Adds `delta` (1) to a number; the new one. A missing key becomes `initial`, or is NOT_FOUND without it. */
  incr(key, options) {
    return this._call("incr", () => withOptions([asKey(key)], options));
  }

  /** Subtracts `delta` (1) from a number; the new one. */
  decr(key, options) {
    return this._call("decr", () => withOptions([asKey(key)], options));
  }

  /** Appends text or bytes to a value, or sets a missing key to them; the length of the new value. */
  append(key, data, options) {
    return this._call("append", () => withOptions([asKey(key), data], options));
  }

  /** Sets a key's time to live, or removes it (null); whether the key exists. */
  touch(key, ttl_ms, options) {
    return this._call("touch", () => withOptions([asKey(key), ttl_ms], options));
  }

  /**
   * `{ items, next }`: one page of keys in bytewise order; `from`, `to`, `prefix`, `after`, `limit`, `reverse`,
   * `keys_only`.
   */
  range(options) {
    return this._call("range", () => withOptions([], options), asPage);
  }

  /** How many keys there are, or begin with `prefix`. */
  count(options) {
    return this._call("count", () => withOptions([], options));
  }

  /** Several `[method, params]` as one write, all or none; their results. See also `Client.atomic`. */
  batch(commands, options) {
    return this._call("batch", () => withOptions([asCommands(commands)], options));
  }

  /** Waits until all earlier writes are in the tables and fsynced; LeakDB's status line. */
  flush() {
    return this._call("flush", () => []);
  }

  /** Requests a compaction of the tables; it has ended when `disk.compactions` in `stats` reaches the result. */
  compact() {
    return this._call("compact", []);
  }

  /** Waits until `seq` has reached `level`; false when `timeout_ms` ran out. */
  wait(seq, level, options) {
    return this._call("wait", () => withOptions([seq, level], options));
  }

  /** `{ changes, next }`: the history after a seq, as far as it fits an answer; `prefix`, `limit`, `wait_ms`. */
  changes(after_seq, options) {
    return this._call("changes", () => withOptions([after_seq], options), asHistory);
  }

  /** The broker's metrics. */
  stats() {
    return this._call("stats", () => []);
  }
}
