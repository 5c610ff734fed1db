//! The host that a request names, and which hosts mean this broker.
//!
//! A page reaches a broker only by a URL, and a browser sends that URL's host. So accepting only
//! hosts that no stranger can own keeps out pages that point their own name at this machine (DNS
//! rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names by which this broker may be called, besides addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<String>);

/// A host as a request writes it, without its port.
#[derive(Debug, PartialEq, Eq)]
enum Host<'h> {
    Address(IpAddr),
    Name(&'h str),
}

impl Names {
    /// The configured names; case and a trailing dot are ignored.
    ///
    /// An address that stands for others (`0.0.0.0`, `::`, an IPv4 one within IPv6) is not a name:
    /// a browser connects to it without naming the requesting page.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().map(|name| name.trim_end_matches('.').to_owned());
        Self(names.filter(|name| Self::may_configure(name)).collect())
    }

    /// Whether a name can be configured: a name that pages cannot reach unseen.
    pub fn may_configure(name: &str) -> bool {
        let address = name.trim_start_matches('[').trim_end_matches([']', '.']);
        !address.parse().is_ok_and(stands_for_others)
    }

    /// Whether a read may name `host`, with or without its port: any address, `localhost`, or a
    /// configured name. No page can have its own name among these.
    pub fn may_read(&self, host: &str) -> bool {
        match Host::of(host) {
            Some(Host::Address(_)) => true,
            Some(Host::Name(name)) => {
                let dotless = name.strip_suffix('.').unwrap_or(name);
                let is_address = dotless.parse::<Ipv4Addr>().is_ok();
                is_address || dotless.eq_ignore_ascii_case("localhost") || self.has(name)
            }
            None => false,
        }
    }

    /// Whether a write may name `host`: `localhost`, a loopback address, the address that the
    /// connection was `accepted` on, or a configured name.
    ///
    /// To these hosts, browsers name the requesting page over plain HTTP, or the operator has
    /// configured them. To `0.0.0.0`, `[::ffff:127.0.0.1]` or `localhost.` browsers may not, and
    /// such requests still arrive here.
    pub fn may_write(&self, host: &str, accepted: IpAddr) -> bool {
        match Host::of(host) {
            Some(Host::Address(address)) if stands_for_others(address) => false,
            Some(Host::Address(address)) => {
                address.is_loopback()
                    || address == accepted.to_canonical()
                    || self.has(&address.to_string())
            }
            Some(Host::Name(name)) => name.eq_ignore_ascii_case("localhost") || self.has(name),
            None => false,
        }
    }

    fn has(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// Whether an address stands for others: for any of this machine, or for an IPv4 one.
fn stands_for_others(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified(),
        // `::a.b.c.d` is the old form of `::ffff:a.b.c.d`.
        IpAddr::V6(address) => match address.segments() {
            [0, 0, 0, 0, 0, 0 | 0xFFFF, _, _] => address != Ipv6Addr::LOCALHOST,
            _ => false,
        },
    }
}

impl<'h> Host<'h> {
    /// Parses `host` or `host:port`; `None` for any other text.
    fn of(text: &'h str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            let address = address.parse::<Ipv6Addr>().ok()?;
            return is_port(port).then_some(Self::Address(IpAddr::V6(address)));
        }
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        let host = match name.parse::<Ipv4Addr>() {
            Ok(address) => Self::Address(IpAddr::V4(address)),
            Err(_) => Self::Name(name),
        };
        is_port(port).then_some(host)
    }
}

/// Whether `text` is empty, or a colon and digits.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or("no port");
    text.is_empty() || digits.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn names() -> Names {
        Names::new(["Store.example.".to_owned(), "0.0.0.0".to_owned(), "192.0.2.9".to_owned()])
    }

    #[test]
    fn addresses_localhost_and_configured_names_may_be_written_to() {
        let ours = [
            "127.0.0.1",
            "127.0.0.1:7532",
            "127.255.3.4",
            "[::1]",
            "[::1]:7532",
            "[0:0:0:0:0:0:0:1]",
            "localhost",
            "LocalHost:1",
            "store.EXAMPLE",
            "store.example.:7532",
            "192.0.2.9",
        ];
        for host in ours {
            assert!(names().may_write(host, LOOPBACK), "{host}");
            assert!(names().may_read(host), "{host}");
        }
    }

    #[test]
    fn writes_may_name_the_accepted_address_and_no_other() {
        let accepted = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(names().may_write("10.1.2.3:80", accepted("10.1.2.3")));
        assert!(names().may_write("10.1.2.3", accepted("::ffff:10.1.2.3")), "a socket for both");
        assert!(names().may_write("[2001:db8::1]:80", accepted("2001:db8::1")));
        assert!(!names().may_write("[::ffff:10.1.2.3]", accepted("::ffff:10.1.2.3")));
        assert!(!names().may_write("10.1.2.4", accepted("10.1.2.3")));
        assert!(!names().may_write("0.0.0.0", accepted("0.0.0.0")));
    }

    #[test]
    fn a_host_that_stands_for_others_may_be_read_from_and_not_written_to() {
        let hosts = [
            "0.0.0.0",
            "0.0.0.0:7532",
            "[::]",
            "[::]:7532",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]:7532",
            "[::127.0.0.1]",
            "[::ffff:0.0.0.0]",
            "10.1.2.3",
            "[2001:db8::1]",
            "localhost.",
            "localhost.:7532",
            "127.0.0.1.",
        ];
        for host in hosts {
            assert!(!names().may_write(host, LOOPBACK), "{host}");
            assert!(names().may_read(host), "{host}");
        }
    }

    #[test]
    fn a_host_that_a_stranger_can_own_is_refused() {
        let theirs = [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a.localhost",
            "127.1",
            "0",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "127.0.0.0x1",
            "127.0.0.1:80:90",
            "127.0.0.1:8o",
            "[::1",
            "[::1]evil",
            "[::1%25lo]",
            "::1",
            "[127.0.0.1]",
            "localhost..",
            "user@127.0.0.1",
            "xstore.example",
            " localhost",
            "127.0.0.1, evil.example",
        ];
        for host in theirs {
            assert!(!names().may_read(host), "{host}");
            assert!(!names().may_write(host, LOOPBACK), "{host}");
        }
    }
}
