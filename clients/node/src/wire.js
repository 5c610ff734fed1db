/** Frames: commands and answers. */

import { ProtocolError, Unreadable } from "./errors.js";
import { Reader } from "./reader.js";
import { pack, packCommand } from "./writable.js";

const REQUEST = 0;
const RESPONSE = 1;
const NOTIFICATION = 2;
const NIL = 0xc0;
const ARRAY_OF_FOUR = 0x94;

export { pack };

/** One value; throws Unreadable. */
export function unpack(bytes) {
  let value;
  try {
    const reader = new Reader(bytes);
    value = reader.value();
    if (!reader.isAtEnd) throw new RangeError("bytes after its end");
  } catch (cause) {
    throw new Unreadable(bytes, cause.message, { cause });
  }
  if (value instanceof Unreadable) throw value;
  return value;
}

export const request = (id, method, params) => packCommand([REQUEST, id], method, params);

export const notification = (method, params) => packCommand([NOTIFICATION], method, params);

const noResponse = (frame) =>
  new ProtocolError(`an answer that is no response: ${Buffer.from(frame).toString("hex", 0, 64)}`);

/** `{ id, error, result }` of a response frame, `[1, id, error, result]`; `result` is still bytes. */
export function response(frame) {
  if (frame.length < 5 || frame[0] !== ARRAY_OF_FOUR || frame[1] !== RESPONSE) throw noResponse(frame);
  const reader = new Reader(frame);
  reader.at = 2;
  try {
    const id = reader.value();
    const isNil = frame[reader.at] === NIL;
    const error = reader.value();
    if (id !== null && !(Number.isSafeInteger(id) && id >= 0)) throw noResponse(frame);
    if (isNil) return { id, error: null, result: frame.subarray(reader.at) };
    const isError = Array.isArray(error) && typeof error[0] === "string" && error[2] instanceof Object;
    if (!isError) throw noResponse(frame);
    return { id, error, result: null };
  } catch {
    throw noResponse(frame);
  }
}

/** The result of an answer, read by its shape. */
export function result(bytes, shape) {
  try {
    const reader = new Reader(bytes);
    const value = shape(reader);
    if (reader.isAtEnd) return value;
  } catch {
    // The answer has another shape.
  }
  throw new ProtocolError(`a result of another form: ${Buffer.from(bytes).toString("hex", 0, 64)}`);
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A key as the protocol gives it: a string when it is UTF-8, else bytes. */
export function keyText(key) {
  try {
    return UTF8.decode(key);
  } catch {
    return key;
  }
}
