//! The HTTP edge of a real broker, row by row as FlatDB answers, and where it differs on purpose.

use crate::support::broker::Broker;
use crate::support::http::{Connection, Response};
use rmpv::Value;
use serde_json::json;
use vatn::client::{Client, ClientOptions, RawValue, WriteOptions};

/// A request with its further headers; the expected status and body. A body that ends with `…` is
/// the start of one. Rows build on each other: the store is empty before the first.
type Row = (&'static str, &'static [&'static str], u16, &'static str);

const NONE: &[&str] = &[];

/// A URL that a user types, and whatever it redirects to.
const NAVIGATION: &[&str] = &["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"];
/// A browser that names no page, as all do to hosts other than loopback.
const OLD_BROWSER: &[&str] = &["User-Agent: Mozilla/5.0 (X11; Linux)", "Accept-Language: en"];

/// FlatDB's table.
const FLATDB: &[Row] = &[
    // `/get` without `key`; with keys of which none, some, all are found; with a repeated key.
    ("GET /get", NONE, 204, ""),
    ("GET /get?other=a", NONE, 204, ""),
    ("GET /get?key=a", NONE, 404, ""),
    ("GET /put?a=1&b=2", NONE, 201, ""),
    ("GET /get?key=a", NONE, 200, r#"{"a":"1"}"#),
    ("GET /get?key=b&key=zz&key=a&key=b", NONE, 200, r#"{"b":"2","a":"1"}"#),
    ("GET /get?key=zz&key=yy", NONE, 404, ""),
    // The empty key.
    ("GET /get?key=", NONE, 404, ""),
    ("GET /put?=v", NONE, 201, ""),
    ("GET /get?key=", NONE, 200, r#"{"":"v"}"#),
    ("GET /get?key", NONE, 200, r#"{"":"v"}"#),
    // `/put`: nothing, twice the same key, no value, a key called `key`.
    ("GET /put", NONE, 201, ""),
    ("GET /put?", NONE, 201, ""),
    ("GET /put?&&", NONE, 201, ""),
    ("GET /put?twice=1&twice=2", NONE, 201, ""),
    ("GET /get?key=twice", NONE, 200, r#"{"twice":"2"}"#),
    ("GET /put?bare", NONE, 201, ""),
    ("GET /get?key=bare", NONE, 200, r#"{"bare":""}"#),
    ("GET /put?key=x", NONE, 201, ""),
    ("GET /get?key=key", NONE, 200, r#"{"key":"x"}"#),
    ("GET /put?eq=a=b=", NONE, 201, ""),
    ("GET /get?key=eq", NONE, 200, r#"{"eq":"a=b="}"#),
    // `;`, `+`, `%zz`.
    ("GET /put?s=1;t=2", NONE, 201, ""),
    ("GET /get?key=s&key=t", NONE, 200, r#"{"s":"1;t=2"}"#),
    ("GET /put?p+q=r+s%2B", NONE, 201, ""),
    ("GET /get?key=p%20q", NONE, 200, r#"{"p q":"r s+"}"#),
    ("GET /put?z=%zz%4", NONE, 201, ""),
    ("GET /get?key=z", NONE, 200, r#"{"z":"%zz%4"}"#),
    ("GET /put?raw=\"<a>#`{|}\\^[]'", NONE, 201, ""),
    ("GET /get?key=raw", NONE, 200, r#"{"raw":"\"<a>#`{|}\\^[]'"}"#),
    ("GET /put?control=%00%01%0A%22%5C%7F", NONE, 201, ""),
    ("GET /get?key=control", NONE, 200, "{\"control\":\"\\u0000\\u0001\\n\\\"\\\\\u{7f}\"}"),
    ("GET /delete?key=raw&key=control&key=p+q&key=z&key=s&key=eq&key=key", NONE, 200, ""),
    // `/getrange`: the remaining keys are "", a, b, bare, twice.
    ("GET /getrange", NONE, 200, r#"{"":"v","a":"1","b":"2","bare":"","twice":"2"}"#),
    ("GET /getrange?from=", NONE, 200, r#"{"":"v","a":"1","b":"2","bare":"","twice":"2"}"#),
    ("GET /getrange?from=b", NONE, 200, r#"{"b":"2","bare":"","twice":"2"}"#),
    ("GET /getrange?from=c&from=a", NONE, 200, r#"{"twice":"2"}"#),
    ("GET /getrange?from=%62%61", NONE, 200, r#"{"bare":"","twice":"2"}"#),
    ("GET /getrange?from=z", NONE, 404, ""),
    ("GET /getrange?from=%FF", NONE, 404, ""),
    // `/delete`: always 200.
    ("GET /delete?key=a&key=zz&key=a", NONE, 200, ""),
    ("GET /get?key=a", NONE, 404, ""),
    ("GET /delete?key=a", NONE, 200, ""),
    ("GET /delete", NONE, 200, ""),
    ("GET /delete?b", NONE, 200, ""),
    ("GET /get?key=b", NONE, 200, r#"{"b":"2"}"#),
    // HEAD runs the view, OPTIONS does not, other methods are not allowed.
    ("HEAD /put?head=1", NONE, 201, ""),
    ("HEAD /get?key=head", NONE, 200, ""),
    ("GET /get?key=head", NONE, 200, r#"{"head":"1"}"#),
    ("HEAD /delete?key=head", NONE, 200, ""),
    ("HEAD /get?key=head", NONE, 404, ""),
    ("HEAD /getrange?from=twice", NONE, 200, ""),
    ("HEAD /get", NONE, 204, ""),
    ("OPTIONS /put?options=1", NONE, 200, ""),
    ("OPTIONS /delete?key=b", NONE, 200, ""),
    ("GET /get?key=options&key=b", NONE, 200, r#"{"b":"2"}"#),
    ("POST /put?post=1", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#),
    ("PUT /put?post=1", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#),
    ("DELETE /delete?key=b", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#),
    ("PATCH /get?key=b", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#),
    ("TRACE /getrange", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#),
    ("WHATEVER /get?key=b", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#),
    ("GET /get?key=post&key=b", NONE, 200, r#"{"b":"2"}"#),
    // Paths.
    ("GET /nowhere", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("GET /", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("GET /get/?key=b", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("GET /get/b", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("GET /GET?key=b", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("GET /get%3Fkey=b", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("GET /get#?key=b", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("POST /nowhere", NONE, 404, r#"{"error":"NO_SUCH_PATH",…"#),
    ("GET //get?key=b", NONE, 200, r#"{"b":"2"}"#),
    ("GET ///get?key=b", NONE, 200, r#"{"b":"2"}"#),
    ("GET /%67et?key=b", NONE, 200, r#"{"b":"2"}"#),
    ("GET /%67%65%74?key=%62", NONE, 200, r#"{"b":"2"}"#),
];

/// Deliberate differences from FlatDB.
const ON_PURPOSE: &[Row] = &[
    // UTF-8, escaped and raw; bytes that are not UTF-8.
    ("GET /put?%C3%B8=%E6%BC%A2", NONE, 201, ""),
    ("GET /get?key=ø", NONE, 200, r#"{"ø":"漢"}"#),
    ("GET /put?ø=a space", NONE, 400, r#"{"error":"BAD_REQUEST",…"#),
    ("GET /put?ø=raw+漢", NONE, 201, ""),
    ("GET /get?key=%C3%B8", NONE, 200, r#"{"ø":"raw 漢"}"#),
    ("GET /put?%FEk%26=%FF%00a", NONE, 201, ""),
    ("GET /get?key=%FEk%26", NONE, 200, r#"{"%FEk%26":{"base64":"/wBh"}}"#),
    ("GET /getrange?from=%FE", NONE, 200, r#"{"%FEk%26":{"base64":"/wBh"}}"#),
    // Reserved keys are refused, and no other pair of their batch is written.
    ("GET /put?ok=1&%FFx=1", NONE, 400, r#"{"error":"BAD_KEY",…"#),
    ("GET /get?key=ok", NONE, 404, ""),
    ("GET /get?key=ok&key=%FF", NONE, 400, r#"{"error":"BAD_KEY",…"#),
    ("GET /delete?key=ok&key=%FF", NONE, 400, r#"{"error":"BAD_KEY",…"#),
    // `/getrange` in key order, with `to`, `prefix` and `limit`.
    ("GET /put?b3=3&b1=1&c=4&b2=2&b=0", NONE, 201, ""),
    ("GET /getrange?prefix=b", NONE, 200, r#"{"b":"0","b1":"1","b2":"2","b3":"3"}"#),
    ("GET /getrange?prefix=b&from=b2", NONE, 200, r#"{"b2":"2","b3":"3"}"#),
    ("GET /getrange?prefix=b&limit=2", NONE, 200, r#"{"b":"0","b1":"1"}"#),
    ("GET /getrange?from=b1&to=b3", NONE, 200, r#"{"b1":"1","b2":"2"}"#),
    ("GET /getrange?to=b1", NONE, 200, r#"{"b":"0"}"#),
    ("GET /getrange?from=b3&to=b1", NONE, 404, ""),
    ("GET /getrange?prefix=zz", NONE, 404, ""),
    ("GET /getrange?limit=1&to=&prefix=", NONE, 200, r#"{"b":"0"}"#),
    ("GET /getrange?limit=", NONE, 200, r#"{"b":"0",…"#),
    ("GET /getrange?form=b", NONE, 400, r#"{"error":"BAD_ARGUMENT","message":"form: there is…"#),
    ("GET /getrange?from=zzz&bogus=1", NONE, 400, r#"{"error":"BAD_ARGUMENT",…"#),
    ("GET /getrange?limit=1&limit=3", NONE, 200, r#"{"b":"0"}"#),
    ("GET /getrange?limit=0", NONE, 400, r#"{"error":"BAD_ARGUMENT",…"#),
    ("GET /getrange?limit=-1", NONE, 400, r#"{"error":"BAD_ARGUMENT",…"#),
    ("GET /getrange?limit=1e3", NONE, 400, r#"{"error":"BAD_ARGUMENT",…"#),
    ("GET /getrange?limit=99999999999999999999", NONE, 400, r#"{"error":"BAD_ARGUMENT",…"#),
    // A write's durability is in a header: in the query every name is a key.
    ("GET /put?level=1", &["Vatn-Durability: memory"], 201, ""),
    ("GET /put?durability=synced", &["vatn-durability: synced"], 201, ""),
    ("GET /get?key=durability&key=level", NONE, 200, r#"{"durability":"synced","level":"1"}"#),
    ("GET /put?level=2", &["Vatn-Durability: forever"], 400, r#"{"error":"BAD_ARGUMENT",…"#),
    ("GET /delete?key=level", &["Vatn-Durability: queued"], 200, ""),
    ("GET /healthz", NONE, 200, r#"{"status":"ok"}"#),
    ("HEAD /healthz", NONE, 200, ""),
    ("POST /healthz", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#),
    // A write caused by another site's page; a read needs no such check, as its answer is hidden.
    ("GET /put?x=1", &["Origin: http://evil.example"], 403, r#"{"error":"FOREIGN_ORIGIN",…"#),
    ("GET /put?x=1", &["Origin: null"], 403, r#"{"error":"FOREIGN_ORIGIN",…"#),
    ("GET /put?x=1", &["Origin: http://127.0.0.1:1"], 403, r#"{"error":"FOREIGN_ORIGIN",…"#),
    ("GET /put?x=1", &["Sec-Fetch-Site: cross-site"], 403, r#"{"error":"FOREIGN_ORIGIN",…"#),
    ("GET /put?x=1", &["Sec-Fetch-Site: same-site"], 403, r#"{"error":"FOREIGN_ORIGIN",…"#),
    ("HEAD /put?x=1", &["Sec-Fetch-Site: cross-site"], 403, ""),
    ("GET /delete?key=c", &["Sec-Fetch-Site: cross-site"], 403, r#"{"error":"FOREIGN_ORIGIN",…"#),
    ("GET /delete?key=c", &["Origin: https://evil.example"], 403, r#"{"error":"FOREIGN_ORIGIN",…"#),
    ("GET /get?key=x&key=c", NONE, 200, r#"{"c":"4"}"#),
    ("GET /put?x=2", &["Sec-Fetch-Site: none"], 201, ""),
    ("GET /put?x=3", &["Sec-Fetch-Site: same-origin", "Origin: http://127.0.0.1"], 201, ""),
    ("GET /get?key=x", &["Sec-Fetch-Site: cross-site"], 200, r#"{"x":"3"}"#),
    // A browser opens or fetches this ahead of time; a page can cause both.
    ("GET /put?x=4", NAVIGATION, 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("HEAD /put?x=4", NAVIGATION, 403, ""),
    ("GET /%70ut?x=4", NAVIGATION, 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET //put?x=4", NAVIGATION, 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET http://127.0.0.1/%70ut?x=4", NAVIGATION, 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET /delete?key=x", NAVIGATION, 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET /put?x=4", &["Sec-Fetch-Mode: navigate"], 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET /put?x=4", &["Sec-Purpose: prefetch"], 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET /put?x=4", &["Sec-Purpose: prefetch;prerender"], 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET /put?x=4", OLD_BROWSER, 403, r#"{"error":"BROWSER_WRITE",…"#),
    ("GET http://0.0.0.0/put?x=4", NONE, 403, r#"{"error":"FOREIGN_HOST",…"#),
    ("GET http://0.0.0.0/%70ut?x=4", NONE, 403, r#"{"error":"FOREIGN_HOST",…"#),
    ("GET http://evil.example/put?x=4", NONE, 403, r#"{"error":"FOREIGN_HOST",…"#),
    ("GET /get?key=x", NAVIGATION, 200, r#"{"x":"3"}"#),
    ("OPTIONS /put?x=4", &["Origin: http://evil.example"], 200, ""),
    ("GET /get?key=x", NONE, 200, r#"{"x":"3"}"#),
];

/// Sends a row's request and checks the answer.
fn check(connection: &mut Connection, (line, headers, status, body): &Row) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
    connection.send(request.as_bytes());
    let response = connection.response(line.starts_with("HEAD "));
    assert_eq!(response.status, *status, "{line}: {response:?}");
    match body.strip_suffix('…') {
        Some(start) => assert!(response.text().starts_with(start), "{line}: {response:?}"),
        None => assert_eq!(response.text(), *body, "{line}"),
    }
    check_headers(line, &response);
}

/// Checks that apply to every answer.
fn check_headers(line: &str, response: &Response) {
    let header = |name| response.header(name);
    assert_eq!(response.version, "HTTP/1.1", "{line}");
    assert_eq!(header("content-type"), Some("application/json"), "{line}");
    assert_eq!(header("x-content-type-options"), Some("nosniff"), "{line}");
    assert_eq!(header("cache-control"), Some("no-store"), "{line}");
    assert!(header("date").is_some(), "{line}");
    assert!(!response.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{line}");
    assert_eq!(header("vatn-store-id").map(str::len), Some(32), "{line}");
    // HTTP forbids a length with 204, which has no body; for HEAD nothing is rendered, so there is
    // no length.
    if !line.starts_with("HEAD ") {
        assert_eq!(header("content-length").is_some(), response.status != 204, "{line}");
    }
    if response.status == 405 || line.starts_with("OPTIONS") {
        assert_eq!(header("allow"), Some("HEAD, OPTIONS, GET"), "{line}");
    }
}

#[test]
fn a_client_that_takes_the_broker_for_a_proxy_gets_an_error() {
    let broker = Broker::start(&[]);
    let mut connection = Connection::open(&broker.http);
    let row = ("CONNECT other.example:443", NONE, 405, r#"{"error":"METHOD_NOT_ALLOWED",…"#);
    check(&mut connection, &row);
    assert!(connection.is_closed(), "it may go on with bytes of another protocol");
}

#[test]
fn every_row_over_connections_of_their_own() {
    for table in [FLATDB, ON_PURPOSE] {
        let broker = Broker::start(&[]);
        for row in table {
            check(&mut Connection::open(&broker.http), row);
        }
    }
}

#[test]
fn every_row_over_one_connection() {
    for table in [FLATDB, ON_PURPOSE] {
        let broker = Broker::start(&[]);
        let mut connection = Connection::open(&broker.http);
        for row in table {
            check(&mut connection, row);
            if row.0.matches(' ').count() > 1 {
                assert!(connection.is_closed(), "nothing is read after garbage");
                connection = Connection::open(&broker.http);
            }
        }
    }
}

#[test]
fn head_has_the_status_of_get_and_no_different_length() {
    let broker = Broker::start(&[]);
    let mut connection = Connection::open(&broker.http);
    connection.ask("GET /put?a=1&b=22");
    for target in ["/get?key=a&key=b", "/get?key=zz", "/get", "/getrange", "/healthz", "/nowhere"] {
        let get = connection.ask(&format!("GET {target}"));
        let head = connection.ask(&format!("HEAD {target}"));
        assert_eq!(head.status, get.status, "{target}");
        let length = head.header("content-length");
        assert!(length.is_none() || length == get.header("content-length"), "{target}");
    }
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let broker = Broker::start(&[]);
    for headers in ["", "Host: localhost\r\n", "Connection: keep-alive\r\n"] {
        let mut connection = Connection::open(&broker.http);
        connection.send(format!("GET /put?a=1 HTTP/1.0\r\n{headers}\r\n").as_bytes());
        let response = connection.response(false);
        assert_eq!((response.status, response.version.as_str()), (201, "HTTP/1.0"), "{headers}");
        assert_eq!(response.header("connection"), Some("close"), "{headers}");
        assert!(connection.is_closed(), "{headers}");
    }
}

#[test]
fn a_request_line_of_8192_bytes_is_too_long_and_one_of_8191_is_not() {
    let broker = Broker::start(&[]);
    for (len, status) in [(8_191, 201), (8_192, 414), (8_193, 414), (60_000, 414), (300_000, 414)] {
        let frame = "GET /put?a= HTTP/1.1\r\n".len();
        let line = format!("GET /put?a={} HTTP/1.1\r\n", "x".repeat(len - frame));
        assert_eq!(line.len(), len);
        let mut connection = Connection::open(&broker.http);
        connection.send(format!("{line}Host: localhost\r\n\r\n").as_bytes());
        assert_eq!(connection.response(false).status, status, "{len} bytes");
    }
    let stored = Connection::open(&broker.http).ask("GET /get?key=a");
    assert_eq!(stored.json()["a"].as_str().map(str::len), Some(8_191 - 22));
}

#[test]
fn garbage_is_a_bad_request_and_the_end_of_its_connection() {
    let broker = Broker::start(&[]);
    let garbage: &[&[u8]] = &[
        b"hello\r\n",
        b"\x00\x01\x02\x03",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /get\r\n\r\n",
        b"GET /get HTTP/1.1 HTTP/1.1\r\n\r\n",
        b"GET /get HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /get\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /get HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"GET /get HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n",
        b"GET /get HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET get HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /get HTTP/1.1\r\n\r\n",
        b"GET /get HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    ];
    for bytes in garbage {
        let mut connection = Connection::open(&broker.http);
        connection.send(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(connection.response(false).status, 400, "{shown:?}");
        assert!(connection.is_closed(), "{shown:?}");
    }
}

#[test]
fn only_addresses_localhost_and_configured_names_are_served() {
    let broker = Broker::start(&["--http-host-name", "store.example", "--http-host-name", "b"]);
    let status = |host: &str| {
        let mut connection = Connection::open(&broker.http);
        connection.send(format!("GET /get HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let response = connection.response(false);
        let is_told = response.status != 403 || response.json()["error"] == "FOREIGN_HOST";
        assert!(is_told, "{response:?}");
        response.status
    };
    for host in ["127.0.0.1:7532", "192.0.2.7", "[::1]:7532", "localhost", "Store.Example:80", "b"]
    {
        assert_eq!(status(host), 204, "{host}");
    }
    for host in ["", "evil.example", "127.0.0.1.evil.example", "example", "b.evil.example:7532"] {
        assert_eq!(status(host), 403, "{host}");
    }
}

#[test]
fn a_write_names_a_host_that_no_page_reaches_unseen() {
    let broker = Broker::start(&["--http-host-name", "store.example"]);
    let written = |host: &str| {
        let mut connection = Connection::open(&broker.http);
        connection.send(format!("GET /put?x=1 HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let response = connection.response(false);
        let is_told = response.status == 201 || response.json()["error"] == "FOREIGN_HOST";
        assert!(is_told, "{host}: {response:?}");
        response.status == 201
    };
    for host in ["127.0.0.1", "127.9.9.9:1", "[::1]:7532", "LOCALHOST:7532", "Store.example."] {
        assert!(written(host), "{host}");
    }
    for host in
        ["0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "192.0.2.7", "localhost."]
    {
        assert!(!written(host), "{host}");
    }
}

#[test]
fn a_url_opened_in_a_browser_writes_only_where_the_operator_allows_it() {
    let broker = Broker::start(&["--allow-browser-writes"]);
    let mut connection = Connection::open(&broker.http);
    check(&mut connection, &("GET /put?x=1", NAVIGATION, 201, ""));
    check(&mut connection, &("GET /put?x=2", OLD_BROWSER, 201, ""));
    let ahead = &["Sec-Fetch-Site: none", "Sec-Purpose: prefetch"];
    check(&mut connection, &("GET /put?x=3", ahead, 403, r#"{"error":"BROWSER_WRITE",…"#));
    let foreign = &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"];
    check(&mut connection, &("GET /put?x=3", foreign, 403, r#"{"error":"FOREIGN_ORIGIN",…"#));
    check(&mut connection, &("GET /get?key=x", NONE, 200, r#"{"x":"2"}"#));
}

#[test]
fn a_range_longer_than_a_page_is_chunked_and_whole() {
    let broker = Broker::start(&["--range-items", "100", "--durability", "queued"]);
    let mut connection = Connection::open(&broker.http);
    let keys: Vec<String> = (0..2_500).map(|number| format!("key{number:04}")).collect();
    for part in keys.chunks(250) {
        let pairs: Vec<String> = part.iter().map(|key| format!("{key}={key}")).collect();
        assert_eq!(connection.ask(&format!("GET /put?{}", pairs.join("&"))).status, 201);
    }
    let read = |response: Response| -> Vec<String> {
        response.json().as_object().unwrap().keys().cloned().collect()
    };
    let all = connection.ask("GET /getrange");
    assert_eq!(all.header("transfer-encoding"), Some("chunked"));
    assert_eq!(all.header("content-length"), None);
    assert_eq!(read(all), keys);
    let page = connection.ask("GET /getrange?limit=100");
    assert!(page.header("content-length").is_some());
    assert_eq!(read(page), keys[..100]);
    assert_eq!(read(connection.ask("GET /getrange?limit=101")), keys[..101]);
    let part = connection.ask("GET /getrange?from=key0333&to=key1777");
    assert_eq!(read(part), keys[333..1_777]);
    assert_eq!(connection.ask("HEAD /getrange").status, 200);
    assert_eq!(connection.ask("GET /get?key=key0000").status, 200);
}

/// Every MessagePack type, as a client writes it and as its JSON form.
fn values() -> Vec<(Value, serde_json::Value)> {
    let map = |pairs: &[(Value, Value)]| Value::Map(pairs.to_vec());
    vec![
        (Value::Nil, json!(null)),
        (Value::from(true), json!(true)),
        (Value::from(-1), json!(-1)),
        (Value::from(u64::MAX), json!(u64::MAX)),
        (Value::from(i64::MIN), json!(i64::MIN)),
        (Value::from(0.1), json!(0.1)),
        (Value::F32(0.5), json!(0.5)),
        (Value::F64(f64::NAN), json!(null)),
        (Value::from("ø \"quoted\"\n"), json!("ø \"quoted\"\n")),
        (Value::Binary(b"text".to_vec()), json!({"base64": "dGV4dA=="})),
        (Value::Ext(-1, vec![0, 0, 0, 1]), json!({"ext": [-1, "AAAAAQ=="]})),
        (Value::Array(vec![Value::from(1), Value::Nil]), json!([1, null])),
        (map(&[(Value::from("a"), map(&[]))]), json!({"a": {}})),
        (map(&[(Value::from(1), Value::from(2))]), json!({"1": 2})),
        (map(&[(Value::Nil, Value::from(2))]), json!({"null": 2})),
        (map(&[(Value::Array(vec![1.into()]), Value::from(2))]), json!({"[1]": 2})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn values_set_over_zeromq_are_rendered_by_type_and_the_other_way_round() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker.router, &ClientOptions::default()).await.unwrap();
    let mut http = Connection::open(&broker.http);
    for (value, expected) in values() {
        let packed = RawValue::of(&value).unwrap();
        client.set(b"key", &packed, &WriteOptions::default()).await.unwrap();
        assert_eq!(http.ask("GET /get?key=key").json(), json!({ "key": expected }), "{value}");
        assert_eq!(http.ask("GET /getrange").json(), json!({ "key": expected }), "{value}");
    }
    http.ask("GET /put?text=%C3%B8&bytes=%FF&number=1");
    let stored = |key: &'static str, found: Option<RawValue>| (key, found.unwrap().value());
    let text = stored("text", client.get(b"text").await.unwrap());
    let bytes = stored("bytes", client.get(b"bytes").await.unwrap());
    let number = stored("number", client.get(b"number").await.unwrap());
    assert_eq!(text.1, Value::from("ø"));
    assert_eq!(bytes.1, Value::Binary(vec![0xFF]));
    assert_eq!(number.1, Value::from("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_and_a_delete_are_one_write_each() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker.router, &ClientOptions::default()).await.unwrap();
    let mut http = Connection::open(&broker.http);
    http.ask("GET /put?a=1&b=2&c=3");
    let mut seqs = Vec::new();
    for key in [b"a", b"b", b"c"] {
        seqs.push(client.entry(key).await.unwrap().unwrap().seq);
    }
    assert_eq!(seqs, [seqs[0]; 3]);
    http.ask("GET /delete?key=a&key=b");
    let next = client.set(b"d", &RawValue::integer(1), &WriteOptions::default()).await.unwrap();
    assert_eq!(next, seqs[0] + 2);
}

#[test]
fn a_put_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::open(folder.path(), &[]);
    let mut http = Connection::open(&broker.http);
    assert_eq!(http.ask("GET /put?a=1&%FE=%FF").status, 201);
    assert_eq!(http.ask("GET /put?gone=1").status, 201);
    assert_eq!(http.ask("GET /delete?key=gone").status, 200);
    broker.kill();
    let broker = Broker::open(folder.path(), &[]);
    let mut http = Connection::open(&broker.http);
    assert_eq!(http.ask("GET /getrange").json(), json!({"a": "1", "%FE": {"base64": "/w=="}}));
}

#[test]
fn a_client_that_closes_its_side_gets_all_its_answers() {
    let broker = Broker::start(&["--durability", "stored"]);
    let value = "x".repeat(8_000);
    let mut http = Connection::open(&broker.http);
    for key in 0..500 {
        assert_eq!(http.ask(&format!("GET /put?k{key}={value}")).status, 201);
    }
    let mut half = Connection::open(&broker.http);
    for target in ["/getrange", "/get?key=k1", "/put?last=1", "/changes?from=0", "/getrange"] {
        half.send(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes());
    }
    half.close_our_side();
    let mut next = || half.response(false);
    assert_eq!(next().json().as_object().unwrap().len(), 500);
    assert_eq!(next().json()["k1"], json!(value));
    assert_eq!(next().status, 201);
    assert_eq!(next().text().lines().count(), 501);
    assert_eq!(next().json().as_object().unwrap().len(), 501);
    assert!(half.is_closed());
}

#[test]
fn a_broker_that_stops_closes_its_idle_connections_and_ends_well() {
    let broker = Broker::start(&[]);
    let mut idle = Connection::open(&broker.http);
    assert_eq!(idle.ask("GET /put?a=1").status, 201);
    broker.terminate();
    assert!(idle.is_closed());
    assert!(broker.stop().success());
}

#[test]
fn a_port_in_use_is_reported_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vatn"))
        .args(["serve", "--router", "tcp://127.0.0.1:0", "--publisher", "tcp://127.0.0.1:0"])
        .args(["--port", &port, "--database"])
        .arg(folder.path().join("store"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let error = said.lines().last().unwrap();
    assert!(error.starts_with("vatn: error: ") && error.contains("--port"), "{said}");
    assert!(error.contains(&port) && error.contains("-p 0"), "{said}");
}
