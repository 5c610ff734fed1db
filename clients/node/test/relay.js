/** A relay of TCP connections to a broker that a test can break. */

import { once } from "node:events";
import { connect, createServer } from "node:net";

/** `{ endpoint, cut(), mute() }`, relaying each connection to `target`, "tcp://ADDRESS:PORT". */
export async function startRelay(t, target) {
  const [host, port] = target.replace("tcp://", "").split(":");
  let pairs = [];
  const server = createServer((near) => {
    const pair = { sockets: [near, connect(port, host)], isMute: false };
    pairs.push(pair);
    const [, far] = pair.sockets;
    for (const [source, sink] of [[near, far], [far, near]]) {
      source.on("data", (data) => pair.isMute || sink.write(data));
      source.on("close", () => pair.isMute || sink.destroy());
      source.on("error", () => {});
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const relay = {
    endpoint: `tcp://127.0.0.1:${server.address().port}`,
    /** Ends the open connections; new ones are relayed. */
    cut() {
      for (const { sockets } of pairs) sockets.forEach((socket) => socket.destroy());
      pairs = [];
    },
    /** Open connections stay open, but relay nothing any more; new ones are relayed. */
    mute() {
      for (const pair of pairs) pair.isMute = true;
    },
  };
  t.after(() => {
    server.close();
    relay.cut();
  });
  return relay;
}
