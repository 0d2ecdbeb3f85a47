//! The limits of grammars that the header names are those of the sources.

use std::path::Path;

use crate::sources::files;

/// The constants of `src/engine/grammar`, and of what it shares with others, that something is refused by, and the header's words for each.
const LIMITS: &[(&str, &str, &str)] = &[
    ("cost.rs", "MAX_GRAMMAR_BYTES", "4 MiB of a schema"),
    ("schema/json.rs", "MAX_BYTES", "4 MiB of a schema"),
    ("cost.rs", "MAX_LARK_BYTES", "256 KiB of a Lark text"),
    ("cost.rs", "MAX_REGEX_BYTES", "64 KiB of a regular expression"),
    ("cost.rs", "MAX_LEVELS", "16384 rules and brackets"),
    ("cost.rs", "MAX_CLASSES", "1500 classes"),
    ("cost.rs", "MAX_WIDE_RANGES", "100 ranges that end beyond ASCII"),
    ("cost.rs", "MAX_DEPTHS", "1000000 for the depths of brackets"),
    ("cost.rs", "MAX_TOKEN_LEVELS", "256 terminals that name each other"),
    ("cost.rs", "MAX_BRANCHES", "100000 for the product of the alternatives"),
    ("cost.rs", "MAX_CONDITIONS", "1000 and, or and not of conditions"),
    ("cost.rs", "MAX_EXPANSION", "1000000 bytes of one with all that it names"),
    ("gbnf/mod.rs", "MAX_NODES", "100000 parts"),
    ("gbnf/mod.rs", "MAX_DEPTH", "100 groups within each other"),
    ("gbnf/mod.rs", "MAX_TIMES", "8 repetitions of one part"),
    ("gbnf/mod.rs", "MAX_REPEATS", "1000000 times of one"),
    ("gbnf/facts.rs", "MAX_EMPTY_STEPS", "20000000 steps to tell which rules may be empty"),
    ("gbnf/places.rs", "MAX_PLACE_STEPS", "1000000 steps to tell what may stand where tokens of text do"),
    ("weight.rs", "MAX_LEXEMES", "20000 terminals"),
    ("weight.rs", "MAX_SYMBOLS", "65000 symbols"),
    ("weight.rs", "MAX_NODES", "1000000 expressions that the text comes to"),
    ("weight.rs", "MAX_STEPS", "4000000 steps that its expressions may take at one byte"),
    ("weight.rs", "MAX_ROW_STEPS", "6000000000 for the places of its rules"),
    ("weight.rs", "MAX_ITEMS", "4000000 of a whole text"),
    ("schema/reader.rs", "MAX_VALUES", "200000 values"),
    ("schema/reader.rs", "MAX_NESTING", "1000 arrays and objects inside of each other"),
    ("schema/rules.rs", "MAX_WORK", "1000000 steps to take it apart"),
    ("schema/emit.rs", "MAX_RULES", "50000 rules"),
    ("schema/rules.rs", "MAX_SYMBOLS", "400000 symbols"),
    ("schema/emit.rs", "MAX_LEVELS", "2000 rules inside of each other"),
    ("schema/rules.rs", "MAX_TOKEN_BYTES", "2097152 bytes of expressions for its texts and numbers"),
    ("schema/rx.rs", "MAX_STEPS", "50000 steps to tell whether a pattern matches anything"),
    ("schema/rx.rs", "MAX_BRANCHES", "20000 in place of the 100000"),
    ("schema/pattern.rs", "MAX_PATTERN", "65536 bytes of a pattern"),
    ("schema/pattern.rs", "MAX_REWRITTEN", "262144 of what it becomes"),
    ("schema/pattern.rs", "MAX_NESTING", "250 brackets inside of each other in it"),
    ("schema/pattern.rs", "MAX_BRANCHES", "64 alternatives of it that have anchors of their own"),
    ("schema/members.rs", "MAX_MEMBERS", "8000 properties of an object"),
    ("schema/members.rs", "MAX_COUNTED", "20000 for the properties that count towards minProperties or maxProperties"),
    ("schema/members.rs", "MAX_NAME_PATTERNS", "64 patterns for their names"),
    ("schema/decimal.rs", "MAX_DIGITS", "400 digits of a bound"),
    ("src/schema.rs", "MAX_COUNT", "counts up to 2000000000"),
    ("schema/scalars.rs", "MAX_UNIT", "a multipleOf of 20000 units"),
    ("vocabulary.rs", "MAX_TOKENS", "of a vocabulary 16777215 tokens"),
    ("vocabulary.rs", "MAX_NODES", "4194303 nodes of the tree of its words"),
];

