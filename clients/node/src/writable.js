/** Writing: JavaScript values to MessagePack. A value that would not come back equal is Unwritable, with its path. */

import { isDeepStrictEqual, types } from "node:util";
import { Encoder, ExtData } from "@msgpack/msgpack";
import { Unwritable } from "./errors.js";

const DEPTH = 64;
const LEAST = -(2n ** 63n);
const MOST = 2n ** 64n - 1n;
// The places of values in the params of a command, and the start of the path to each.
const VALUES = { set: { 1: "value" }, set_multi: { 0: "pairs" }, ping: { 0: "payload" } };

class ExactEncoder extends Encoder {
  /** The codec would make 0 of -0, and floats of integers of more than 32 bits. */
  encodeNumber(number) {
    if (Object.is(number, -0)) return this.encodeNumberAsFloat(number);
    const isWide = number > 0xffffffff || number < -0x80000000;
    return isWide && Number.isSafeInteger(number) ? this.encodeBigInt64(BigInt(number)) : super.encodeNumber(number);
  }
}

const encode = (value) => new ExactEncoder({ useBigInt64: true, maxDepth: 2 * DEPTH }).encode(value);

/** The bytes of a value. */
export const pack = (value) => encode(new Check("the value", true).copy(value, 0));

/** The bytes of the frame of a command: `[...head, method, params]`. */
export const packCommand = (head, method, params) => encode([...head, method, checkedParams(method, params)]);

function checkedParams(method, params) {
  return params.map((param, place) => {
    if (method === "batch" && place === 0) return checkedCommands(param);
    const name = VALUES[methodName(method)]?.[place];
    if (name) return new Check(name, true).copy(param, 0);
    return new Check(place === params.length - 1 ? "options" : `params[${place}]`, false).copy(param, 0);
  });
}

/** The protocol takes a method's name as bytes too. */
export const methodName = (method) => (typeof method === "string" ? method : Buffer.from(method).toString());

function checkedCommands(commands) {
  return commands.map(([method, params], place) => {
    try {
      return [method, checkedParams(method, params)];
    } catch (error) {
      throw error instanceof Unwritable ? new Unwritable(`commands[${place}]: ${error.path}`, error.reason) : error;
    }
  });
}

/** A walk over one value that copies it as the codec is to get it. Each property is read once. */
class Check {
  #path;
  // An argument or option of a command may be any bigint; a value comes back as a number where one holds it.
  #isValue;

  constructor(name, isValue) {
    this.#path = [name];
    this.#isValue = isValue;
  }

  copy(value, depth) {
    switch (typeof value) {
      case "string":
        return this.#text(value);
      case "bigint":
        return this.#bigint(value);
      case "object":
        return value === null ? null : this.#object(value, depth);
      case "number":
      case "boolean":
        return value;
      case "undefined":
        return this.#refuse("undefined would come back as null: give null, or leave it out");
      default:
        return this.#refuse(`a ${typeof value} is no value`);
    }
  }

