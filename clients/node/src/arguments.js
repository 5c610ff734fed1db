/** Arguments: a value that a mistake would change in silence is refused before anything is sent. */

import { types } from "node:util";
import { lookup } from "node:dns/promises";
import { InvalidArgument } from "./errors.js";
import { after } from "./timer.js";
import { isPlain } from "./writable.js";

// How long the addresses of a name are waited for.
const LOOKUP_MS = 2_000;

const shown = (given) => {
  if (typeof given === "string") return JSON.stringify(given.slice(0, 80));
  if (typeof given !== "object" || given === null) return String(given).slice(0, 80);
  return `a ${Object.prototype.toString.call(given).slice(8, -1)}`;
};

/** A key or another text: a string in Unicode, or bytes. */
export function asKey(given, name = "key") {
  if (types.isUint8Array(given)) return given;
  if (typeof given !== "string")
    throw new InvalidArgument(`${name} must be a string or a Uint8Array, not ${shown(given)}`);
  if (!given.isWellFormed()) throw new InvalidArgument(`${name} is a string that is not Unicode: give bytes`);
  return given;
}

export const asKeys = (given) =>
  list(given, "keys must be an array of keys").map((key, place) => asKey(key, `keys[${place}]`));

export function asPairs(given) {
  const what = "pairs must be a Map, a plain object, or an array of [key, value]";
  const isObject = given !== null && typeof given === "object" && !isIterable(given);
  if (isObject && (!isPlain(given) || Object.getOwnPropertySymbols(given).length > 0)) {
    throw new InvalidArgument(`${what}, not ${shown(given)}`);
  }
  return (isObject ? Object.entries(given) : list(given, what)).map((pair, place) => {
    if (!Array.isArray(pair) || pair.length !== 2)
      throw new InvalidArgument(`${what}: pairs[${place}] is ${shown(pair)}`);
    return [asKey(pair[0], `the key of pairs[${place}]`), pair[1]];
  });
}

export function asCommands(given) {
  const what = "commands must be an array of [method, params]";
  return list(given, what).map((command, place) => {
    const isOne = Array.isArray(command) && command.length === 2 && Array.isArray(command[1]);
    if (!isOne || (typeof command[0] !== "string" && !types.isUint8Array(command[0])))
      throw new InvalidArgument(`${what}: commands[${place}] is ${shown(command)}`);
    return [command[0], command[1]];
  });
}

/** Positional arguments, and the options that were given: those that are undefined or null count as not given. */
export function withOptions(positional, options) {
  if (options === undefined || options === null) return positional;
  if (typeof options !== "object" || !isPlain(options)) {
    throw new InvalidArgument(`options must be a plain object, not ${shown(options)}`);
  }
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
  return given.length > 0 ? [...positional, Object.fromEntries(given)] : positional;
}

/** The settings of a connection, of which these are known. */
export function asSettings(given, known) {
  const [settings = {}] = withOptions([], given);
  const unknown = Object.keys(settings).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new InvalidArgument(`unknown option ${unknown}: there are ${known.join(", ")}`);
  return settings;
}

/** A time in milliseconds, from 0 to Infinity. */
export function asMs(given, name) {
  if (typeof given === "number" && given >= 0) return given;
  throw new InvalidArgument(`${name} must be a number of milliseconds from 0 on, not ${shown(given)}`);
}

/** A seq, as a number. */
export function asSeq(given, name) {
  if ((typeof given === "number" && given >= 0) || (typeof given === "bigint" && given >= 0n)) return Number(given);
  throw new InvalidArgument(`${name} must be a seq, not ${shown(given)}`);
}

export function asEndpoint(given) {
  if (typeof given === "string") return given;
  throw new InvalidArgument(`endpoint must be a string like "tcp://127.0.0.1:7533", not ${shown(given)}`);
}

/** Connects a socket; closes it where that is no endpoint. */
export function connectSocket(socket, endpoint) {
  try {
    socket.connect(endpoint);
  } catch (cause) {
    // Pending events would keep the process alive.
    socket.close();
    const what = `${shown(endpoint)} is no endpoint: ${cause.message}; give one like "tcp://127.0.0.1:7533"`;
    throw new InvalidArgument(what, { cause });
  }
}

/** Whether it is reached over IPv6 alone. libzmq resolves a name to one address: with IPv6 on, `localhost` to ::1. */
export async function needsIpv6(endpoint) {
  const host = /^tcp:\/\/(?:.*;)?(.*):[^:]*$/.exec(endpoint)?.[1];
  if (!host) return false;
  if (host.includes(":")) return true;
  // A resolver that does not answer takes longer than a client may.
  let callOff;
  const late = new Promise((resolve) => (callOff = after(LOOKUP_MS, () => resolve([]))));
  const found = await Promise.race([lookup(host, { all: true }).catch(() => []), late]);
  callOff();
  return found.length > 0 && found.every(({ family }) => family === 6);
}

const isIterable = (given) => typeof given?.[Symbol.iterator] === "function";

function list(given, what) {
  const isText = typeof given === "string" || types.isBoxedPrimitive(given) || ArrayBuffer.isView(given);
  if (isText || !isIterable(given)) {
    throw new InvalidArgument(`${what}, not ${shown(given)}`);
  }
  return [...given];
}