/// Those that nothing is refused by: what lies beyond is done in another way, or left out.
const NO_REFUSAL: &[(&str, &str)] = &[
    ("gbnf/mod.rs", "MAX_CHARS"),
    ("gbnf/mod.rs", "MAX_EXPANDED"),
    ("gbnf/mod.rs", "MAX_HEIGHT"),
    ("gbnf/mod.rs", "MAX_LINKS"),
    ("gbnf/mod.rs", "MAX_STEPS"),
    ("gbnf/mod.rs", "MAX_WORDS"),
    ("gbnf/write.rs", "MAX_BRACKETS"),
    ("schema/number.rs", "MAX_ENDINGS"),
    ("schema/scalars.rs", "MAX_LISTED"),
    ("vocabulary.rs", "MAX_WORD"),
];

/// `1_000`, `4 << 20`, `(1 << 22) - 1`.
fn value(expression: &str) -> Option<u64> {
    let expression = expression.trim();
    if let Some((inner, less)) = expression.strip_prefix('(').and_then(|e| e.split_once(") - ")) {
        return value(inner)?.checked_sub(value(less)?);
    }
    if let Some((left, right)) = expression.split_once(" << ") {
        return value(left)?.checked_shl(u32::try_from(value(right)?).ok()?);
    }
    expression.replace('_', "").parse().ok()
}

/// `(file, name, value)` of each constant whose name begins with MAX_.
fn constants(files: &[(String, String)]) -> Vec<(String, String, u64)> {
    let mut found = Vec::new();
    for (path, text) in files {
        for line in text.lines() {
            let Some((before, rest)) = line.split_once("const MAX_") else { continue };
            let Some((name, rest)) = rest.split_once(": ") else { continue };
            let Some((_, expression)) = rest.split_once(" = ") else { continue };
            if before.trim_start().starts_with("//") {
                continue;
            }
            let number = value(expression.trim_end_matches(';')).unwrap_or_else(|| panic!("{path}: {line}"));
            let file = path.trim_start_matches("src/engine/grammar/").to_owned();
            found.push((file, format!("MAX_{name}"), number));
        }
    }
    found
}

/// What of the constants the words do not say, and what the words say that the header does not.
fn wrong(constants: &[(String, String, u64)], header: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, name, number) in constants {
        if NO_REFUSAL.contains(&(file.as_str(), name.as_str())) {
            continue;
        }
        let Some((_, _, words)) = LIMITS.iter().find(|(f, n, _)| f == file && n == name) else {
            wrong.push(format!("{file}: {name} is in no list"));
            continue;
        };
        let forms = [(0, ""), (10, " KiB"), (20, " MiB")];
        let forms = forms.iter().filter(|(shift, _)| number >> shift << shift == *number);
        let said = forms.map(|(shift, unit)| format!("{}{unit} ", number >> shift));
        if !said.into_iter().any(|said| format!(" {words} ").contains(&format!(" {said}"))) {
            wrong.push(format!("{file}: {name} is {number}, and not \"{words}\""));
        }
        if !header.contains(words) {
            wrong.push(format!("the header does not say \"{words}\""));
        }
    }
    let gone = LIMITS.iter().map(|(f, n, _)| (f, n)).chain(NO_REFUSAL.iter().map(|(f, n)| (f, n)));
    let gone = gone.filter(|(f, n)| !constants.iter().any(|(file, name, _)| file == *f && name == *n));
    wrong.extend(gone.map(|(f, n)| format!("{f}: {n} is not there")));
    wrong
}

#[test]
fn the_header_names_every_limit_of_a_grammar() {
    let header = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/kigo.h")).expect("there");
    let lines: Vec<&str> = header.lines().map(|line| line.trim_start_matches("//").trim()).collect();
    let header = lines.join(" ");
    let shared = files("src", &["rs"]).into_iter().filter(|(path, _)| path == "src/schema.rs");
    let constants = constants(&files("src/engine/grammar", &["rs"]).into_iter().chain(shared).collect::<Vec<_>>());
    assert_eq!(wrong(&constants, &header), [""; 0]);
    // Another number, another text, a constant that is new: each is found.
    let mut other = constants.clone();
    other[0].2 += 1;
    assert_eq!(wrong(&other, &header).len(), 1);
    assert_eq!(wrong(&constants, &header.replace("1500 classes", "some classes")).len(), 1);
    other = constants.clone();
    other.push(("cost.rs".to_owned(), "MAX_OF_ALL".to_owned(), 7));
    assert_eq!(wrong(&other, &header), ["cost.rs: MAX_OF_ALL is in no list"]);
}
