//! Tests of the rendered text, and of its slices.

use super::*;
use crate::limits::DEPTH_MAX;
use crate::protocol::reader::{Fault, Read};
use crate::protocol::writer;

/// Renders a value slice by slice.
fn render(value: &[u8], out: &mut impl Sink) -> Read<()> {
    sliced(value, out, || 0)
}

/// The same with slices that begin after this much work.
fn sliced(value: &[u8], out: &mut impl Sink, begin: impl Fn() -> usize) -> Read<()> {
    let mut renderer = Renderer::new(0);
    loop {
        let mut spent = Spent(begin());
        let (at, len) = (spent.0, out.len());
        renderer.run(value, out, &mut spent)?;
        assert!(spent.0 < SLICE_BYTES + STEP_BYTES_MAX, "a slice of {} bytes", spent.0);
        assert!(spent.0 - at >= out.len() - len, "all that is written is counted");
        match renderer.end() {
            Some(end) if end == value.len() => return Ok(()),
            Some(_) => return Err(Fault::Invalid),
            None => assert!(spent.is_over()),
        }
    }
}

fn json(value: &[u8]) -> String {
    let mut out = b"before".to_vec();
    render(value, &mut out).expect("one MessagePack value");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.strip_prefix("before").expect("what was there stays").to_owned()
}

fn packed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn str(text: &str) -> Vec<u8> {
    packed(|out| writer::str(out, text))
}

fn bin(bytes: &[u8]) -> Vec<u8> {
    packed(|out| writer::bin(out, bytes))
}

/// A map of `pairs`, each key and value already packed.
fn map(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = packed(|out| writer::map_len(out, pairs.len()));
    for (key, value) in pairs {
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    out
}

#[test]
fn nil_booleans_and_integers_of_every_width() {
    assert_eq!(json(&[0xC0]), "null");
    assert_eq!(json(&[0xC2]), "false");
    assert_eq!(json(&[0xC3]), "true");
    let numbers: [i128; 12] = [
        0,
        127,
        128,
        65_535,
        1 << 31,
        1 << 53,
        u64::MAX.into(),
        -1,
        -32,
        -33,
        -40_000,
        i64::MIN.into(),
    ];
    for number in numbers {
        assert_eq!(json(&packed(|out| writer::int(out, number))), number.to_string());
    }
    assert_eq!(json(&[0xD3, 0, 0, 0, 0, 0, 0, 0, 1]), "1", "a wide small integer");
}

#[test]
fn floats_keep_their_exact_value_and_nan_is_null() {
    let single = |number: f32| json(&[&[0xCA], number.to_be_bytes().as_slice()].concat());
    let double = |number: f64| json(&[&[0xCB], number.to_be_bytes().as_slice()].concat());
    assert_eq!(double(1.0), "1.0");
    assert_eq!(double(-0.0), "-0.0");
    assert_eq!(double(0.1), "0.1");
    assert_eq!(double(1e300), "1e300");
    assert_eq!(double(5e-324), "5e-324");
    assert_eq!(single(0.5), "0.5");
    assert_eq!(single(1.1), "1.100000023841858");
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(double(number), "null");
    }
    assert_eq!(single(f32::NAN), "null");
    for number in [1.5e-7, 1e16, 123_456_789.125, f64::MAX, f64::MIN_POSITIVE] {
        assert_eq!(serde_json::from_str::<f64>(&double(number)).ok(), Some(number));
    }
}

#[test]
fn strings_are_escaped_and_read_back_the_same() {
    let every_byte: String = (0..0x180).filter_map(char::from_u32).collect();
    for text in ["", "plain", "\"quotes\" and \\", "æøå 漢 🜁", every_byte.as_str()] {
        assert_eq!(serde_json::from_str::<String>(&json(&str(text))).ok().as_deref(), Some(text));
    }
    assert_eq!(json(&str("a\n\u{1}\u{7f}")), "\"a\\n\\u0001\u{7f}\"");
    assert_eq!(json(&str(&"x".repeat(70_000))).len(), 70_002);
}

