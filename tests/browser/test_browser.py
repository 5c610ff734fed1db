"""No web page writes to a broker through a real browser, by any way and host that it tries."""

import http.client
import itertools
import json
import urllib.parse

import pytest
from chromium import wait
from servers import HostilePages, Relay

# Hosts by which a page in this machine's browser reaches a broker on it.
HOSTS = ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "localhost."]
NUMBERS = itertools.count()

# The action of a page on TARGET. `done` reports to its server that the browser has finished with it.
ELEMENTS = {
    "img": "<img src='TARGET' onload='done()' onerror='done()'>",
    "img, redirected": "<img src='/302?target=ESCAPED' onload='done()' onerror='done()'>",
    "script": "<script src='TARGET' onload='done()' onerror='done()'></script>",
    "iframe": "<iframe src='TARGET' onload='done()'></iframe>",
    "sandboxed iframe": "<iframe sandbox src='TARGET' onload='done()'></iframe>",
    "iframe without an origin": "<iframe sandbox='allow-scripts' srcdoc='<img src=TARGET>'></iframe>",
    "embed": "<embed src='TARGET' onload='done()' onerror='done()'>",
    "object": "<object data='TARGET' onload='done()' onerror='done()'></object>",
    "video": "<video src='TARGET' onerror='done()' autoplay></video>",
    "stylesheet": "<link rel=stylesheet href='TARGET' onload='done()' onerror='done()'>",
    "CSS url": "<div style='background: url(TARGET)'>x</div><img src='TARGET&' onerror='done()'>",
    "link prefetch": "<link rel=prefetch href='TARGET' onload='done()' onerror='done()'>",
    "link preload": "<link rel=preload as=image href='TARGET' onload='done()' onerror='done()'>",
    "icon": "<link rel=icon href='TARGET'><img src='TARGET&' onerror='done()'>",
}
SCRIPTS = {
    "fetch no-cors": "fetch('TARGET', {mode: 'no-cors'}).finally(done)",
    "fetch cors": "fetch('TARGET').catch(() => 0).finally(done)",
    "fetch HEAD": "fetch('TARGET', {mode: 'no-cors', method: 'HEAD'}).finally(done)",
    "fetch, redirected": "fetch('/302?target=ESCAPED', {mode: 'no-cors'}).finally(done)",
    "fetch without a referrer": "fetch('TARGET', {mode: 'no-cors', referrerPolicy: 'no-referrer'}).finally(done)",
    "XMLHttpRequest": "const x = new XMLHttpRequest(); x.onloadend = done; x.open('GET', 'TARGET'); x.send()",
    "beacon": "navigator.sendBeacon('TARGET', ''); fetch('TARGET&', {mode: 'no-cors'}).finally(done)",
    "WebSocket": "const w = new WebSocket('TARGET'.replace('http', 'ws')); w.onerror = w.onclose = done",
    "EventSource": "const e = new EventSource('TARGET'); e.onerror = () => { e.close(); done() }",
    "worker": "new Worker(URL.createObjectURL(new Blob([`fetch('TARGET', {mode: 'no-cors'})"
              ".finally(() => postMessage(1))`]))).onmessage = done",
}
NAVIGATIONS = {
    "location": "<script>location = 'TARGET'</script>",
    "location, redirected": "<script>location = '/302?target=ESCAPED'</script>",
    "form GET": "<form action='PATH'><input name='KEY' value=1></form><script>document.forms[0].submit()</script>",
    "form POST": "<form method=post action='TARGET'></form><script>document.forms[0].submit()</script>",
    "meta refresh": "<meta http-equiv=refresh content='0; url=TARGET'>",
    "link": "<a href='TARGET' rel='noreferrer'>x</a><script>document.links[0].click()</script>",
}
SPECULATIONS = {
    f"{kind} of {eagerness}": (kind, eagerness)
    for kind in ("prefetch", "prerender") for eagerness in ("another site", "a site of this machine")
}
WAYS = [*ELEMENTS, *SCRIPTS, *NAVIGATIONS]


