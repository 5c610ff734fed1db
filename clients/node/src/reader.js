/**
 * Reading: MessagePack to JavaScript values, exactly.
 *
 * The codec that writes has a reader too, but that one makes numbers of keys into strings, keeps one of two equal keys,
 * rounds times, mends text that is not UTF-8, and does not report where a value ends. Here each of these is an error,
 * and a value can be skipped.
 */

import { ExtData } from "@msgpack/msgpack";
import { Unreadable } from "./errors.js";

// A broker's values nest 64 levels, and an answer adds a few around them.
const DEPTH = 128;
const DATE_MAX_SECONDS = 8_640_000_000_000;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class Reader {
  /** The position in the bytes. */
  at = 0;

  #bytes;
  #view;
  #depth = 0;

  constructor(bytes) {
    this.#bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get isAtEnd() {
    return this.at === this.#bytes.length;
  }

  get isNil() {
    return this.#bytes[this.at] === 0xc0;
  }

  /** One value; a value without an equal in JavaScript is returned as Unreadable, with its bytes. */
  value() {
    const begin = this.at;
    try {
      return this.#value();
    } catch (cause) {
      this.at = begin;
      this.#depth = 0;
      this.skip();
      return new Unreadable(this.#bytes.subarray(begin, this.at), cause.message, { cause });
    }
  }

  /** Enters an array; returns how many elements it has. */
  array() {
    const { kind, count } = this.#head();
    if (kind !== "array") throw new RangeError(`a ${kind} where an array should be`);
    return count;
  }

  /** Skips one value. */
  skip() {
    for (let left = 1; left > 0; left--) {
      const { kind, count, size } = this.#head();
      if (kind === "array") left += count;
      else if (kind === "map") left += 2 * count;
      else this.#take(size + (kind === "str" || kind === "bin" || kind === "ext" ? count : 0));
    }
  }

  #take(length) {
    const begin = this.at;
    if (begin + length > this.#bytes.length) throw new RangeError("cut short");
    this.at += length;
    return begin;
  }

  /** The next head: `count` is a length or the number itself, `size` how many bytes of a number or of a type follow. */
  #head() {
    const head = this.#bytes[this.#take(1)];
    if (head < 0x80) return { kind: "integer", count: head, size: 0 };
    if (head < 0x90) return { kind: "map", count: head & 0x0f, size: 0 };
    if (head < 0xa0) return { kind: "array", count: head & 0x0f, size: 0 };
    if (head < 0xc0) return { kind: "str", count: head & 0x1f, size: 0 };
    if (head >= 0xe0) return { kind: "integer", count: head - 0x100, size: 0 };
    const known = HEADS[head - 0xc0];
    if (!known) throw new RangeError("the byte c1");
    const [kind, width, size, count] = known;
    return { kind, size, count: width === 0 ? count : this.#bytes.readUIntBE(this.#take(width), width) };
  }

  #value() {
    const { kind, count, size } = this.#head();
    switch (kind) {
      case "integer":
        return size === 0 ? count : this.#integer(count, size);
      case "float":
        return size === 4 ? this.#view.getFloat32(this.#take(4)) : this.#view.getFloat64(this.#take(8));
      case "str":
        return this.#text(count);
      case "bin":
        return this.#bin(count);
      case "array":
        return this.#inside(() => this.#array(count));
      case "map":
        return this.#inside(() => this.#map(count));
      case "ext":
        return this.#ext(count);
      default:
        return kind === "nil" ? null : kind === "true";
    }
  }

  #integer(isSigned, size) {
    const at = this.#take(size);
    if (size < 8) return isSigned ? this.#bytes.readIntBE(at, size) : this.#bytes.readUIntBE(at, size);
    const wide = isSigned ? this.#view.getBigInt64(at) : this.#view.getBigUint64(at);
    return wide >= Number.MIN_SAFE_INTEGER && wide <= Number.MAX_SAFE_INTEGER ? Number(wide) : wide;
  }

  #text(length) {
    const begin = this.#take(length);
    const text = this.#bytes.toString("utf8", begin, this.at);
    // It stands for bytes that are not UTF-8, or for itself.
    return text.includes("\ufffd") ? UTF8.decode(this.#bytes.subarray(begin, this.at)) : text;
  }

  #bin(length) {
    const begin = this.#take(length);
    return this.#bytes.subarray(begin, this.at);
  }

  #inside(read) {
    if (this.#depth === DEPTH) throw new RangeError(`it nests deeper than ${DEPTH} levels`);
    this.#depth += 1;
    const made = read();
    this.#depth -= 1;
    return made;
  }

  #array(count) {
    const items = [];
    for (let place = 0; place < count; place++) items.push(this.#value());
    return items;
  }

  #map(count) {
    const made = {};
    for (let place = 0; place < count; place++) {
      const key = this.#value();
      if (typeof key !== "string") throw new RangeError("a map with a key that is not a string");
      if (Object.hasOwn(made, key)) throw new RangeError(`a map with the key ${JSON.stringify(key)} twice`);
      const value = this.#value();
      if (key !== "__proto__") made[key] = value;
      else Object.defineProperty(made, key, { value, enumerable: true, configurable: true, writable: true });
    }
    return made;
  }

  #ext(length) {
    const type = this.#view.getInt8(this.#take(1));
    const begin = this.#take(length);
    return type === -1 ? this.#date(begin, length) : new ExtData(type, this.#bytes.subarray(begin, this.at));
  }

  #date(at, length) {
    if (length !== 4 && length !== 8 && length !== 12) throw new RangeError(`a time of ${length} bytes`);
    const high = this.#view.getUint32(at);
    let [seconds, nanoseconds] = [high, 0];
    if (length === 8) [seconds, nanoseconds] = [(high & 3) * 2 ** 32 + this.#view.getUint32(at + 4), high >>> 2];
    if (length === 12) [seconds, nanoseconds] = [Number(this.#view.getBigInt64(at + 4)), high];
    if (nanoseconds > 999_999_999) throw new RangeError("a time with more than a second of nanoseconds");
    if (nanoseconds % 1_000_000 !== 0) throw new RangeError("a time finer than the milliseconds of a Date");
    const date = new Date(seconds * 1000 + nanoseconds / 1_000_000);
    const isInRange = Math.abs(seconds) <= DATE_MAX_SECONDS && !Number.isNaN(date.getTime());
    if (!isInRange) throw new RangeError("a time that is out of the range of a Date");
    return date;
  }
}

// By the byte, from 0xc0 on: the kind, how many bytes its length has, how many follow besides, and what stands for the
// length where it is fixed (for integers: whether they have a sign).
const HEADS = [
  ["nil", 0, 0, 0], null, ["false", 0, 0, 0], ["true", 0, 0, 0],
  ["bin", 1, 0], ["bin", 2, 0], ["bin", 4, 0],
  ["ext", 1, 1], ["ext", 2, 1], ["ext", 4, 1],
  ["float", 0, 4, 0], ["float", 0, 8, 0],
  ["integer", 0, 1, 0], ["integer", 0, 2, 0], ["integer", 0, 4, 0], ["integer", 0, 8, 0],
  ["integer", 0, 1, 1], ["integer", 0, 2, 1], ["integer", 0, 4, 1], ["integer", 0, 8, 1],
  ["ext", 0, 1, 1], ["ext", 0, 1, 2], ["ext", 0, 1, 4], ["ext", 0, 1, 8], ["ext", 0, 1, 16],
  ["str", 1, 0], ["str", 2, 0], ["str", 4, 0],
  ["array", 2, 0], ["array", 4, 0],
  ["map", 2, 0], ["map", 4, 0],
];
