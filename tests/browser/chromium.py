"""A headless Chromium, driven over its DevTools pipe: no package is needed for that."""

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

SECONDS = 30
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]


def path():
    """The browser, or None where there is none; CHROMIUM names another one."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """A browser with a profile of its own in `directory`. `rules` maps host names to addresses."""

    def __init__(self, directory, rules):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # It reads its descriptor 3 and writes its descriptor 4; these must not lie there before.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]
        arguments = [path(), *ARGUMENTS, f"--user-data-dir={directory}", f"--host-resolver-rules={rules}"]
        self.log = open(pathlib.Path(directory).with_suffix(".log"), "w")
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "bash", *arguments, "about:blank"],
            pass_fds=high, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        for fd in [theirs_in, theirs_out, *high]:
            os.close(fd)
        self._in, self._out = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._changed = threading.Condition()
        self._answers, self._events, self._last_id = {}, [], 0
        threading.Thread(target=self._read, daemon=True).start()
        self.call("Browser.getVersion")

    def _read(self):
        rest = b""
        while data := self._in.read1(1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            with self._changed:
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers[message["id"]] = message
                    else:
                        self._events.append(message)
                self._changed.notify_all()

    def call(self, method, session=None, **params):
        """Runs a DevTools command; returns its result."""
        with self._changed:
            self._last_id += 1
            number = self._last_id
            message = {"id": number, "method": method, "params": params}
            if session:
                message["sessionId"] = session
            self._out.write(json.dumps(message).encode() + b"\0")
            self._out.flush()
            assert self._changed.wait_for(lambda: number in self._answers, SECONDS), f"no answer to {method}"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    def events(self, session, method):
        """The events of that name that a tab has had."""
        with self._changed:
            return [e["params"] for e in self._events if e.get("sessionId") == session and e["method"] == method]

    def open(self, url):
        """A new tab, whose user types `url`; returns its session."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable", session)
        self.call("Page.navigate", session, url=url, transitionType="typed")
        return session, target

    def close(self, target):
        self.call("Target.closeTarget", targetId=target)

    def end(self):
        self._out.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def wait(condition, what):
    """Waits until a condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
