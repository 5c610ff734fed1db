/** Frames: JavaScript values to bytes and back. */

import { Decoder, encode, ExtData } from "@msgpack/msgpack";
import { ProtocolError, Unreadable, Unwritable } from "./errors.js";

const REQUEST = 0;
const RESPONSE = 1;
const NOTIFICATION = 2;
const NIL = 0xc0;
const ARRAY_OF_FOUR = 0x94;

const LEAST = -(2n ** 63n);
const MOST = 2n ** 64n - 1n;

/** The same value as the codec is to get it; what would become another one on the way is Unwritable. */
function checked(value) {
  switch (typeof value) {
    case "number":
      return widen(value);
    case "bigint":
      if (value < LEAST || value > MOST) throw new Unwritable(`${value} has more than 64 bits`);
      return value;
    case "string":
      return text(value);
    case "object":
      return value === null ? null : checkedObject(value);
    case "boolean":
    case "undefined":
      return value;
    default:
      throw new Unwritable(`a ${typeof value}`);
  }
}

function checkedObject(value) {
  if (Array.isArray(value)) return value.map(checked);
  if (value instanceof Uint8Array || value instanceof Date || value instanceof ExtData) return value;
  if (value instanceof Map) return checkedMap([...value]);
  const prototype = Object.getPrototypeOf(value);
  // A plain one may come from another realm, where Object is another.
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null;
  if (isPlain) return checkedMap(Object.entries(value));
  const name = value.constructor?.name ?? "object";
  throw new Unwritable(`a ${name} is no plain object: copy what is to be kept into one, or into an array`);
}

function checkedMap(entries) {
  return Object.fromEntries(
    entries.map(([key, item]) => {
      if (typeof key !== "string") throw new Unwritable("a Map whose keys are not all strings");
      return [text(key), checked(item)];
    }),
  );
}

function text(value) {
  if (!value.isWellFormed()) throw new Unwritable("a string that is not Unicode: it has half a surrogate pair");
  return value;
}

/** Integers of more than 32 bits travel as bigint inside the codec, which would make floats of such numbers. */
function widen(value) {
  const isWide = value > 0xffffffff || value < -0x80000000;
  return isWide && Number.isSafeInteger(value) ? BigInt(value) : value;
}

/** Integers that a number holds exactly are numbers, the others bigint; in all that was decoded. */
function narrowed(value) {
  if (typeof value === "bigint") {
    const isSafe = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
    return isSafe ? Number(value) : value;
  }
  if (Array.isArray(value)) return value.map(narrowed);
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, narrowed(item)]));
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The codec's own reading of text mends what is not UTF-8, and drops a byte order mark: both change the value. */
class StrictDecoder extends Decoder {
  decodeUtf8String(length, headerLength) {
    const begin = this.pos + headerLength;
    if (this.bytes.length < begin + length) throw new RangeError("cut short");
    const string = UTF8.decode(this.bytes.subarray(begin, begin + length));
    this.pos = begin + length;
    return string;
  }
}

const decoder = () => new StrictDecoder({ useBigInt64: true });

export function pack(value) {
  const given = checked(value);
  try {
    return encode(given, { useBigInt64: true, ignoreUndefined: true, maxDepth: 100 });
  } catch (cause) {
    throw new Unwritable(cause.message, { cause });
  }
}

export function unpack(bytes) {
  try {
    return narrowed(decoder().decode(bytes));
  } catch (cause) {
    throw new Unreadable(bytes, cause);
  }
}

export const request = (id, method, params) => pack([REQUEST, id, method, params]);

export const notification = (method, params) => pack([NOTIFICATION, method, params]);

/** The params of a command: its arguments, and its options where any is given. */
export function params(positional, options = {}) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
  return given.length > 0 ? [...positional, Object.fromEntries(given)] : positional;
}

/** `{ id, error, result }` of a response frame, `[1, id, error, result]`; `result` is still bytes. */
export function response(frame) {
  const fault = () => new ProtocolError(`an answer that is no response: ${Buffer.from(frame).toString("hex", 0, 64)}`);
  if (frame.length < 5 || frame[0] !== ARRAY_OF_FOUR || frame[1] !== RESPONSE) throw fault();
  const [id, at] = readId(frame, fault);
  if (frame[at] === NIL) return { id, error: null, result: frame.subarray(at + 1) };
  try {
    const [error] = decoder().decodeMulti(frame.subarray(at));
    return { id, error: narrowed(error), result: null };
  } catch {
    throw fault();
  }
}

const WIDTHS = new Map([[0xcc, 1], [0xcd, 2], [0xce, 4], [0xcf, 8]]);

function readId(frame, fault) {
  const head = frame[2];
  if (head < 0x80) return [head, 3];
  if (head === NIL) return [null, 3];
  const width = WIDTHS.get(head);
  if (width === undefined || frame.length < 4 + width) throw fault();
  const bytes = frame.subarray(3, 3 + width);
  return [Number(bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)), 3 + width];
}

/** A key as the protocol gives it: a string when it is UTF-8, else bytes. */
export function keyText(key) {
  try {
    return UTF8.decode(key);
  } catch {
    return key;
  }
}
