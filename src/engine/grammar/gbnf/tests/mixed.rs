//! Tokens of text and characters in one grammar: told apart, or refused.

use super::{compile, lark, taken};

/// `a`, `b` and so on are tokens 97, 98 and so on; `<a>` and `<b>` are control tokens.
#[test]
fn a_token_of_text_is_refused_where_characters_may_stand() {
    for (text, rule) in [
        ("root ::= <[97]> | \"abc\"", "the rule \"root\": <[97]>"),
        ("root ::= !<[1]>* \"x\" [0-9]", "the rule \"root\": !<[1]>"),
        ("root ::= [0-9]* x\nx ::= <[49]>", "the rule \"x\": <[49]>"),
        ("root ::= \"x\" [a-z]+ t\nt ::= <[97]>", "the rule \"t\": <[97]>"),
        // Behind more than one character, and by rules that name themselves.
        ("root ::= y <[97]> | z \"abc\"\ny ::= \"q\" y | \"1\"\nz ::= \"q\" z | \"1\"", "the rule \"root\": <[97]>"),
        // In the midst of a terminal.
        ("root ::= \"q\" <[97]> | \"qabc\"", "the rule \"root\": <[97]>"),
        ("root ::= (\"(\" root \")\" | !<a>)", "the rule \"root\": !<[256]>"),
        // Within what may begin with it, or with a token that is the same.
        ("root ::= <[98]> <[97]> | !<[99]> .", "the rule \"root\": <[97]>"),
        ("root ::= <[195]> | \"\u{e4}\"", "the rule \"root\": <[195]>"),
    ] {
        let error = lark(text).expect_err(text);
        assert!(error.starts_with(rule) && error.contains("a token of text where characters may stand"), "{error}");
    }
}

#[test]
fn tokens_that_can_be_told_apart_are_allowed() {
    let text = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    for (grammar, good, bad) in [
        ("root ::= .* <a> \"x\"", [text("so"), vec![256], text("x")].concat(), text("so<a>x")),
        ("root ::= <a> !<b>* <b> .*", [vec![256], text("hm"), vec![257], text("so")].concat(), text("hm")),
        ("root ::= <[97]> | \"xyz\"", text("a"), text("ab")),
        ("root ::= <[97]> | \"xyz\"", text("xyz"), text("ayz")),
        ("root ::= \"abc\" <[97]> \"a\"", text("abcaa"), text("abca")),
        // The token that it is not is what ends it.
        ("root ::= !<[59]>* <[59]> [a-z]", text("12;a"), text("12a")),
        ("root ::= <[97]> \"1\" | <[98]> <[50]>", text("b2"), text("b1")),
    ] {
        let parser = compile(grammar);
        assert_eq!(taken(&parser, good.iter().copied()), (good.len(), true), "{grammar}");
        assert_ne!(taken(&parser, bad.iter().copied()), (bad.len(), true), "{grammar}");
    }
}

#[test]
fn telling_them_apart_is_bounded() {
    let many = (0..3000).map(|n| format!("\"{n:04}\"")).collect::<Vec<_>>().join(" | ");
    for text in [
        format!("root ::= ({many})* <[97]>"),
        format!("root ::= ({}) <[97]>", vec!["[0-9]*"; 4000].join(" ")),
        "root ::= [0-9]{4000} root? | <[97]>".to_owned(),
    ] {
        let outcome = lark(&text).map(|lark| lark.len());
        assert!(outcome.as_ref().err().is_none_or(|e| e.contains("; at most 1000000")), "{outcome:?}");
    }
}
