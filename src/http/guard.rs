//! Decides which requests are accepted: the defence against web pages that send requests to a
//! broker without their reader's knowledge.
//!
//! FlatDB's API writes by GET, so any page could write with an `<img src>` and, by pointing its own
//! name at 127.0.0.1 (DNS rebinding), read. Here a request must name the broker by a host that no
//! stranger can own ([`host`](super::host)). A write must not be caused by a page: not by one of
//! another site, not by a prefetch, and not by a navigation, since a page can cause that too, and a
//! redirect hides which page. No CORS header is ever sent, so a browser passes no answer to a
//! foreign page.

use super::host::Names;
use super::refuse::Refused;
use axum::http::header::{ACCEPT_LANGUAGE, HOST, HeaderName, ORIGIN, USER_AGENT};
use axum::http::{HeaderMap, StatusCode, Uri, Version};
use std::net::IpAddr;

/// Headers in which browsers name a request's origin. Over plain HTTP, browsers send them only to
/// loopback.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The kind of a request.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// A browser's header values for a request that its user has not made yet, by its old names too.
const SPECULATIVE: [HeaderName; 4] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-purpose"),
    HeaderName::from_static("x-moz"),
];

/// The settings that decide whether a request is accepted.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    names: Names,
    /// Whether a URL that is opened in a browser may write.
    allows_navigation: bool,
}

impl Guard {
    /// A guard of a broker that may be called by `names`.
    pub fn new(names: Names, allows_navigation: bool) -> Self {
        Self { names, allows_navigation }
    }

    /// Refuses a request that was meant for another host.
    pub fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            (None, _) if version == Version::HTTP_10 => return self.check_target(uri),
            (None, _) => {
                return Err(
                    Refused::bad_request("an HTTP/1.1 request needs a Host header").and_close()
                );
            }
            _ => return Err(Refused::bad_request("one Host header, not several").and_close()),
        };
        if self.names.may_read(host) { self.check_target(uri) } else { Err(foreign_host()) }
    }

    fn check_target(&self, uri: &Uri) -> Result<(), Refused> {
        let is_ours = uri.authority().is_none_or(|named| self.names.may_read(named.as_str()));
        if is_ours { Ok(()) } else { Err(foreign_host()) }
    }

    /// Refuses a write that a web page may have caused, or that names a host which a page can use
    /// unseen; its connection was `accepted` on that address.
    ///
    /// A request without a `Host` is HTTP/1.0, which no browser speaks.
    pub fn check_write(
        &self,
        accepted: IpAddr,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
        let mut named = host.into_iter().chain(uri.authority().map(|named| named.as_str()));
        if !named.all(|named| self.names.may_write(named, accepted)) {
            return Err(foreign_host_of_write());
        }
        check_page(host.unwrap_or_default(), headers)?;
        if SPECULATIVE.iter().any(|name| headers.contains_key(name)) {
            return Err(speculative());
        }
        if self.allows_navigation {
            return Ok(());
        }
        if headers.get_all(SEC_FETCH_MODE).iter().any(|mode| *mode == "navigate") {
            return Err(browser("a URL opened in a browser does not write"));
        }
        // An old browser, or a host to which browsers do not send the requesting page.
        if !headers.contains_key(SEC_FETCH_SITE) && is_browser(headers) {
            return Err(browser("this browser does not say what page asked (no Sec-Fetch-Site)"));
        }
        Ok(())
    }
}

/// Refuses requests caused by a page of another origin than `host`.
fn check_page(host: &str, headers: &HeaderMap) -> Result<(), Refused> {
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

/// Whether a request looks like a browser's, by two headers that no page can omit.
fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).map_or(b"".as_slice(), |agent| agent.as_bytes());
    agent.starts_with(b"Mozilla/") && headers.contains_key(ACCEPT_LANGUAGE)
}

fn foreign_host() -> Refused {
    let message = "the Host must be an IP address, localhost, or a name given by --http-host-name";
    Refused::new(StatusCode::FORBIDDEN, "FOREIGN_HOST", message)
}

fn foreign_host_of_write() -> Refused {
    let message = "the Host of a write must be localhost, a loopback address such as 127.0.0.1, \
                   the address that was connected to, or a name given by --http-host-name";
    Refused::new(StatusCode::FORBIDDEN, "FOREIGN_HOST", message)
}

fn foreign_page(why: &str) -> Refused {
    let message = format!("a write caused by another site's page is refused: {why}");
    Refused::new(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message)
}

