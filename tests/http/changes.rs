//! `/changes` of a real broker: lines, and events that continue.

use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::http::{Connection, Response};
use serde_json::{Value, json};

const EVENTS: &str = "Accept: text/html, text/event-stream;q=0.9";

/// A broker with five writes.
fn broker() -> Broker {
    let broker = Broker::start(&["--durability", "stored"]);
    let mut http = Connection::open(&broker.http);
    for request in ["/put?a=1&b=2", "/put?%FE=%FF", "/delete?key=a", "/put?other=3"] {
        let status = http.ask(&format!("GET {request}")).status;
        assert!(matches!(status, 200 | 201), "{request}: {status}");
    }
    broker.vatn(&["set", "a", "{\"x\":[1]}", "--ttl-ms", "3600000"]).text();
    broker
}

fn lines(response: &Response) -> Vec<Value> {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn next(response: &Response) -> u64 {
    response.header("vatn-next-seq").unwrap().parse().unwrap()
}

mod a_page {
    use super::*;

    #[test]
    fn has_a_line_for_each_change() {
        let broker = broker();
        let response = Connection::open(&broker.http).ask("GET /changes?from=0");
        let line = |seq, op, [index, count, prev]: [u64; 3], ttl_ms: Option<u64>, rest| {
            let ttl_ms = json!(ttl_ms);
            format!(
                "{{\"seq\":{seq},\"op\":\"{op}\",\"index\":{index},\"count\":{count},\
                 \"prev\":{prev},\"ttl_ms\":{ttl_ms},\"level\":\"stored\",{rest}}}\n"
            )
        };
        let expected = [
            line(1, "set", [0, 2, 0], None, r#""key":"a","value":"1""#),
            line(1, "set", [1, 2, 1], None, r#""key":"b","value":"2""#),
            line(2, "set", [0, 1, 1], None, r#""key":"%FE","value":{"base64":"/w=="}"#),
            line(3, "delete", [0, 1, 2], None, r#""key":"a","value":null"#),
            line(4, "set", [0, 1, 3], None, r#""key":"other","value":"3""#),
            line(5, "set", [0, 1, 4], Some(3_600_000), r#""key":"a","value":{"x":[1]}"#),
        ];
        assert_eq!(response.text(), expected.concat());
        assert_eq!((lines(&response).len(), next(&response)), (6, 5));
    }

    #[test]
    fn begins_at_from_and_ends_at_limit() {
        let broker = broker();
        let mut http = Connection::open(&broker.http);
        for (query, expected) in [
            ("from=5", json!([[], 5])),
            ("from=4", json!([[[5, 4]], 5])),
            ("", json!([[], 5])),
            ("from=0&limit=1", json!([[[1, 0], [1, 1]], 1])),
            ("from=1&limit=2", json!([[[2, 1], [3, 2]], 3])),
            ("from=0&prefix=a", json!([[[1, 0], [3, 1], [5, 3]], 5])),
            ("from=2&prefix=%FE", json!([[], 5])),
        ] {
            let response = http.ask(&format!("GET /changes?{query}"));
            let lines = lines(&response);
            let places: Vec<_> = lines.iter().map(|line| [&line["seq"], &line["prev"]]).collect();
            assert_eq!(json!([places, next(&response)]), expected, "{query}");
        }
        assert_eq!(http.ask("HEAD /changes?from=0").status, 200);
    }

    #[test]
    fn refuses_arguments_that_are_not_numbers() {
        let broker = broker();
        let mut http = Connection::open(&broker.http);
        for query in ["from=x", "from=-1", "from=0&limit=0", "from=0&wait_ms=1.5", "limit=%FF"] {
            let response = http.ask(&format!("GET /changes?{query}"));
            assert_eq!((response.status, &response.json()["error"]), (400, &json!("BAD_ARGUMENT")));
        }
        assert_eq!(http.ask("POST /changes?from=0").status, 405);
        let foreign = "GET /changes?from=0 HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        http.send(foreign.as_bytes());
        assert_eq!(http.response(false).status, 403);
    }

    #[test]
    fn waits_for_a_change_and_no_longer() {
        let broker = broker();
        let (mut waiting, mut other) =
            (Connection::open(&broker.http), Connection::open(&broker.http));
        let began = Instant::now();
        waiting.send(b"GET /changes?from=5&prefix=b&wait_ms=30000 HTTP/1.1\r\nHost: [::1]\r\n\r\n");
        for n in 0..50 {
            other.ask(&format!("GET /put?other={n}"));
        }
        other.ask("GET /put?b=now");
        let response = waiting.response(false);
        assert!(began.elapsed() < Duration::from_secs(20), "it waited on");
        assert_eq!((lines(&response)[0]["value"].as_str(), next(&response)), (Some("now"), 56));

        let began = Instant::now();
        let response = waiting.ask("GET /changes?from=5&prefix=none&wait_ms=50");
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert_eq!((lines(&response).len(), next(&response)), (0, 56));
    }
}

mod a_position {
    use super::*;

    /// The status and the body of the answer to `query` with `headers`.
    fn ask(http: &mut Connection, query: &str, headers: &[&str]) -> Response {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("GET /changes?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        http.send(request.as_bytes());
        http.response(true)
    }

    /// Asserts that the request is refused as one of another history.
    fn assert_other_history(broker: &Broker, query: &str, headers: &[&str]) {
        // A stream that continues has no end to read.
        let head = ask(&mut Connection::open(&broker.http), query, headers);
        assert_eq!(head.status, 410, "{query} {headers:?}");
        let mut http = Connection::open(&broker.http);
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("GET /changes?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        http.send(request.as_bytes());
        let response = http.response(false);
        let body = response.json();
        assert_eq!(body["error"], json!("OTHER_HISTORY"), "{body}");
        assert_eq!(body["store_id"].as_str(), response.header("vatn-store-id"));
        assert!(body["seq"].is_u64(), "{body}");
    }

    #[test]
    fn that_the_store_never_reached_is_of_another_history() {
        let (empty, other) = (Broker::start(&[]), broker());
        let id = |broker: &Broker| {
            let response = Connection::open(&broker.http).ask("GET /healthz");
            response.header("vatn-store-id").unwrap().to_owned()
        };
        let (id, other_id) = (id(&empty), id(&other));
        assert_other_history(&empty, "from=7", &[]);
        assert_other_history(&empty, "from=7&wait_ms=30000", &[]);
        assert_other_history(&empty, "from=1&prefix=x", &[EVENTS]);
        assert_other_history(&empty, "", &[EVENTS, "Last-Event-ID: 1000"]);
        assert_other_history(&empty, "from=0", &[EVENTS, &format!("Last-Event-ID: {other_id}-0")]);
        assert_other_history(&other, &format!("from={id}-3"), &[]);
        assert_other_history(&other, &format!("from={other_id}-6"), &[]);
        assert_other_history(&other, "from=18446744073709551615", &[EVENTS]);
    }

    #[test]
    fn of_this_store_is_a_seq_with_its_id_or_without() {
        let broker = broker();
        let mut http = Connection::open(&broker.http);
        let id = http.ask("GET /healthz").header("vatn-store-id").unwrap().to_owned();
        let response = http.ask(&format!("GET /changes?from={id}-4"));
        assert_eq!((lines(&response).len(), next(&response)), (1, 5));
        assert_eq!(http.ask("GET /changes?from=5").status, 200);
        for (last, expected) in [
            (format!("Last-Event-ID: {id}-5"), 200),
            ("Last-Event-ID: 5".to_owned(), 200),
            ("Last-Event-ID:".to_owned(), 200),
            ("Last-Event-ID:  ".to_owned(), 200),
            ("Last-Event-ID: x".to_owned(), 400),
            ("Last-Event-ID: -1".to_owned(), 400),
            ("Last-Event-ID: 3-4".to_owned(), 400),
            (format!("Last-Event-ID: {id}"), 400),
        ] {
            let mut http = Connection::open(&broker.http);
            assert_eq!(ask(&mut http, "from=5", &[EVENTS, &last]).status, expected, "{last}");
        }
        let page = ask(&mut Connection::open(&broker.http), "from=5", &["Last-Event-ID: x"]);
        assert_eq!(page.status, 200, "a page has no events");
    }

    #[test]
    fn refuses_unknown_arguments() {
        let broker = broker();
        let mut http = Connection::open(&broker.http);
        for query in ["after=0", "from=0&after=0", "from=0&From=1", "from=0&from=1", "=1"] {
            let response = http.ask(&format!("GET /changes?{query}"));
            assert_eq!((response.status, &response.json()["error"]), (400, &json!("BAD_ARGUMENT")));
        }
        let response = http.ask("GET /changes?after=0");
        let message = response.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("from, prefix, limit, wait_ms"), "{message}");
        assert_eq!(http.ask("GET /healthz?verbose=1").status, 400);
    }
}

mod a_large_page {
    use super::*;

    #[test]
    fn is_chunked_where_its_json_is_over_the_limit() {
        let broker = Broker::start(&["--http-answer-bytes", "100000", "--durability", "stored"]);
        let mut http = Connection::open(&broker.http);
        for key in 0..40 {
            http.ask(&format!("GET /put?k{key}={}", "%01".repeat(2_000)));
        }
        let response = http.ask("GET /changes?from=0&limit=2");
        assert_eq!((lines(&response).len(), next(&response)), (2, 2));
        let response = http.ask("GET /changes?from=0");
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.header("vatn-next-seq"), None);
        let lines = lines(&response);
        assert_eq!((lines.len(), &lines[39]["seq"]), (40, &json!(40)));
        let response = http.ask("GET /get?key=k0");
        assert_eq!(response.json()["k0"].as_str().map(str::len), Some(2_000));
        let keys: Vec<String> = (0..40).map(|key| format!("key=k{key}")).collect();
        let refused = http.ask(&format!("GET /get?{}", keys.join("&")));
        assert_eq!((refused.status, &refused.json()["error"]), (413, &json!("TOO_LARGE")));
        let message = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("--http-answer-bytes") && message.contains("/getrange"),
            "{message}"
        );
        let head = http.ask(&format!("HEAD /get?{}", keys.join("&")));
        assert_eq!((head.status, head.header("content-length")), (200, None));
        assert_eq!(
            http.ask("GET /getrange").json().as_object().map(serde_json::Map::len),
            Some(40)
        );
    }
}

mod events {
    use super::*;

    /// An event: its id, and its data's seq and index.
    #[derive(Debug, PartialEq)]
    struct Event {
        id: Option<u64>,
        change: Option<(u64, u64)>,
    }

    /// The events in order of arrival.
    struct Stream {
        http: Connection,
        text: String,
        store_id: String,
        /// The change before the next one.
        prev: Option<u64>,
    }

    impl Stream {
        fn open(broker: &Broker, target: &str, headers: &[&str]) -> Self {
            let mut http = Connection::open(&broker.http);
            let response = http.open_stream(&format!("GET {target}"), headers);
            assert_eq!(response.status, 200);
            assert_eq!(response.header("content-type"), Some("text/event-stream"));
            // Proxies must neither buffer nor cache it.
            assert_eq!(response.header("x-accel-buffering"), Some("no"));
            assert_eq!(response.header("cache-control"), Some("no-store"));
            let store_id = response.header("vatn-store-id").unwrap().to_owned();
            Stream { http, text: String::new(), store_id, prev: None }
        }

        fn next(&mut self) -> Option<Event> {
            while !self.text.contains("\n\n") {
                self.text.push_str(&String::from_utf8(self.http.chunk()?).unwrap());
            }
            let (event, rest) = self.text.split_once("\n\n").unwrap();
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let data = field("data: ").map(|data| serde_json::from_str::<Value>(data).unwrap());
            let change = data.map(|data| {
                let number = |name: &str| data[name].as_u64().unwrap();
                assert!(self.prev.is_none_or(|prev| prev == number("prev")), "{data}");
                self.prev = Some(number("seq"));
                (number("seq"), number("index"))
            });
            let id = field("id: ").map(|id| {
                let (store, seq) = id.split_once('-').unwrap();
                assert_eq!(store, self.store_id);
                seq.parse().unwrap()
            });
            self.text = rest.to_owned();
            Some(Event { id, change })
        }

        fn changes(&mut self, count: usize) -> Vec<(u64, u64)> {
            let (mut changes, mut quiet) = (Vec::new(), 0);
            while changes.len() < count
                && let Some(event) = self.next()
            {
                // Every few seconds a comment says that nothing came.
                quiet = if event.change.is_some() { 0 } else { quiet + 1 };
                assert!(quiet < 6, "nothing comes after {:?}", changes.last());
                changes.extend(event.change);
            }
            changes
        }
    }

    #[test]
    fn have_past_changes_first_and_then_new_ones() {
        let broker = broker();
        let mut stream = Stream::open(&broker, "/changes?from=0", &[EVENTS]);
        let first = stream.next().unwrap();
        assert_eq!(first, Event { id: None, change: Some((1, 0)) }, "more of write 1 comes");
        let second = stream.next().unwrap();
        assert_eq!(second, Event { id: Some(1), change: Some((1, 1)) });
        assert_eq!(stream.changes(4), [(2, 0), (3, 0), (4, 0), (5, 0)]);
        let mut http = Connection::open(&broker.http);
        for n in 0..100 {
            http.ask(&format!("GET /put?k={n}&l={n}"));
        }
        let expected: Vec<_> = (6..106).flat_map(|seq| [(seq, 0), (seq, 1)]).collect();
        assert_eq!(stream.changes(200), expected);
    }

    #[test]
    fn continue_after_the_last_event_id() {
        let broker = broker();
        let headers = [EVENTS, "Last-Event-ID: 3"];
        let mut stream = Stream::open(&broker, "/changes?from=0&limit=1", &headers);
        assert_eq!(stream.changes(2), [(4, 0), (5, 0)]);
        let mut stream = Stream::open(&broker, "/changes", &[EVENTS]);
        broker.vatn(&["set", "a", "1"]).text();
        assert_eq!(stream.changes(1), [(6, 0)]);
        let mut http = Connection::open(&broker.http);
        http.send(
            format!("GET /changes HTTP/1.1\r\nHost: a\r\n{EVENTS}\r\nLast-Event-ID: x\r\n\r\n")
                .replace("Host: a", "Host: localhost")
                .as_bytes(),
        );
        assert_eq!(http.response(false).status, 400);
    }

    #[test]
    fn have_ids_even_where_nothing_matches() {
        let broker = broker();
        let mut stream = Stream::open(&broker, "/changes?from=0&prefix=none", &[EVENTS]);
        // At once, and again after some seconds: an id without an event.
        assert_eq!(stream.next(), Some(Event { id: Some(5), change: None }));
        broker.vatn(&["set", "other", "1"]).text();
        assert_eq!(stream.next(), Some(Event { id: Some(6), change: None }));
    }

    #[test]
    fn give_way_to_new_connections_the_longest_idle_first() {
        let broker = Broker::start(&["--max-connections", "3", "--durability", "stored"]);
        let target = |key| format!("/changes?from=0&prefix={key}");
        let open = |key| Stream::open(&broker, &target(key), &[EVENTS]);
        let mut followers: Vec<_> = ["a", "b", "c"].map(open).into();
        for follower in &mut followers {
            assert_eq!(follower.next().unwrap().change, None);
        }
        // The follower that came first has the latest change.
        assert_eq!(broker.vatn(&["set", "a", "1"]).text(), "1\n");
        assert_eq!(followers[0].changes(1), [(1, 0)]);
        let mut http = Connection::open(&broker.http);
        assert_eq!(http.ask("GET /put?a=2&c=2").status, 201);
        let mut oldest = followers.remove(1);
        assert!(oldest.http.is_closed_within(40), "its stream continues");
        assert_eq!(followers[0].changes(1), [(2, 0)], "the other streams continue");
        assert_eq!(followers[1].changes(1), [(2, 1)]);
        let mut another = Connection::open(&broker.http);
        assert_eq!(another.ask("GET /get?key=a").status, 200);
        assert!(http.is_closed(), "between two requests: it gives way before those that follow");
        assert_eq!(another.ask("GET /put?a=3&c=3").status, 201);
        assert_eq!(followers[0].changes(1), [(3, 0)]);
        assert_eq!(followers[1].changes(1), [(3, 1)]);
    }

    #[test]
    fn end_well_when_the_broker_stops() {
        let broker = broker();
        let mut stream = Stream::open(&broker, "/changes?from=5", &[EVENTS]);
        assert_eq!(stream.next().unwrap().change, None);
        assert!(broker.stop().success());
        // A stream that is cut has no last chunk.
        while stream.next().is_some() {}
    }

    #[test]
    fn are_whole_for_a_reader_that_is_far_too_slow() {
        let broker = Broker::start(&["--durability", "stored", "--subscriber-bytes", "65536"]);
        let mut stream = Stream::open(&broker, "/changes?from=0", &[EVENTS]);
        let line = format!("{{\"key\":\"k\",\"value\":\"{}\"}}\n", "x".repeat(5_000));
        let before = broker.peak_memory();
        // The stream is not read while twenty megabytes are written.
        broker.vatn_reading(line.repeat(4_000).as_bytes(), &["import", "-", "--json"]).json();
        let mut received = 0;
        let mut last = (0, 0);
        while received < 4_000 {
            let place = stream.changes(1)[0];
            assert!(place > last, "{place:?} after {last:?}");
            (received, last) = (received + 1, place);
        }
        let grown = broker.peak_memory() - before;
        assert!(grown < 100 << 20, "{grown} bytes for one slow reader");
    }
}
