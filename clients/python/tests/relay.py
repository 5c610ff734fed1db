"""A relay of TCP connections to a broker that a test can break."""

import socket
import threading


class Relay:
    """Listens at `endpoint`, and relays each connection to `target`, both "tcp://ADDRESS:PORT"."""

    def __init__(self, target):
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Ends the open connections; new ones are relayed."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    def mute(self):
        """Open connections stay open, but relay nothing any more; new ones are relayed."""
        for pair in self._pairs:
            pair.is_mute = True

    def close(self):
        self._listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._pairs.append(Pair(near, socket.create_connection(self._target)))
            except OSError:
                near.close()


class Pair:
    """One relayed connection."""

    def __init__(self, near, far):
        self.is_mute = False
        self._sockets = (near, far)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def close(self):
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _pump(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                if not self.is_mute:
                    sink.sendall(data)
        except OSError:
            pass
        if not self.is_mute:
            self.close()
