/**
 * Client of vatn, a key-value store and change feed over ZeroMQ.
 *
 *     import { Client } from "vatn";
 *     const client = await Client.connect("tcp://127.0.0.1:7533");
 *     await client.set("boat", { oars: 2 });
 *     await client.get("boat");
 *
 * `Client` sends commands, `Subscriber` receives changes; the protocol is proto/PROTOCOL.md in vatn's repository.
 */

export { Client } from "./client.js";
export { Subscriber } from "./subscriber.js";
export {
  CODES, CommandError, InvalidArgument, Missed, ProtocolError, Timeout, Unreadable, Unwritable, VatnError,
} from "./errors.js";
export { ExtData } from "@msgpack/msgpack";
