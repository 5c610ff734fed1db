//! Who may ask: the defence against web pages that talk to a broker behind their reader's back.
//!
//! FlatDB's API writes by GET, so any page could write with an `<img src>` and, by pointing its own
//! name at 127.0.0.1 (DNS rebinding), read. Here a request must name the broker by an address or a
//! name that no stranger can own, and a write must not come from another site. No CORS header is
//! ever sent, so a browser hands no answer to a foreign page.

use super::refuse::Refused;
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri, Version};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What browsers say about where a request came from. They say it over plain HTTP only to loopback.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names under which this broker may be called, besides IP literals and `localhost`.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// The configured names; a trailing dot and the case do not matter.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.trim_end_matches('.').to_owned()).collect())
    }

    /// Refuses a request that was meant for another host.
    pub fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            (None, _) if version == Version::HTTP_10 => return Ok(()),
            (None, _) => {
                return Err(
                    Refused::bad_request("an HTTP/1.1 request needs a Host header").and_close()
                );
            }
            _ => return Err(Refused::bad_request("one Host header, not several").and_close()),
        };
        let is_ours =
            self.has(host) && uri.authority().is_none_or(|named| self.has(named.as_str()));
        if is_ours { Ok(()) } else { Err(foreign_host()) }
    }

    /// Whether `host`, with its port or without, is an IP literal, `localhost` or one of the names.
    fn has(&self, host: &str) -> bool {
        if let Some(rest) = host.strip_prefix('[') {
            return rest.split_once(']').is_some_and(|(address, port)| {
                address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port))
            });
        }
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        if !port.is_empty() && !is_port(port) {
            return false;
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        name.parse::<Ipv4Addr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// Refuses a write that a page of another origin caused.
pub fn check_write(headers: &HeaderMap) -> Result<(), Refused> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = |origin: &str| {
        let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        named.is_some_and(|named| named.eq_ignore_ascii_case(host))
    };
    let mut origins = headers.get_all(ORIGIN).iter();
    if !origins.all(|origin| origin.to_str().is_ok_and(is_own)) {
        return Err(foreign_page("its Origin is not this server"));
    }
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if !sites.all(|site| *site == "same-origin" || *site == "none") {
        return Err(foreign_page("its Sec-Fetch-Site is neither same-origin nor none"));
    }
    Ok(())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
}

fn foreign_host() -> Refused {
    let message = "the Host must be an IP address, localhost, or a name given by --http-host-name";
    Refused::new(StatusCode::FORBIDDEN, "FOREIGN_HOST", message)
}

fn foreign_page(why: &str) -> Refused {
    let message = format!("a write caused by another site's page is refused: {why}");
    Refused::new(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(named).collect()
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        let names = Names::new(["Store.example.".to_owned()]);
        let ours = [
            "127.0.0.1",
            "127.0.0.1:7532",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:7532",
            "localhost",
            "LocalHost:1",
            "localhost.",
            "store.EXAMPLE",
            "store.example.:7532",
        ];
        for host in ours {
            assert!(names.has(host), "{host}");
        }
    }

    #[test]
    fn what_a_stranger_can_own_is_not() {
        let names = Names::new(["store.example".to_owned()]);
        let theirs = [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a.localhost",
            "127.1",
            "0x7f000001",
            "127.0.0.1:80:90",
            "127.0.0.1:8o",
            "[::1",
            "[::1]evil",
            "::1",
            "[127.0.0.1]",
            "localhost..",
            "user@127.0.0.1",
            "xstore.example",
            " localhost",
        ];
        for host in theirs {
            assert!(!names.has(host), "{host}");
        }
    }

    #[test]
    fn the_host_header_is_needed_once_except_in_http_1_0() {
        let (names, uri) = (Names::default(), Uri::from_static("/get"));
        let check = |version, pairs: &[_]| names.check(version, &uri, &headers(pairs));
        assert!(check(Version::HTTP_10, &[]).is_ok());
        assert!(check(Version::HTTP_11, &[]).is_err());
        assert!(check(Version::HTTP_11, &[("host", "localhost")]).is_ok());
        assert!(check(Version::HTTP_10, &[("host", "evil.example")]).is_err());
        assert!(check(Version::HTTP_11, &[("host", "localhost"), ("host", "localhost")]).is_err());
    }

    #[test]
    fn an_absolute_target_is_checked_too() {
        let host = headers(&[("host", "localhost")]);
        let check = |uri| Names::default().check(Version::HTTP_11, &Uri::from_static(uri), &host);
        assert!(check("http://localhost/get").is_ok());
        assert!(check("http://evil.example/get").is_err());
    }

    #[test]
    fn writes_come_from_no_page_or_from_our_own() {
        let check = |pairs: &[_]| check_write(&headers(pairs)).is_ok();
        let host = ("host", "127.0.0.1:7532");
        assert!(check(&[host]));
        assert!(check(&[host, ("origin", "http://127.0.0.1:7532")]));
        assert!(check(&[host, ("sec-fetch-site", "none")]));
        assert!(check(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(!check(&[host, ("origin", "http://127.0.0.1:8000")]));
        assert!(!check(&[host, ("origin", "http://evil.example")]));
        assert!(!check(&[host, ("origin", "null")]));
        assert!(!check(&[host, ("origin", "")]));
        assert!(!check(&[host, ("sec-fetch-site", "same-site")]));
        assert!(!check(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!check(&[host, ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]));
    }
}
