//! The UTF-8 stream: what comes out does not depend on how the bytes were cut, and ends before a stop string.

use kigo::tokenizer::Utf8Stream;
use proptest::prelude::*;

/// Pushes the pieces; gives all text, the stop string, and in which push it came (the number of pieces: `finish`).
fn run(stops: &[&str], pieces: &[&[u8]]) -> (String, Option<usize>, Option<usize>) {
    let mut stream = Utf8Stream::new(stops).unwrap();
    let (mut text, mut stopped, mut at) = (String::new(), None, None);
    for i in 0..=pieces.len() {
        let out = if i < pieces.len() { stream.push(pieces[i]) } else { stream.finish() }.unwrap();
        assert!(stopped.is_none() || out.text.is_empty(), "text after the stop");
        text.push_str(out.text);
        stopped = out.stopped;
        at = at.or(stopped.map(|_| i));
    }
    (text, stopped, at)
}

fn whole(stops: &[&str], text: &str) -> (String, Option<usize>) {
    let (text, stopped, _) = run(stops, &[text.as_bytes()]);
    (text, stopped)
}

#[test]
fn characters_come_out_whole() {
    let mut stream = Utf8Stream::new(&[]).unwrap();
    let face = "\u{1f600}".as_bytes();
    assert_eq!(stream.push(&face[..1]).unwrap().text, "");
    assert_eq!(stream.push(&face[1..3]).unwrap().text, "");
    assert_eq!(stream.push(&[face[3], b'a']).unwrap().text, "\u{1f600}a");
    assert_eq!(stream.push(&face[..2]).unwrap().text, "");
    assert_eq!(stream.finish().unwrap().text, "\u{fffd}");
    assert_eq!(stream.finish().unwrap().text, "");
}

#[test]
fn invalid_bytes_are_replaced_by_maximal_subparts() {
    // The table of the Unicode standard, section 3.9, and the other ways to be wrong.
    for bytes in [
        &b"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"[..],
        b"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41",
        b"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41",
        b"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42",
        b"\xE2\x82\xE2\x82\xAC\xF0\x9F\x98",
    ] {
        let expected = String::from_utf8_lossy(bytes);
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(run(&[], &[bytes]).0, expected);
        assert_eq!(run(&[], &bytewise).0, expected);
    }
}

#[test]
fn stop_strings() {
    assert_eq!(whole(&["aab"], "aaab!"), ("a".into(), Some(0)));
    assert_eq!(whole(&["abcd", "bc"], "abcd"), ("a".into(), Some(1)), "the first to be complete");
    assert_eq!(whole(&["c", "abc", "bc"], "xabc"), ("x".into(), Some(1)), "the longest that ends there");
    assert_eq!(whole(&["\n\n", "User:"], "Hi\nUser: x"), ("Hi\n".into(), Some(1)));
    assert_eq!(whole(&["stop"], "sto"), ("sto".into(), None), "what was held back comes at the end");
    assert_eq!(whole(&["\u{e9}\u{1f600}"], "a\u{e9}\u{1f600}b"), ("a".into(), Some(0)));
    assert_eq!(whole(&["\u{fffd}"], "plain"), ("plain".into(), None));
    assert_eq!(run(&["\u{fffd}"], &[b"a\xff", b"b"]), ("a".into(), Some(0), Some(0)));
    assert_eq!(run(&["\u{fffd}"], &[b"a\xe2"]), ("a".into(), Some(0), Some(1)), "an incomplete end is a stop too");
    assert!(Utf8Stream::new(&["a", ""]).is_err());
}

#[test]
fn only_what_may_become_a_stop_is_held_back() {
    let mut stream = Utf8Stream::new(&["</s>", "\n\nUser"]).unwrap();
    assert_eq!(stream.push(b"one <").unwrap().text, "one ");
    assert_eq!(stream.push(b"/").unwrap().text, "");
    assert_eq!(stream.push(b"p>\n").unwrap().text, "</p>");
    assert_eq!(stream.push(b"two").unwrap().text, "\ntwo");
    let out = stream.push(b"\n\nUs").unwrap();
    assert_eq!((out.text, out.stopped), ("", None));
    let out = stream.push(b"er: three").unwrap();
    assert_eq!((out.text, out.stopped), ("", Some(1)));
    let out = stream.push(b"four").unwrap();
    assert_eq!((out.text, out.stopped), ("", Some(1)));
    assert_eq!(stream.stopped(), Some(1));
}

/// What the stream should give, worked out from the whole text at once.
fn expected(stops: &[String], bytes: &[u8]) -> (String, Option<usize>) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for end in 0..=text.len() {
        let ending = stops.iter().enumerate().filter(|(_, s)| text.as_bytes()[..end].ends_with(s.as_bytes()));
        // Of equal strings the first.
        if let Some((i, stop)) = ending.rev().max_by_key(|(i, s)| (s.len(), usize::MAX - i)) {
            return (text[..end - stop.len()].into(), Some(i));
        }
    }
    (text, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_do_not_matter(
        bytes in prop::collection::vec(prop::sample::select(b"aab\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9\xff".to_vec()), 0..40),
        stops in prop::collection::vec("[ab\u{20ac}\u{e9}\u{fffd}]{1,4}", 0..4),
        cuts in prop::collection::vec(0..40usize, 0..12),
    ) {
        let stop_refs: Vec<&str> = stops.iter().map(String::as_str).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut done = 0;
        for cut in cuts {
            pieces.push(&bytes[done..cut]);
            done = cut;
        }
        pieces.push(&bytes[done..]);
        let (text, stopped, _) = run(&stop_refs, &pieces);
        prop_assert_eq!((text, stopped), expected(&stops, &bytes));
    }

    #[test]
    fn nothing_decided_is_held_back(text in "[ab]{0,30}", stop in "[ab]{1,5}") {
        let mut stream = Utf8Stream::new(&[&stop]).unwrap();
        let mut given = 0;
        for end in 1..=text.len() {
            let out = stream.push(&text.as_bytes()[end - 1..end]).unwrap();
            given += out.text.len();
            if out.stopped.is_some() {
                break;
            }
            let held = &text[given..end];
            prop_assert!(stop.starts_with(held) && held.len() < stop.len());
            let longer = (given.saturating_sub(stop.len())..given).find(|&s| stop.starts_with(&text[s..end]));
            prop_assert_eq!(longer, None, "more could still become the stop string");
        }
    }
}