#[test]
fn bytes_are_base64_and_so_is_text_that_is_not_utf8() {
    assert_eq!(json(&bin(b"")), r#"{"base64":""}"#);
    assert_eq!(json(&bin(b"text")), r#"{"base64":"dGV4dA=="}"#);
    assert_eq!(json(&[0xA2, 0xFF, 0xFE]), r#"{"base64":"//4="}"#);
    assert_eq!(json(&bin(&[0; 300])).len(), 413);
}

#[test]
fn ext_shows_its_type() {
    assert_eq!(json(&[0xD4, 5, 0xAA]), r#"{"ext":[5,"qg=="]}"#);
    assert_eq!(json(&[0xD6, 0xFF, 0, 0, 0, 1]), r#"{"ext":[-1,"AAAAAQ=="]}"#);
    assert_eq!(json(&[0xC7, 0, 7]), r#"{"ext":[7,""]}"#);
    assert_eq!(json(&[0xC8, 0, 1, 7, 0xAA]), r#"{"ext":[7,"qg=="]}"#);
    assert_eq!(json(&[0xC9, 0, 0, 0, 1, 7, 0xAA]), r#"{"ext":[7,"qg=="]}"#);
}

#[test]
fn arrays_and_maps_nest() {
    assert_eq!(json(&[0x90]), "[]");
    assert_eq!(json(&[0x80]), "{}");
    assert_eq!(json(&[0x93, 1, 0x91, 2, 0xC0]), "[1,[2],null]");
    let inner = map(&[(&str("x"), &[0x90])]);
    assert_eq!(json(&map(&[(&str("a"), &[1]), (&str("b"), &inner)])), r#"{"a":1,"b":{"x":[]}}"#);
}

#[test]
fn keys_that_are_no_text_become_their_json_text() {
    assert_eq!(json(&map(&[(&[1], &[2])])), r#"{"1":2}"#);
    assert_eq!(json(&map(&[(&[0xC0], &[2])])), r#"{"null":2}"#);
    assert_eq!(json(&map(&[(&[0x92, 1, 0xC3], &[2])])), r#"{"[1,true]":2}"#);
    assert_eq!(json(&map(&[(&bin(b"a"), &[2])])), r#"{"{\"base64\":\"YQ==\"}":2}"#);
    assert_eq!(json(&map(&[(&[0xA1, 0xFF], &[2])])), r#"{"{\"base64\":\"/w==\"}":2}"#);
    let within = map(&[(&str("x"), &[1])]);
    assert_eq!(json(&map(&[(&within, &[2])])), r#"{"{\"x\":1}":2}"#);
}

#[test]
fn maps_as_keys_of_maps_as_keys_do_not_double_without_end() {
    let mut value = str("\"");
    for _ in 0..20 {
        value = map(&[(&value, &[1])]);
    }
    let text = json(&value);
    assert!(text.len() < 1_000, "{} bytes", text.len());
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
}

#[test]
fn the_longest_texts_are_not_longer_than_they_may_be() {
    let nothing = bin(b"");
    let many = [packed(|out| writer::array_len(out, 1_000)), nothing.repeat(1_000)].concat();
    let within = map(&[(&[0xC0], &nothing)]);
    let worst = [
        (packed(|out| writer::array_len(out, 0)), nothing.clone()),
        (str(&"\u{1}".repeat(1_000)), str("")),
        (many.clone(), many),
        (within.clone(), within),
        ([[0x91, 0xCA].as_slice(), &f32::MIN_POSITIVE.to_be_bytes()].concat(), vec![0xC2]),
    ];
    for (key, value) in worst {
        let packed = map(&[(&key, &value)]);
        let text = json(&packed);
        assert!(text.len() <= EXPANSION_MAX * packed.len(), "{text}");
        let mut length = Length::default();
        render(&packed, &mut length).expect("one MessagePack value");
        assert_eq!(length.len(), text.len());
    }
}

#[test]
fn depth_is_bounded_and_bytes_that_are_no_value_fail() {
    let nested = |levels: usize| [vec![0x91; levels], vec![0xC0]].concat();
    assert_eq!(json(&nested(DEPTH_MAX)).len(), 2 * DEPTH_MAX + 4);
    let mut out = b"before".to_vec();
    assert_eq!(render(&nested(DEPTH_MAX + 1), &mut out), Err(Fault::TooDeep));
    assert_eq!(render(&[1, 2], &mut out), Err(Fault::Invalid));
    assert_eq!(render(&[0x92, 1], &mut out), Err(Fault::Truncated));
}

#[test]
fn any_bytes_render_to_valid_json_or_are_a_fault() {
    let mut random = fastrand::Rng::with_seed(7_532);
    for round in 0..100_000 {
        let bytes: Vec<u8> = (0..random.usize(..24)).map(|_| random.u8(..)).collect();
        let (mut out, mut length) = (Vec::new(), Length::default());
        let _ = render(&bytes, &mut length);
        match render(&bytes, &mut out) {
            Ok(()) => {
                assert_eq!(length.len(), out.len(), "round {round}: {bytes:02x?}");
                assert!(out.len() <= EXPANSION_MAX * bytes.len(), "round {round}: {out:?}");
                let parsed = serde_json::from_slice::<serde_json::Value>(&out);
                assert!(parsed.is_ok(), "round {round}: {bytes:02x?} -> {out:?}: {parsed:?}");
            }
            Err(_) => assert_eq!(length.len(), out.len(), "round {round}: {bytes:02x?}"),
        }
    }
}

#[test]
fn keys_of_the_store_are_text_or_percent_encoded() {
    let key = |bytes: &[u8]| {
        let mut out = Vec::new();
        render_key(bytes, &mut out);
        String::from_utf8(out).expect("UTF-8")
    };
    assert_eq!(key(b""), r#""""#);
    assert_eq!(key("ø\"%41".as_bytes()), r#""ø\"%41""#);
    assert_eq!(key(b"a&b \xFF%~"), r#""a%26b%20%FF%25~""#);
}

/// A value of a random type, at most this many levels deep.
fn random_value(random: &mut fastrand::Rng, depth: usize, out: &mut Vec<u8>) {
    let bytes: Vec<u8> = (0..random.usize(..8)).map(|_| random.u8(..)).collect();
    match random.u8(..if depth == 0 { 6 } else { 8 }) {
        0 => writer::nil(out),
        1 => writer::int(out, random.i64(..).into()),
        2 => writer::str(out, &"\u{1}\"ø漢".repeat(random.usize(..3_000))),
        3 => writer::bin(out, &bytes.repeat(random.usize(..3_000))),
        4 => {
            // A str that is not UTF-8 only at its end.
            let text = ["ø".repeat(random.usize(..4_000)).as_bytes(), b"\xFF"].concat();
            out.push(0xDA);
            out.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
            out.extend_from_slice(&text);
        }
        5 => out.extend_from_slice(&[0xD4, 7, 0xAA]),
        6 => {
            let len = random.usize(..6);
            writer::array_len(out, len);
            (0..len).for_each(|_| random_value(random, depth - 1, out));
        }
        _ => {
            let len = random.usize(..4);
            writer::map_len(out, len);
            (0..2 * len).for_each(|_| random_value(random, depth - 1, out));
        }
    }
}

#[test]
fn the_text_is_the_same_wherever_slices_end() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..150 {
        let mut value = Vec::new();
        random_value(&mut random, 5, &mut value);
        let (mut whole, mut length) = (Vec::new(), Length::default());
        render(&value, &mut whole).expect("one MessagePack value");
        render(&value, &mut length).expect("one MessagePack value");
        assert_eq!(length.len(), whole.len());
        let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&whole);
        assert!(parsed.is_ok(), "{parsed:?}");
        for small in [1, 7, 100, 5_000] {
            let mut out = Vec::new();
            sliced(&value, &mut out, || SLICE_BYTES - small).expect("one MessagePack value");
            assert!(out == whole, "in slices of about {small} bytes");
        }
    }
}

#[test]
fn no_shape_of_a_value_makes_a_slice_long() {
    const LEN: usize = 1 << 20;
    let array = |len: usize, part: &[u8]| {
        [packed(|out| writer::array_len(out, len)), part.repeat(len)].concat()
    };
    let nils = array(LEN, &[0xC0]);
    let text = str(&"\u{1}".repeat(LEN / 4));
    let bytes = bin(&vec![0xAA; LEN]);
    let no_text = [&[0xDB, 0, 16, 0, 0], vec![b'a'; LEN - 1].as_slice(), b"\xFF"].concat();
    let ext = [&[0xC9, 0, 16, 0, 0, 7], vec![0xAA; LEN].as_slice()].concat();
    let deep = array(LEN / 64, &[vec![0x91; DEPTH_MAX - 2], vec![0xC0]].concat());
    let empty = array(LEN, &bin(b""));
    for long in [&nils, &text, &bytes, &no_text, &ext, &deep, &empty] {
        let within = map(&[(long, &[1])]);
        let shapes = [long.clone(), map(&[(&[1], long)]), within.clone(), map(&[(&within, &[1])])];
        for value in shapes {
            match render(&value, &mut Length::default()) {
                Ok(()) => {}
                Err(fault) => assert_eq!(fault, Fault::TooDeep),
            }
        }
    }
}
