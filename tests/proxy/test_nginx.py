"""A broker behind an nginx that only has `proxy_pass`."""

import contextlib
import shutil
import socket
import subprocess
import time

import pytest
from broker import Broker

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen unix:{folder}/nginx.sock; location / {{ proxy_pass {broker}; }} }}
}}
"""
ATTEMPTS = 3

pytestmark = pytest.mark.skipif(
    not NGINX, reason="tests/proxy did not run: there is no nginx (apt-get install nginx-light)")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("broker") / "store")
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, broker):
    """The path of the socket on which nginx listens."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "conf").write_text(CONFIGURATION.format(folder=folder, broker=broker.http))
    process = subprocess.Popen([NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "conf")])
    deadline = time.monotonic() + 30
    while not (folder / "nginx.sock").exists():
        assert process.poll() is None and time.monotonic() < deadline, (folder / "error.log").read_text()
        time.sleep(0.02)
    yield str(folder / "nginx.sock")
    process.terminate()
    process.wait(30)


@contextlib.contextmanager
def requested(proxy, target, *headers):
    """A connection to the proxy on which `GET target` was sent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(proxy)
        lines = [f"GET {target} HTTP/1.1", "Host: vatn.example", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        yield connection


def read_until(connection, text):
    received = b""
    while text not in received and (data := connection.recv(1 << 16)):
        received += data
    return received.decode()


def answer(proxy, target, *headers):
    with requested(proxy, target, *headers) as connection:
        return read_until(connection, b"no such text")


def test_events_come_when_they_happen(proxy):
    assert answer(proxy, "/put?first=1").startswith("HTTP/1.1 201")
    for attempt in range(ATTEMPTS):
        with requested(proxy, "/changes?from=0", "Accept: text/event-stream") as stream:
            received = read_until(stream, b'"first"')
            assert '"first"' in received
            # A buffered event would come with the comment that follows some seconds later.
            if ": nothing" in received:
                continue
            assert answer(proxy, f"/put?second{attempt}=2").startswith("HTTP/1.1 201")
            received = read_until(stream, f'"second{attempt}"'.encode())
            if ": nothing" not in received:
                return
    pytest.fail("events were held back until others came")


def test_all_answers_pass(proxy):
    assert answer(proxy, "/put?a=1&b=2").startswith("HTTP/1.1 201")
    whole = answer(proxy, "/get?key=a&key=b")
    assert whole.endswith('{"a":"1","b":"2"}') and "Vatn-Store-Id" in whole.title()
    assert answer(proxy, "/get?key=none").startswith("HTTP/1.1 404")
    assert answer(proxy, "/changes?from=999999").startswith("HTTP/1.1 410")


def test_a_page_behind_the_proxy_writes_nothing(proxy):
    for header in ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"):
        assert answer(proxy, "/put?evil=1", header).startswith("HTTP/1.1 403"), header
    assert answer(proxy, "/get?key=evil").startswith("HTTP/1.1 404")