fn speculative() -> Refused {
    let message = "a prefetch does not write (Sec-Purpose)";
    Refused::new(StatusCode::FORBIDDEN, "BROWSER_WRITE", message)
}

fn browser(why: &str) -> Refused {
    let message = format!(
        "{why}, since any page can have one opened: use curl or another client, or start the \
         broker with --allow-browser-writes"
    );
    Refused::new(StatusCode::FORBIDDEN, "BROWSER_WRITE", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::net::Ipv4Addr;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(named).collect()
    }

    fn code(checked: Result<(), Refused>) -> Option<String> {
        let text = checked.err()?.to_string();
        text.split_once(':').map(|(code, _)| code.to_owned())
    }

    /// The code with which a write that has a `Host` and these headers is refused.
    fn write(guard: &Guard, pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let mut headers = headers(pairs);
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:7532"));
        let uri = Uri::from_static("/put?a=1");
        code(guard.check_write(IpAddr::from(Ipv4Addr::LOCALHOST), &uri, &headers))
    }

    #[test]
    fn the_host_header_is_needed_once_except_in_http_1_0() {
        let (guard, uri) = (Guard::default(), Uri::from_static("/get"));
        let check = |version, pairs: &[_]| guard.check(version, &uri, &headers(pairs));
        assert!(check(Version::HTTP_10, &[]).is_ok());
        assert!(check(Version::HTTP_11, &[]).is_err());
        assert!(check(Version::HTTP_11, &[("host", "localhost")]).is_ok());
        assert!(check(Version::HTTP_10, &[("host", "evil.example")]).is_err());
        assert!(check(Version::HTTP_11, &[("host", "localhost"), ("host", "localhost")]).is_err());
    }

    #[test]
    fn an_absolute_target_is_checked_too() {
        let host = headers(&[("host", "localhost")]);
        let guard = Guard::default();
        let check = |uri| guard.check(Version::HTTP_11, &Uri::from_static(uri), &host).is_ok();
        assert!(check("http://localhost/get"));
        assert!(!check("http://evil.example/get"));
        assert!(!check("http://localhost@evil.example/get"));
        let hostless = |uri| guard.check(Version::HTTP_10, &Uri::from_static(uri), &headers(&[]));
        assert!(hostless("http://evil.example/get").is_err());
        let accepted = IpAddr::from(Ipv4Addr::LOCALHOST);
        let write = |uri| guard.check_write(accepted, &Uri::from_static(uri), &host).is_ok();
        assert!(write("/put?a=1"));
        assert!(write("http://127.0.0.1:80/put?a=1"));
        assert!(!write("http://0.0.0.0/put?a=1"));
    }

    #[test]
    fn writes_come_from_no_page_or_from_our_own() {
        let guard = Guard::default();
        let taken: [&[_]; 5] = [
            &[],
            &[("origin", "http://127.0.0.1:7532")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")],
            &[("user-agent", "curl/8"), ("accept-language", "en")],
        ];
        for pairs in taken {
            assert_eq!(write(&guard, pairs), None, "{pairs:?}");
        }
        let refused: [&[_]; 9] = [
            &[("origin", "http://127.0.0.1:8000")],
            &[("origin", "http://127.0.0.1")],
            &[("origin", "http://evil.example")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://127.0.0.1:7532"), ("origin", "http://evil.example")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
        ];
        for pairs in refused {
            assert_eq!(write(&guard, pairs).as_deref(), Some("FOREIGN_ORIGIN"), "{pairs:?}");
        }
    }

    #[test]
    fn a_navigation_writes_only_where_that_is_allowed() {
        let navigations: [&[_]; 3] = [
            &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")],
            &[("user-agent", "Mozilla/5.0 (X11)"), ("accept-language", "en")],
        ];
        let allowing = Guard::new(Names::default(), true);
        for pairs in navigations {
            assert_eq!(write(&Guard::default(), pairs).as_deref(), Some("BROWSER_WRITE"));
            assert_eq!(write(&allowing, pairs), None, "{pairs:?}");
        }
        let foreign = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(write(&allowing, &foreign).as_deref(), Some("FOREIGN_ORIGIN"));
    }

    #[test]
    fn a_prefetch_never_writes() {
        let guard = Guard::new(Names::default(), true);
        let speculative = [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", ""),
            ("purpose", "prefetch"),
            ("x-purpose", "preview"),
            ("x-moz", "prefetch"),
        ];
        for pair in speculative {
            let refused = write(&guard, &[("sec-fetch-site", "none"), pair]);
            assert_eq!(refused.as_deref(), Some("BROWSER_WRITE"), "{pair:?}");
        }
    }
}
