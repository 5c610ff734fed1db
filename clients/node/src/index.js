/**
 * Client of vatn, a networked message-queue store over ZeroMQ.
 *
 *     import { Client } from "vatn";
 *     const lake = await Client.connect("tcp://127.0.0.1:7533");
 *     await lake.set("boat", { oars: 2 });
 *     await lake.get("boat");
 *
 * `Client` sends commands, `Subscriber` hears of changes; the protocol is proto/PROTOCOL.md in vatn's repository.
 */

export { Client } from "./client.js";
export { Subscriber } from "./subscriber.js";
export { CODES, CommandError, Missed, ProtocolError, Timeout, Unreadable, Unwritable, VatnError } from "./errors.js";
export { ExtData } from "@msgpack/msgpack";
