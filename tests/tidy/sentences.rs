//! Sentences in documents: long ones are warned of.

use std::io::Write;

use super::documents::{documents, without_blocks};

/// Words of a sentence that needs a reason.
const WORDS_MAX: usize = 35;
/// How many are shown.
const SHOWN: usize = 5;

/// The sentences of a document with the lines on which they begin; tables and headings have none.
fn sentences(document: &str) -> Vec<(usize, String)> {
    let mut sentences = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in without_blocks(document).lines().enumerate() {
        let line = if line.starts_with("    ") { "" } else { line.trim() };
        let is_item = line.starts_with("- ")
            || line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        let is_text = !line.is_empty() && !line.starts_with(['#', '|']);
        if is_item || !is_text {
            sentences.extend(open.take());
        }
        if !is_text {
            continue;
        }
        for word in line.trim_start_matches("- ").split_whitespace() {
            let (_, sentence) = open.get_or_insert((number + 1, String::new()));
            sentence.push_str(word);
            sentence.push(' ');
            if word.trim_end_matches(['*', ')', '"', '`']).ends_with(['.', '!', '?', ':', ';']) {
                sentences.extend(open.take());
            }
        }
    }
    sentences.extend(open);
    sentences
}

/// The length of the middle sentence, and those that are too long.
fn measure(document: &str) -> (usize, Vec<(usize, usize, String)>) {
    let counted = sentences(document).into_iter().map(|(line, sentence)| {
        let words = sentence.split_whitespace().count();
        (line, words, sentence)
    });
    let counted: Vec<_> = counted.collect();
    let mut lengths: Vec<_> = counted.iter().map(|(_, words, _)| *words).collect();
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or_default();
    (median, counted.into_iter().filter(|(_, words, _)| *words > WORDS_MAX).collect())
}

#[test]
fn long_sentences_are_warned_of() {
    // Not by `eprintln`, which a test that passes keeps to itself.
    let mut out = std::io::stderr().lock();
    let mut long = Vec::new();
    for (path, document) in documents() {
        let (median, sentences) = measure(&document);
        println!("{path}: median {median} words, {} sentences too long", sentences.len());
        long.extend(
            sentences.into_iter().map(|(line, words, text)| (words, path.clone(), line, text)),
        );
    }
    long.sort_by(|a, b| b.cmp(a));
    for (words, path, line, text) in long.iter().take(SHOWN) {
        let start: String = text.chars().take(60).collect();
        writeln!(out, "warning: {path}:{line}: a sentence of {words} words: {start}…").unwrap();
    }
    if let Some(more @ 1..) = long.len().checked_sub(SHOWN) {
        writeln!(out, "warning: and {more} more sentences of more than {WORDS_MAX} words").unwrap();
    }
}

#[test]
fn a_sentence_of_36_words_is_too_long_and_one_of_35_is_not() {
    let document =
        |words: usize| format!("# One\n\n- {}end.\n\nShort.\n", "word ".repeat(words - 1));
    assert!(measure(&document(35)).1.is_empty());
    let (median, long) = measure(&document(36));
    assert_eq!((median, long.len(), long[0].0, long[0].1), (36, 1, 3, 36));
}
