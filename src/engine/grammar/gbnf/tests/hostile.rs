//! Texts that would take long, or more than there is, and those that are stopped.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;

/// Rules, each of which names the next so often, down to the last.
fn levels(first: &str, n_levels: usize, between: &str, n_names: usize, last: &str) -> String {
    let mut text = format!("root ::= {first} n0\n");
    for level in 0..n_levels {
        let names = vec![format!("n{}", level + 1); n_names].join(between);
        text += &format!("n{level} ::= {names}\n");
    }
    text + &format!("n{n_levels} ::= {last}\n")
}

#[test]
fn what_has_no_text_is_left_out() {
    let begun = Instant::now();
    let z = " z".repeat(40_000);
    let mut texts = vec![
        levels("\"a\"", 9, " ", 10, "\"\""),
        levels("\"a\"", 20, " ", 10, "\"\""),
        levels("\"a\"", 20, " | ", 4, "\"\""),
        levels("\"a\"", 20, " ", 10, "\"b\"{0}"),
        levels("\"a\"", 40, " ", 10, "\"b\"{0}*"),
        levels("\"a\"", 9, " ", 10, "<a>{0}"),
    ];
    texts.push(format!("root ::= \"a\"{z}\nz ::= |\n"));
    for text in &texts {
        let parser = compile(text);
        assert!(allows(&parser, "a") && !allows(&parser, "") && !allows(&parser, "aa"), "{:.80}", lark(text).unwrap());
    }
    let parser = compile(&format!("root ::= (\"a\"{z}){{3}} root?\nz ::= |\n"));
    assert!(allows(&parser, "aaa") && allows(&parser, "aaaaaa") && !allows(&parser, "aaaa"));
    // Nothing of 4000 times 40000 parts is gone through; nor of parts that may be left out.
    assert!(lark(&format!("root ::= (\"a\"{z}){{4000}} root?\nz ::= |\n")).unwrap().len() < 20_000);
    assert!(lark(&format!("root ::= (\"a\"?{z}){{4000}} \"b\" root?\nz ::= |\n")).unwrap().len() < 20_000);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// What has texts is bounded by them: it is taken apart, and not expanded.
#[test]
fn what_has_texts_is_not_expanded_without_bound() {
    let begun = Instant::now();
    for (text, good, bad) in [
        (levels("\"a\"", 20, " | ", 4, "\"b\""), "ab", "aa"),
        (levels("\"a\"", 3, " ", 2, "(\"b\" |  | )"), "abb", "aba"),
    ] {
        let parser = compile(&text);
        assert!(allows(&parser, good) && !allows(&parser, bad), "{text}");
    }
    let _ = lark(&levels("\"a\"", 20, " ", 10, "\"b\"?"));
    // Pairs of places, behind each of which as many may come.
    let _ = lark(&format!("root ::= (({}) root)?", vec!["(\"a\" | \"b\")*"; 250].join(" | ")));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// A vocabulary of many tokens, which counts how often it is asked for an end.
struct Many(std::cell::Cell<usize>);

impl Tokens for Many {
    fn n_vocab(&self) -> usize {
        300_000
    }

    fn of_text(&self, _: &str) -> Option<u32> {
        None
    }

    fn is_end(&self, id: u32) -> bool {
        self.0.set(self.0.get() + 1);
        id == 7 || id == 299_999
    }

    fn text(&self, _: u32) -> Option<Vec<u8>> {
        Some(b"a".to_vec())
    }
}

#[test]
fn all_but_a_token_goes_through_the_vocabulary_once() {
    let many = Many(std::cell::Cell::new(0));
    let text = format!("root ::= {}", "!<[100]> ".repeat(8000));
    let lark = translate(&text, &many, &AtomicBool::new(false)).unwrap();
    assert_eq!(lark.matches("<[0-6,8-99,101-299998]>").count(), 8000);
    assert!(many.0.get() < 400_000, "{}", many.0.get());
    let text = "root ::= !<[5]> !<[8]> !<[299998]>";
    let lark = translate(text, &many, &AtomicBool::new(false)).unwrap();
    assert!(lark.contains("(<[0-4,6-6,8-299998]> <[0-6,9-299998]> <[0-6,8-299997]>)"), "{lark}");
}

#[test]
fn a_stop_is_heeded() {
    let stopped = AtomicBool::new(true);
    assert_eq!(translate("root ::= \"a\"", &Bytes, &stopped).unwrap_err(), "stopped");
    let stopped = AtomicBool::new(false);
    // Takes all of its steps where nobody stops it.
    let parts = (0..5000).map(|i| format!("\"{i:x}\" [a-f]{{1,{}}}", i % 7 + 1)).collect::<Vec<_>>().join(" | ");
    let text = format!("root ::= {parts} root?");
    std::thread::scope(|scope| {
        let translated = scope.spawn(|| (translate(&text, &Bytes, &stopped), Instant::now()));
        std::thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        stopped.store(true, Ordering::Release);
        let (outcome, ended) = translated.join().unwrap();
        let waited = ended.saturating_duration_since(begun);
        assert!(outcome.is_ok() || outcome == Err("stopped".to_owned()));
        assert!(waited < Duration::from_millis(500), "{waited:?}");
    });
}

/// 100 groups within each other, as the header says.
#[test]
fn groups_stand_within_each_other() {
    for n in [9, 10, 11, 27, 100] {
        let text = format!("root ::= {}\"a\" root{} \"b\"", "(".repeat(n), ")*".repeat(n));
        // With a token it is no terminal at any height.
        let tokens = format!("root ::= {}<a>{}", "( \"x\" ".repeat(n), " \"y\")*".repeat(n));
        let parser = compile(&text);
        assert!(allows(&parser, "b") && allows(&parser, "ababb") && !allows(&parser, "ab"), "{n}");
        let parser = compile(&tokens);
        let all = [vec![u32::from(b'x'); n], vec![256], vec![u32::from(b'y'); n]].concat();
        assert_eq!(taken(&parser, all.iter().copied()), (all.len(), true), "{n}");
        assert!(!taken(&parser, all[..all.len() - 1].iter().copied()).1, "{n}");
    }
    let deeper = format!("root ::= {}\"a\"{}", "(".repeat(101), ")".repeat(101));
    assert!(lark(&deeper).unwrap_err().contains("more than 100"));
}

#[test]
fn errors_show_nothing_of_the_lark_text() {
    for (message, expected) in [
        (
            "7(12): lark grammar too deeply nested (at ( (LParen))\n 7 | r0: ((((\n     ^",
            "lark grammar too deeply nested",
        ),
        ("at 7(12): no such token: T9\nT9", "no such token: T9"),
        ("at EOF: unexpected end", "unexpected end"),
        ("terminals: 20001; at most 20000", "terminals: 20001; at most 20000"),
    ] {
        assert_eq!(refusal(message), expected);
    }
}
