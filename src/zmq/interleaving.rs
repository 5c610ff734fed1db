//! Commands between the frames of a message leave that message unchanged, wherever reads end.

use super::zmtp::tests::greeted_as;
use super::zmtp::{Codec, Inbox, Kind, Signal, Violation, write_frame};
use crate::limits::Limits;

type Messages = Vec<Vec<Vec<u8>>>;

/// Commands that a peer may send between messages.
const COMMANDS: [&[u8]; 9] = [
    b"\x04\x07\x04PING\0\0",
    b"\x04\x17\x04PING\0\x500123456789abcdef",
    b"\x04\x05\x04PONG",
    b"\x04\x08\x04PONGabc",
    b"\x04\x0B\x09SUBSCRIBEa",
    b"\x04\x08\x06CANCELa",
    b"\x04\x06\x04JOINc",
    b"\x04\x04\x03FOO",
    b"\x06\0\0\0\0\0\0\x01\x05\x04MINE",
];

fn command(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = COMMANDS[random.usize(..COMMANDS.len())].to_vec();
    if bytes[0] == 6 {
        bytes.resize(9 + 0x105, b'x');
    }
    bytes
}

/// Some messages, and a stream that carries them with commands wherever those may come.
fn stream(random: &mut fastrand::Rng) -> (Messages, Vec<u8>) {
    let (mut messages, mut bytes) = (Messages::new(), Vec::new());
    for _ in 0..random.usize(1..5) {
        let frames: Vec<Vec<u8>> = (0..random.usize(1..5))
            .map(|_| vec![random.u8(..); [0, 1, 3, 255, 256, 300][random.usize(..6)]])
            .collect();
        for (index, frame) in frames.iter().enumerate() {
            for _ in 0..random.usize(..3) {
                bytes.extend(command(random));
            }
            write_frame(&mut bytes, index + 1 < frames.len(), frame);
        }
        messages.push(frames);
    }
    bytes.extend(command(random));
    (messages, bytes)
}

/// Feeds pieces to a peer's codec after the handshake; returns the codec and its output.
fn fed<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Codec, Inbox, Messages, Vec<u8>) {
    let (mut codec, mut inbox, mut replies) = greeted_as(Kind::Router);
    replies.clear();
    let mut messages = Messages::new();
    for piece in pieces {
        codec.feed(piece, &mut inbox, &mut replies).unwrap();
        // They are taken out as they come, as a session does.
        while let Some(message) = inbox.messages.pop_front() {
            let frame = |index| inbox.frame(&message, index).unwrap().to_vec();
            messages.push((0..message.len()).map(frame).collect());
        }
        inbox.rest();
    }
    (codec, inbox, messages, replies)
}

#[test]
fn messages_with_commands_in_them_are_the_same_wherever_reads_end() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..40 {
        let (messages, bytes) = stream(&mut random);
        let (_, _, whole, replies) = fed([bytes.as_slice()]);
        assert_eq!(whole, messages);
        for cut in 0..=bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let (codec, inbox, parts, answered) = fed([front, back]);
            assert_eq!(parts, messages, "cut at {cut}");
            assert_eq!(answered, replies, "cut at {cut}");
            assert_eq!(codec.unfinished(&inbox), None);
        }
        for piece in [1, 2, 7] {
            assert_eq!(fed(bytes.chunks(piece)).2, messages, "in pieces of {piece}");
        }
        let mut cuts = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(random.usize(1..=rest.len().min(400)));
            cuts.push(piece);
            rest = others;
        }
        assert_eq!(fed(cuts).2, messages);
    }
}

#[test]
fn every_ping_is_answered_with_its_context() {
    let stream = b"\x01\x01a\x04\x0A\x04PING\0\0xyz\x01\x01b\x04\x07\x04PING\0\0\0\x01c";
    let (_, _, messages, replies) = fed([&stream[..]]);
    assert_eq!(messages, [[b"a", b"b", b"c"].map(|frame| frame.to_vec())]);
    assert_eq!(replies, b"\x04\x08\x04PONGxyz\x04\x05\x04PONG");
}