def page(way, target, pages_port):
    """The text of the page that tries `way`."""
    url = urllib.parse.urlsplit(target)
    rules = {}
    if way in SPECULATIONS:
        urls = [target, f"http://127.0.0.1:{pages_port}/seen?target={target}"]
        rules = {SPECULATIONS[way][0]: [{"source": "list", "urls": urls}]}
    body = ELEMENTS.get(way) or NAVIGATIONS.get(way) or f"<script>{SCRIPTS.get(way, '')}</script>"
    body = body.replace("ESCAPED", urllib.parse.quote(target, safe="")).replace("TARGET", target)
    body = body.replace("PATH", target.partition("?")[0]).replace("KEY", url.query.partition("=")[0])
    done = f"const done = () => fetch('/done?target={urllib.parse.quote(target)}')"
    # A browser that decides to fetch neither URL does not report that.
    given_up = "<script>setTimeout(done, 3000)</script>"
    speculation = f"<script type=speculationrules>{json.dumps(rules)}</script>{given_up}" if rules else ""
    return f"<!doctype html><script>{done}</script>{speculation}<body>{body}</body>"


@pytest.fixture(scope="module")
def pages():
    pages = HostilePages(page)
    yield pages
    pages.end()


@pytest.fixture(scope="module")
def relay(broker):
    relay = Relay(int(broker.http.rpartition(":")[2]))
    yield relay
    relay.end()


def ask(port, target, host="127.0.0.1"):
    """A program's request; returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", target, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


class Attack:
    """A page of `site` that tries to have `way` write through `host`."""

    def __init__(self, browser, pages, relay, host):
        self.browser, self.pages, self.relay = browser, pages, relay
        self.key = f"k{next(NUMBERS)}x"
        self.target = f"http://{host}:{relay.port}/put?{self.key}=1"

    def visit(self, site, way):
        """The user types the page's address. Waits until its attempt is over."""
        query = urllib.parse.urlencode({"target": self.target})
        self.type(f"http://{site}:{self.pages.port}/{urllib.parse.quote(way)}?{query}")

    def type(self, url):
        session, target = self.browser.open(url)
        wait(lambda: self.is_over(session), f"nothing came of {url}")
        self.browser.close(target)

    def is_over(self, session):
        reported = any(path.startswith(("/done", "/seen")) and self.key in path for path in self.pages.seen)
        frames = self.browser.events(session, "Page.frameNavigated")
        is_blocked = any(self.key in frame["frame"].get("unreachableUrl", "") for frame in frames)
        return reported or is_blocked or bool(self.relay.statuses(self.key))

    def assert_nothing_written(self):
        statuses = self.relay.statuses(self.key)
        assert ask(self.relay.port, f"/get?key={self.key}") == 404, f"written: {statuses}"
        assert all(status in (403, 405) for status in statuses[:1]), statuses


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_page_of_another_site_writes_nothing(browser, pages, relay, way, host):
    attack = Attack(browser, pages, relay, host)
    attack.visit("evil.test", way)
    attack.assert_nothing_written()
    if host == "127.0.0.1":
        assert attack.relay.statuses(attack.key), "the browser sent a request, and the broker refused it"


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("way", SPECULATIONS)
def test_a_page_that_prefetches_a_url_writes_nothing(browser, pages, relay, way, host):
    site = "evil.test" if "another" in way else host.strip(".")
    attack = Attack(browser, pages, relay, host)
    attack.visit(site, way)
    attack.assert_nothing_written()


@pytest.mark.parametrize("host", HOSTS)
def test_a_typed_url_writes_nothing(browser, pages, relay, host):
    attack = Attack(browser, pages, relay, host)
    attack.type(attack.target)
    attack.assert_nothing_written()


@pytest.mark.parametrize("host", HOSTS)
def test_a_typed_url_that_redirects_writes_nothing(browser, pages, relay, host):
    attack = Attack(browser, pages, relay, host)
    twice = urllib.parse.quote(f"/302?target={urllib.parse.quote(attack.target, safe='')}", safe="")
    attack.type(f"http://evil.test:{pages.port}/302?target={twice}")
    attack.assert_nothing_written()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_program_writes(relay, host):
    assert ask(relay.port, f"/put?program={len(host)}", f"{host}:{relay.port}") == 201
