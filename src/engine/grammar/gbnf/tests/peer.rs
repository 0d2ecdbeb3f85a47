//! llama.cpp's own engine beside this one: which grammars it takes, and how far it takes texts (`scripts/make_gbnf_fixtures.py`).

use std::path::Path;

use serde_json::Value;

use super::{compile, lark, taken};

/// What one of the two refuses.
const DIFFER: &[&str] = &[
    // Refused there: groups that may be empty, several times; repetitions of repetitions; more than 2,000 times.
    "root ::= (\"a\" | )+ \"b\"",
    "root ::= (\"\")* \"a\"",
    "root ::= \"a\"**",
    "root ::= \"a\"?+ \"b\"",
    "root ::= \"a\"{3000}",
    // Refused here: what no character is of, or taken for no text there; a rule that a later one replaces there.
    "root ::= []",
    "root ::= [^]",
    "root ::= [c-a]",
    "root ::= \"a\"\nroot ::= \"b\"",
    "root ::= x \"b\"\nx ::= \"a\"\nx ::= \"c\"",
    "root ::= \"a\"{1,99999999999}",
];

fn row_text(row: &Value) -> Option<String> {
    match &row["file"] {
        Value::String(name) => {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/grammars").join(name);
            let text = std::fs::read_to_string(path).ok();
            if text.is_none() {
                println!("skipped: models/grammars lacks {name} (scripts/fetch_vocabularies.py fetches it)");
            }
            text
        }
        _ => Some(row["grammar"].as_str().expect("a text").to_owned()),
    }
}

#[test]
fn texts_are_taken_as_far_as_llama_cpp_takes_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gbnf.json");
    let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut n_texts, mut n_refused, mut wrong) = (0, 0, Vec::new());
    for row in &rows {
        let Some(grammar) = row_text(row) else { continue };
        let refused = lark(&grammar).err();
        let differs = DIFFER.contains(&&*grammar);
        let Some(texts) = row["texts"].as_array() else {
            if refused.is_none() != differs {
                wrong.push(format!("{grammar}\n  is refused there ({row}), here: {refused:?}"));
            }
            continue;
        };
        if let Some(error) = refused {
            // There, this is looked for where nothing that may be empty stands in front.
            if !differs && !error.contains("begins with itself") {
                wrong.push(format!("{grammar}\n  is refused here: {error}"));
            }
            n_refused += 1;
            continue;
        }
        let parser = compile(&grammar);
        for text in texts {
            let (text, n_chars, ends) = (text[0].as_str().unwrap(), &text[1], text[2].as_bool().unwrap());
            let n_bytes: usize = text.chars().take(n_chars.as_u64().unwrap() as usize).map(char::len_utf8).sum();
            let found = taken(&parser, text.bytes().map(u32::from));
            // A character of several bytes may be refused at any of them.
            let begun = text.get(n_bytes..).and_then(|rest| rest.chars().next()).map_or(0, |c| c.len_utf8() - 1);
            let same = (n_bytes..=n_bytes + begun).contains(&found.0) && found.1 == ends;
            if !same {
                wrong.push(format!("{grammar}\n  {text:?}: {n_bytes} {ends} there, {found:?} here"));
            }
            n_texts += 1;
        }
    }
    println!("{n_texts} texts of {} grammars", rows.len());
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
    assert!(n_texts > 3000 && n_refused < 20, "{n_texts}, {n_refused}");
}
