/** Frames: JavaScript values to bytes and back. */

import { decode, decodeMulti, encode } from "@msgpack/msgpack";
import { ProtocolError, Unreadable } from "./errors.js";

const REQUEST = 0;
const RESPONSE = 1;
const NOTIFICATION = 2;
const NIL = 0xc0;
const ARRAY_OF_FOUR = 0x94;

/** Integers of more than 32 bits travel as bigint inside the codec, which would make floats of such numbers. */
function widen(value) {
  const isWide = value > 0xffffffff || value < -0x80000000;
  return isWide && Number.isSafeInteger(value) ? BigInt(value) : value;
}

/** Integers that a number holds exactly are numbers, the others bigint. */
function narrow(value) {
  const isSafe = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
  return typeof value === "bigint" && isSafe ? Number(value) : value;
}

/** The same value with `change` done to every number in it. */
function eachNumber(value, change) {
  if (typeof value === "number" || typeof value === "bigint") return change(value);
  if (Array.isArray(value)) return value.map((item) => eachNumber(item, change));
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, eachNumber(item, change)]));
}

export function pack(value) {
  return encode(eachNumber(value, widen), { useBigInt64: true, ignoreUndefined: true, maxDepth: 100 });
}

export function unpack(bytes) {
  try {
    return eachNumber(decode(bytes, { useBigInt64: true }), narrow);
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
    const [error] = decodeMulti(frame.subarray(at), { useBigInt64: true });
    return { id, error: eachNumber(error, narrow), result: null };
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
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(key);
  } catch {
    return key;
  }
}
