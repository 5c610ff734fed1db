"""The two servers of a browser test: one with hostile pages, and a relay that sees the requests to the broker."""

import http.server
import re
import socket
import threading
import urllib.parse

REQUEST = re.compile(rb"(?:GET|HEAD|POST|OPTIONS) (\S+) HTTP/1\.1\r\n")
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


class HostilePages:
    """Serves `page(way, target, port)` at /WAY?target=URL, redirects to the target at /302, and records paths."""

    def __init__(self, page):
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                target = urllib.parse.parse_qs(url.query).get("target", [""])[0]
                way = urllib.parse.unquote(url.path.strip("/"))
                if way == "302":
                    self.send_response(302)
                    self.send_header("Location", target)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = page(way, target, self.server.server_address[1])
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())
                seen.append(self.path)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Relay:
    """Relays connections to the broker, and records targets and statuses: `answers` has (target, status)."""

    def __init__(self, broker_port):
        self.broker_port = broker_port
        self.answers = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self.broker_port))
            targets = []
            for source, sink, note in [(client, broker, self._ask), (broker, client, self._answer)]:
                threading.Thread(target=self._pump, args=(source, sink, note, targets), daemon=True).start()

    def _pump(self, source, sink, note, targets):
        try:
            while data := source.recv(1 << 16):
                note(data, targets)
                sink.sendall(data)
        except OSError:
            pass
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _ask(self, data, targets):
        targets.extend(target.decode() for target in REQUEST.findall(data))

    def _answer(self, data, targets):
        for status in STATUS.findall(data):
            if targets:
                self.answers.append((targets.pop(0), int(status)))

    def statuses(self, key):
        """The statuses of the answers to requests whose target contains `key`."""
        return [status for target, status in list(self.answers) if key in target]

    def end(self):
        self.listener.close()
