//! Parses the query string as FlatDB's server does: into bytes, not text.
//!
//! Only `&` separates pairs (`;` is an ordinary character), `+` is a space, `%41` is a byte, and a
//! `%` without two hexadecimal digits stands for itself. Text without escapes is borrowed.

use crate::protocol::Refusal;
use std::borrow::Cow;

/// Bytes out of a query: borrowed where nothing was escaped.
pub type Text<'q> = Cow<'q, [u8]>;

/// The pairs of `query` in order. A pair without `=` has an empty value; empty pairs are skipped.
pub fn pairs(query: &str) -> impl Iterator<Item = (Text<'_>, Text<'_>)> {
    query.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default();
        (decode(name), decode(halves.next().unwrap_or_default()))
    })
}

/// Every value of the parameter called `name`.
pub fn all<'q>(query: &'q str, name: &'static str) -> impl Iterator<Item = Text<'q>> {
    pairs(query).filter(move |(given, _)| **given == *name.as_bytes()).map(|(_, value)| value)
}

/// The first value of the parameter called `name`; an empty value counts as none.
pub fn first<'q>(query: &'q str, name: &'static str) -> Option<Text<'q>> {
    all(query, name).next().filter(|value| !value.is_empty())
}

/// Refuses a name that is not `known` or is given twice, so that no argument is silently ignored.
pub fn check_names(query: &str, known: &[&str]) -> Result<(), Refusal> {
    check(query, known, false)
}

/// Refuses a name that is not `known`. The first value of a repeated name counts.
pub fn check_known(query: &str, known: &[&str]) -> Result<(), Refusal> {
    check(query, known, true)
}

fn check(query: &str, known: &[&str], may_repeat: bool) -> Result<(), Refusal> {
    let mut seen = Vec::new();
    for (name, _) in pairs(query) {
        let shown = String::from_utf8_lossy(name.get(..64).unwrap_or(&name)).into_owned();
        let Some(found) = known.iter().find(|known| *name == *known.as_bytes()) else {
            let what = match known {
                [] => "there is no such argument: none is taken here".to_owned(),
                known => format!("there is no such argument; there are {}", known.join(", ")),
            };
            return Err(Refusal::argument(&shown, what));
        };
        if seen.contains(found) && !may_repeat {
            return Err(Refusal::argument(&shown, "given twice"));
        }
        seen.push(*found);
    }
    Ok(())
}

/// `text` with its escapes resolved.
fn decode(text: &[u8]) -> Text<'_> {
    let Some(start) = text.iter().position(|byte| matches!(byte, b'%' | b'+')) else {
        return Cow::Borrowed(text);
    };
    let (plain, mut rest) = text.split_at(start);
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(plain);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, escaped(tail)) {
            (b'%', Some((byte, after))) => {
                out.push(byte);
                rest = after;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// Returns `path` as a route: leading slashes merged into one and escapes resolved (`+` is no
/// escape here). `None` when that changes nothing, or when no route can match.
pub fn route(path: &str) -> Option<String> {
    if !path.contains('%') && !path.starts_with("//") {
        return None;
    }
    let escaped = path.trim_start_matches('/').replace('+', "%2B");
    let decoded = String::from_utf8(decode(escaped.as_bytes()).into_owned()).ok()?;
    // An escaped slash is a slash (`/%2Fget` is `//get`), as for a WSGI server.
    let name = decoded.trim_start_matches('/');
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    is_plain.then(|| format!("/{name}"))
}

/// The byte that two hexadecimal digits name, and the bytes after them.
fn escaped(digits: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], after) = digits.split_first_chunk()?;
    Some((hex(*high)? << 4 | hex(*low)?, after))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs(query).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    fn pair(name: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (name.to_vec(), value.to_vec())
    }

    #[test]
    fn pairs_keep_their_order_and_repeats() {
        let expected = [pair(b"a", b"1"), pair(b"b", b"2"), pair(b"a", b"3")];
        assert_eq!(read("a=1&b=2&a=3"), expected);
    }

    #[test]
    fn missing_halves_are_empty_and_missing_pairs_are_none() {
        assert_eq!(read("a"), [pair(b"a", b"")]);
        assert_eq!(read("=v"), [pair(b"", b"v")]);
        assert_eq!(read("="), [pair(b"", b"")]);
        assert_eq!(read("a=b=c"), [pair(b"a", b"b=c")]);
        assert_eq!(read(""), []);
        assert_eq!(read("&&a=1&"), [pair(b"a", b"1")]);
    }

    #[test]
    fn escapes_resolve_and_other_percent_signs_stay() {
        assert_eq!(read("a=1;b=2"), [pair(b"a", b"1;b=2")]);
        assert_eq!(read("a+b=c+d"), [pair(b"a b", b"c d")]);
        assert_eq!(read("%61%3d=%26%2B%zz%4"), [pair(b"a=", b"&+%zz%4")]);
        assert_eq!(read("a=%"), [pair(b"a", b"%")]);
        assert_eq!(read("a=%%41%4g"), [pair(b"a", b"%A%4g")]);
        assert_eq!(read("%FF=%c3%28%00"), [pair(b"\xFF", b"\xC3(\0")]);
    }

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(decode(b"plain;text"), Cow::Borrowed(_)));
        assert!(matches!(decode(b"a+b"), Cow::Owned(_)));
    }

    #[test]
    fn first_and_all_pick_by_name() {
        let query = "key=a&from=x&from=y&key=b";
        assert_eq!(first(query, "from").as_deref(), Some(b"x".as_slice()));
        assert_eq!(first("from=", "from"), None);
        assert_eq!(all(query, "key").count(), 2);
        assert_eq!(all("key", "key").next().as_deref(), Some(b"".as_slice()));
        assert_eq!(all("%6bey=a", "key").count(), 1);
    }

    #[test]
    fn only_known_names_are_accepted_and_only_once() {
        let check = |query| check_names(query, &["from", "limit"]).is_ok();
        assert!(check("") && check("from=1&limit=2") && check("&%66rom=1&"));
        assert!(!check("from=1&from=2") && !check("after=0") && !check("from=1&FROM=1"));
        assert!(!check("=1") && !check("from&%FF") && !check(&"x".repeat(5_000)));
        assert!(check_names("", &[]).is_ok() && check_names("x", &[]).is_err());
    }

    #[test]
    fn routes_are_found_behind_slashes_and_escapes() {
        assert_eq!(route("/get"), None);
        assert_eq!(route("//get").as_deref(), Some("/get"));
        assert_eq!(route("///get").as_deref(), Some("/get"));
        assert_eq!(route("/%67et").as_deref(), Some("/get"));
        assert_eq!(route("/%2Fget").as_deref(), Some("/get"));
        assert_eq!(route("//").as_deref(), Some("/"));
        assert_eq!(route("/%67et%3Fkey=a"), None);
        assert_eq!(route("/%FF"), None);
        assert_eq!(route("/g%2et/").as_deref(), Some("/g.t/"));
    }
}