#[test]
fn commands_between_frames_reset_no_bound() {
    for command in COMMANDS {
        let mut command = command.to_vec();
        if command[0] == 6 {
            command.resize(9 + 0x105, b'x');
        }
        let (mut codec, mut inbox, mut replies) = greeted_as(Kind::Router);
        let mut frames = 0;
        let refused = loop {
            let frame = [b"\x01\x01a".as_slice(), &command].concat();
            replies.clear();
            match codec.feed(&frame, &mut inbox, &mut replies) {
                Ok(()) => frames += 1,
                Err(refused) => break refused,
            }
            let held = inbox.held() + codec.held();
            assert!(held <= 64 * frames + 8 * 1024, "{held} bytes for {frames} frames");
        };
        assert!(matches!(refused, Violation::TooManyFrames { .. }), "{refused}");
        assert_eq!(frames, Limits::default().max_frames);
    }
    let (mut codec, mut inbox, mut replies) = greeted_as(Kind::Router);
    let mut frame = Vec::new();
    write_frame(&mut frame, true, &vec![0; 10 << 20]);
    frame.extend_from_slice(COMMANDS[0]);
    let fits = Limits::default().max_message_bytes / (10 << 20);
    for _ in 0..fits {
        codec.feed(&frame, &mut inbox, &mut replies).unwrap();
    }
    let refused = codec.feed(&frame, &mut inbox, &mut replies);
    assert!(matches!(refused, Err(Violation::MessageTooLarge { .. })));
}

#[test]
fn bytes_of_commands_do_not_count_as_progress_of_a_message() {
    let (mut codec, mut inbox, mut replies) = greeted_as(Kind::Router);
    codec.feed(b"\x01\x01a", &mut inbox, &mut replies).unwrap();
    let before = codec.unfinished(&inbox);
    for _ in 0..100 {
        for command in COMMANDS.iter().filter(|command| command[0] == 4) {
            codec.feed(command, &mut inbox, &mut replies).unwrap();
        }
    }
    assert_eq!(codec.unfinished(&inbox), before);
    codec.feed(b"\x01\x03abc", &mut inbox, &mut replies).unwrap();
    assert_ne!(codec.unfinished(&inbox), before);
    let mut long = vec![6, 0, 0, 0, 0, 0, 0xF0, 0, 0, 4];
    long.extend_from_slice(b"MINE");
    codec.feed(&long, &mut inbox, &mut replies).unwrap();
    for _ in 0..390 {
        codec.feed(&[7; 40_000], &mut inbox, &mut replies).unwrap();
        assert!(codec.held() <= 1_024, "an unknown command goes as it comes");
    }
    assert!(codec.unfinished(&inbox).is_some());
}

#[test]
fn forbidden_commands_are_refused() {
    for bytes in [
        b"\x05\x07\x04PING\0\0".as_slice(),
        b"\x04\x00",
        b"\x04\x01\x00",
        b"\x04\x03\x05ab",
        b"\x04\x06\x04PING\0",
        b"\x04\x18\x04PING\x00\x00123456789abcdefgh",
        b"\x04\x06\x05READY",
        b"\x04\x0A\x05ERROR\x03bad",
        b"\x08\x01a",
    ] {
        for before in [b"".as_slice(), b"\x01\x01a", b"\0\x01a"] {
            let (mut codec, mut inbox, mut replies) = greeted_as(Kind::Router);
            let input = [before, bytes].concat();
            assert!(codec.feed(&input, &mut inbox, &mut replies).is_err(), "{input:?}");
        }
    }
}

#[test]
fn subscriptions_by_command_and_by_message_keep_their_order() {
    let (mut codec, mut inbox, mut replies) = greeted_as(Kind::Publisher);
    let wire =
        b"\0\x02\x01a\x04\x08\x06CANCELa\x04\x0B\x09SUBSCRIBEb\0\x02\0b\0\x01\x01\0\x02\x07x";
    for byte in wire.chunks(1) {
        codec.feed(byte, &mut inbox, &mut replies).unwrap();
    }
    let topic = |text: &'static [u8]| text.into();
    let expected = [
        Signal::Subscribe(topic(b"a")),
        Signal::Cancel(topic(b"a")),
        Signal::Subscribe(topic(b"b")),
        Signal::Cancel(topic(b"b")),
        Signal::Subscribe(topic(b"")),
    ];
    assert!(inbox.signals.iter().eq(&expected) && inbox.messages.is_empty());
}