  #refuse(reason, cause) {
    const [name, ...steps] = this.#path;
    const shown = steps.slice(0, 8).map((step) => (typeof step === "number" ? `[${step}]` : member(step)));
    throw new Unwritable(`${name}${shown.join("")}${steps.length > 8 ? "…" : ""}`, reason, { cause });
  }

  #text(value) {
    return value.isWellFormed() ? value : this.#refuse("a string that is not Unicode: it has half a surrogate pair");
  }

  #bigint(value) {
    if (value < LEAST || value > MOST) this.#refuse(`${value} has more than 64 bits`);
    const isNumber = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
    if (this.#isValue && isNumber) this.#refuse(`${value}n would come back as a number: give Number(${value}n)`);
    return value;
  }

  #object(value, depth) {
    try {
      if (Array.isArray(value)) return this.#array(value, depth);
      if (types.isUint8Array(value)) return this.#bytes(value);
      if (types.isDate(value)) return this.#date(value);
      if (value instanceof ExtData) return this.#ext(value);
      if (types.isMap(value)) return this.#map(value, depth);
      if (isPlain(value)) return this.#plain(value, depth);
    } catch (error) {
      if (error instanceof Unwritable) throw error;
      this.#refuse(`reading it failed: ${error?.message ?? error}`, error);
    }
    return this.#refuse(`a ${nameOf(value)} is no plain object: copy what is to be kept into one, or into an array`);
  }

  #nest(depth) {
    if (depth === DEPTH) this.#refuse(`it nests deeper than ${DEPTH} levels, or holds itself`);
  }

  #inside(step, value, depth) {
    this.#path.push(step);
    const copied = this.copy(value, depth + 1);
    this.#path.pop();
    return copied;
  }

  #array(value, depth) {
    this.#nest(depth);
    if (!isOwn(value, Array)) this.#refuse(`a ${nameOf(value)} would come back as an array`);
    const { length } = value;
    if (hasOwnMembers(value, length)) this.#refuse("an array with further members would come back without them");
    return Array.from({ length }, (_, place) => this.#inside(place, value[place], depth));
  }

  #bytes(value) {
    if (!Buffer.isBuffer(value) && !isOwn(value, Uint8Array))
      this.#refuse(`a ${nameOf(value)} would come back as a Buffer`);
    // Listing its members would list all its bytes, which takes a second for a MiB.
    if (this.#isValue && !isDeepStrictEqual(value, sameBytes(value)))
      this.#refuse("bytes with further members would come back without them");
    return value;
  }

  #date(value) {
    if (!isOwn(value, Date)) this.#refuse(`a ${nameOf(value)} would come back as a Date`);
    const time = Date.prototype.getTime.call(value);
    if (Number.isNaN(time)) this.#refuse("an invalid Date");
    if (hasOwnMembers(value, 0)) this.#refuse("a Date with further members would come back without them");
    return new Date(time);
  }

  #ext(value) {
    const { type, data } = value;
    if (hasOwnMembers(value, 2)) this.#refuse("an ExtData with further members would come back without them");
    if (type === -1) this.#refuse("an ext of type -1 is a time: give a Date");
    const isOne = Number.isInteger(type) && type >= -128 && type <= 127 && types.isUint8Array(data);
    return isOne ? new ExtData(type, data) : this.#refuse("an ext has a type from -128 to 127, and a Uint8Array");
  }

  #map(value, depth) {
    this.#nest(depth);
    if (hasOwnMembers(value, 0)) this.#refuse("a Map with further members would come back without them");
    const entries = [...Map.prototype.entries.call(value)].map(([key, item]) => {
      if (typeof key !== "string") this.#refuse("a Map whose keys are not all strings");
      return [this.#text(key), this.#inside(key, item, depth)];
    });
    return Object.fromEntries(entries);
  }

  #plain(value, depth) {
    this.#nest(depth);
    if (Object.getOwnPropertySymbols(value).length > 0) this.#refuse("it has a symbol as a key");
    const names = Object.keys(value);
    return Object.fromEntries(names.map((name) => [this.#text(name), this.#inside(name, value[name], depth)]));
  }
}

const member = (name) => (/^[\p{L}_$][\p{L}\d_$]*$/u.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`);

/** Whether it is an instance of the class itself, and of no class that extends it; it may come from another realm. */
function isOwn(value, { name }) {
  const prototype = Object.getPrototypeOf(value);
  return prototype !== null && Object.hasOwn(prototype, "constructor") && prototype.constructor.name === name;
}

/** Whether it has more own members than `known`. */
const hasOwnMembers = (value, known) =>
  Object.keys(value).length > known || Object.getOwnPropertySymbols(value).length > 0;

/** The same bytes of the same memory, without further members. */
function sameBytes(value) {
  const { buffer, byteOffset, length } = value;
  const same = Buffer.from(buffer, byteOffset, length);
  // It may be of another realm, whose Uint8Array is another class.
  return Object.setPrototypeOf(same, Object.getPrototypeOf(value));
}

/** Whether it is an object without a class. Its realm may be another, with an Object of its own. */
export function isPlain(value) {
  if (Object.prototype.toString.call(value) !== "[object Object]") return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.hasOwn(prototype, "isPrototypeOf");
}

function nameOf(value) {
  const name = Object.getPrototypeOf(value)?.constructor?.name;
  return typeof name === "string" && name !== "Object" ? name : Object.prototype.toString.call(value).slice(8, -1);
}
