//! Texts that grammars allow: translated, compiled and tried byte by byte.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, TokenParser};

use super::*;

mod hostile;
mod mixed;
mod peer;

/// A token for each byte, then `<a>`, `<b>` and the end.
pub(super) struct Bytes;

const A: u32 = 256;
const END: u32 = 258;

impl Tokens for Bytes {
    fn n_vocab(&self) -> usize {
        259
    }

    fn of_text(&self, text: &str) -> Option<u32> {
        ["<a>", "<b>"].iter().position(|known| *known == text).map(|n| A + n as u32)
    }

    fn is_end(&self, id: u32) -> bool {
        id == END
    }

    fn text(&self, id: u32) -> Option<Vec<u8>> {
        u8::try_from(id).ok().map(|byte| vec![byte])
    }
}

fn factory() -> ParserFactory {
    let mut words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    words.extend(["<a>", "<b>", "<end>"].map(|text| [&[TokTrie::SPECIAL_TOKEN_MARKER], text.as_bytes()].concat()));
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&TokRxInfo::new(259, END), &words)));
    let mut factory = ParserFactory::new_simple(&env).unwrap();
    factory.quiet();
    factory
}

/// The Lark text of a grammar, which nobody stops.
pub(super) fn lark(text: &str) -> Result<String, String> {
    translate(text, &Bytes, &AtomicBool::new(false))
}

pub(super) fn compile(text: &str) -> TokenParser {
    let lark = lark(text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let made = factory().create_parser(TopLevelGrammar::from_lark(lark.clone()));
    let mut parser = made.unwrap_or_else(|e| panic!("{text}\n{lark}\n{e}"));
    parser.start_without_prompt();
    parser
}

/// How many of the tokens are allowed, and whether the text may end behind them.
pub(super) fn taken(parser: &TokenParser, tokens: impl Iterator<Item = u32>) -> (usize, bool) {
    let mut parser = parser.deep_clone();
    let mut n = 0;
    for token in tokens {
        if parser.validate_tokens_raw(&[token]).unwrap() == 0 {
            return (n, false);
        }
        parser.consume_token(token).unwrap();
        n += 1;
    }
    (n, parser.is_accepting())
}

/// Whether a text is one of the grammar's.
pub(super) fn allows(parser: &TokenParser, text: &str) -> bool {
    taken(parser, text.bytes().map(u32::from)) == (text.len(), true)
}

#[test]
fn parts_of_the_format() {
    for (grammar, good, bad) in [
        (r#"root ::= "a" "b" | [c-e]+ # more"#, &["ab", "c", "cede"][..], &["", "a", "abc", "f"][..]),
        ("root ::= (\n  \"x\" # first\n  y\n)\ny ::= \"1\" |\n  \"2\"\n\n", &["x1", "x2"], &["x", "y1"]),
        (r#"root ::= "\x41\u00e4\U0001F600\t\n\r\"\\\[\]\-""#, &["A\u{e4}\u{1f600}\t\n\r\"\\[]-"], &["A"]),
        (
            r"root ::= [^\x00-\x1f/\]\-] [\]a-] .",
            &["x]\n", "\u{1f600}-\u{e4}", "!ab"],
            &["/a.", "]a.", "-a.", "xb.", "x]"],
        ),
        (
            "root ::= \"a\"{2} \"b\"{1,} \"c\"{0,2} \"d\"{1,3} \"e\"{0}",
            &["aabd", "aabbbccddd"],
            &["abd", "aabcccd", "aabdddd", "aabde"],
        ),
        ("root ::= \"ab\"* (\"c\" | )", &["", "abab", "ababc", "c"], &["a", "aba", "cab"]),
        (
            "root ::= check-mate1 dataType\ncheck-mate1 ::= [0-9]{3,5}\ndataType ::= \"int\" | \"\"",
            &["123", "12345int"],
            &["12", "123456"],
        ),
        ("root ::= \"(\" root \")\" | [a-z]*", &["", "abc", "((x))", "(())"], &["((x)", "x)", "(x)y"]),
        // What the lexer would take whole, and must not.
        (
            "root ::= ident \"=\" ws ident \"\\n\"\nident ::= [a-z]+ ws\nws ::= [ \\n]* ",
            &["a=b\n", "a \n= \nb\n\n"],
            &["a=b", "=b\n"],
        ),
        (
            "root ::= (\"int\" \" \" | name) (\"=\" root)?\nname ::= [a-z]+ \" \"",
            &["int ", "int =int =inty "],
            &["int", "=", "int x"],
        ),
        (
            "root ::= x \"ab\" root?\nx ::= \"a\"* \"b\"*",
            &["ab", "aab", "abab", "aabbab", "abababab"],
            &["aba", "ba", "a"],
        ),
    ] {
        let parser = compile(grammar);
        good.iter()
            .for_each(|text| assert!(allows(&parser, text), "{grammar}\n{text:?}\n{}", self::lark(grammar).unwrap()));
        bad.iter()
            .for_each(|text| assert!(!allows(&parser, text), "{grammar}\n{text:?}\n{}", self::lark(grammar).unwrap()));
    }
}

#[test]
fn tokens_stand_for_themselves() {
    let parser = compile("root ::= <a> thought <[257]> .*\nthought ::= !<b>* ");
    let text = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    for (tokens, is_allowed) in [
        ([vec![A], text("hm"), vec![A + 1], text("so")].concat(), true),
        (vec![A, A, A + 1], true),
        (vec![A, A + 1, A + 1], false),
        (vec![A, END], false),
        ([vec![A], text("<b>")].concat(), false),
        ([text("<a>"), vec![A + 1]].concat(), false),
    ] {
        let n = tokens.len();
        assert_eq!(taken(&parser, tokens.iter().copied()) == (n, true), is_allowed, "{tokens:?}");
    }
}

#[test]
fn mistakes_are_told_with_their_places() {
    for (text, expected) in [
        ("", "there is no rule called \"root\""),
        ("x ::= \"a\"", "there is no rule called \"root\""),
        ("root ::= \"a\" y\n", "line 1, column 14: there is no rule called \"y\""),
        ("root ::= \"a\"\nx = 1", "line 2, column 3: '='; expected ::="),
        ("root ::= \"\u{e4}\" )", "line 1, column 14: ')'; expected a part of the rule or the end of its line"),
        ("root ::= (\"a\"\n\n", "line 3, column 1: the text ends; expected a part of the group or )"),
        ("root ::= \"a", "line 1, column 12: the text ends; expected \" at the end of the text"),
        ("root ::= [a", "line 1, column 12: the text ends; expected ] at the end of the class"),
        ("root ::= * ", "line 1, column 10: '*'; expected a part before the repetition"),
        ("root ::= \"a\"{2,1}", "line 1, column 13: 2 times at least and 1 at most"),
        ("root ::= \"a\"{1000001}", "line 1, column 14: 1000001 times; at most 1000000"),
        ("root ::= \"a\"{x}", "line 1, column 14: 'x'; expected a number"),
        (
            "root ::= \"\\q\"",
            "line 1, column 11: the escape \\q; expected \\x, \\u, \\U, \\t, \\r, \\n, \\\\, \\\", \\[, \\] or \\-",
        ),
        ("root ::= \"\\x4\"", "line 1, column 13: '4'; expected 2 hexadecimal digits behind \\x"),
        ("root ::= \"\\U00110000\"", "line 1, column 11: U+110000; at most U+10FFFF"),
        ("root ::= \"\\ud800\"", "line 1, column 11: half of a surrogate pair, which is no character"),
        ("root ::= [z-a]", "line 1, column 11: a range from U+007A down to U+0061"),
        ("root ::= []", "line 1, column 10: a class of no characters"),
        ("root ::= <c>", "line 1, column 10: <c> is not one token of the vocabulary"),
        ("root ::= <[300]>", "line 1, column 10: token 300; the vocabulary has 259"),
        ("root ::= <[258]>", "line 1, column 10: token 258 ends a text, which it may where the grammar may end"),
        (
            "root ::= \"a\"\nroot ::= \"b\"",
            "line 2, column 1: the rule \"root\" is defined a second time, after line 1, column 1",
        ),
        ("root ::= x\nx ::= \"b\"? root \"a\"", "the rule \"root\" begins with itself (left recursion)"),
        ("root ::= \"a\" x\nx ::= y*\ny ::= y \"a\" | \"b\"", "the rule \"y\" begins with itself (left recursion)"),
    ] {
        assert_eq!(self::lark(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn nothing_takes_long() {
    let chain = |n: usize| {
        (1..n).fold("root ::= r1\n".to_owned(), |all, i| format!("{all}r{i} ::= r{}? \"a\"\n", i + 1))
            + &format!("r{n} ::= \"b\"\n")
    };
    let begun = std::time::Instant::now();
    for text in [
        format!("root ::= {}\"a\"{}", "(".repeat(5000), ")".repeat(5000)),
        format!("root ::= \"a\"{}", "*".repeat(5000)),
        chain(8000),
        format!("root ::= {}", "\"a\"? ".repeat(20_000)),
        format!("root ::= x \"a\"\nx ::= ({})*", "[a-z]? ".repeat(3000)),
        format!(
            "root ::= {} root?",
            (0..5000).map(|i| format!("\"{i:x}\" [a-f]{{1,{}}}", i % 7 + 1)).collect::<Vec<_>>().join(" | ")
        ),
        format!("root ::= {}", "\"a\" | ".repeat(60_000)),
        format!(
            "root ::= [{}]{{1,4000}} root?",
            (0..8000u32).map(|i| format!("\\u{:04x}", 0x3000 + 2 * i)).collect::<String>()
        ),
        "root ::= x{1000000} root? \nx ::= ([a-z]{1000000}){1000000}".to_owned(),
    ] {
        let outcome = self::lark(&text).map(|lark| lark.len());
        println!("{:.60}: {outcome:.80?}, {:?}", text.replace('\n', " "), begun.elapsed());
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

/// Whether a character is of a class.
type Is = fn(char) -> bool;

/// A grammar made at random, which can be asked itself.
#[derive(Debug)]
enum Made {
    Text(&'static str),
    Class(&'static str, Is),
    Seq(Vec<Made>),
    Alt(Vec<Made>),
    Times(Box<Made>, usize, usize, &'static str),
    Rule(usize),
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    /// A part of a rule; `least`: the first rule that it may name in front of any character.
    fn part(&mut self, depth: usize, least: usize, n_rules: usize) -> Made {
        const CLASSES: [(&str, Is); 4] =
            [("[ab]", |c| c != 'c'), ("[^a]", |c| c != 'a'), (".", |_| true), ("[b-c]", |c| c != 'a')];
        match self.below(if depth == 0 { 3 } else { 8 }) {
            0 => Made::Text(["a", "b", "ab", "ba", "aba", "", "c"][self.below(7)]),
            1 => {
                let (text, is) = CLASSES[self.below(4)];
                Made::Class(text, is)
            }
            2 if least < n_rules => Made::Rule(least + self.below(n_rules - least)),
            2 => Made::Text("b"),
            3 | 4 => Made::Seq((0..2 + self.below(2)).map(|_| self.part(depth - 1, least, n_rules)).collect()),
            5 => Made::Alt((0..2 + self.below(2)).map(|_| self.part(depth - 1, least, n_rules)).collect()),
            6 => {
                // Behind a character any rule may come.
                let text = Made::Text(["a", "b", "c"][self.below(3)]);
                Made::Seq(vec![text, self.part(depth - 1, 0, n_rules)])
            }
            _ => {
                let (least_times, most, mark) =
                    [(0, 99, "*"), (1, 99, "+"), (0, 1, "?"), (2, 3, "{2,3}"), (0, 2, "{0,2}"), (2, 99, "{2,}")]
                        [self.below(6)];
                Made::Times(Box::new(self.part(depth - 1, least, n_rules)), least_times, most, mark)
            }
        }
    }
}

impl Made {
    fn write(&self, out: &mut String) {
        let all = |parts: &[Made], between: &str, out: &mut String| {
            out.push('(');
            for (n, part) in parts.iter().enumerate() {
                out.push_str(if n > 0 { between } else { "" });
                part.write(out);
            }
            out.push(')');
        };
        match self {
            Made::Text(text) => *out += &format!("\"{text}\""),
            Made::Class(text, _) => *out += text,
            Made::Seq(parts) => all(parts, " ", out),
            Made::Alt(parts) => all(parts, " | ", out),
            Made::Times(part, _, _, mark) => {
                all(std::slice::from_ref(part), "", out);
                *out += mark;
            }
            Made::Rule(rule) => *out += &format!("r{rule}"),
        }
    }

    /// Where in a text it may end that begins at a place; bits.
    fn ends(&self, rules: &[Made], text: &[char], from: usize) -> u32 {
        let after = |part: &Made, places: u32| {
            (0..=text.len()).filter(|at| places & 1 << at != 0).fold(0, |all, at| all | part.ends(rules, text, at))
        };
        match self {
            Made::Text(word) => {
                let n = word.chars().count();
                let same = text[from..].iter().copied().take(n).eq(word.chars());
                if same { 1 << (from + n) } else { 0 }
            }
            Made::Class(_, is) => text.get(from).map_or(0, |c| u32::from(is(*c)) << (from + 1)),
            Made::Seq(parts) => parts.iter().fold(1 << from, |places, part| after(part, places)),
            Made::Alt(parts) => parts.iter().fold(0, |all, part| all | part.ends(rules, text, from)),
            Made::Times(part, least, most, _) => {
                let (mut places, mut all) = (1 << from, 0);
                // More than the text has characters add nothing.
                for n in 0..=(*most).min(least + text.len() + 1) {
                    all |= if n >= *least { places } else { 0 };
                    places = after(part, places);
                }
                all
            }
            Made::Rule(rule) => rules[*rule].ends(rules, text, from),
        }
    }
}

#[test]
fn random_grammars_allow_what_they_say() {
    let texts: Vec<Vec<char>> = (0..=5u32)
        .flat_map(|n| (0..3usize.pow(n)).map(move |i| (0..n).map(|d| ['a', 'b', 'c'][i / 3usize.pow(d) % 3]).collect()))
        .collect();
    let (mut random, mut n_compiled, mut n_allowed) = (Random(20), 0, 0);
    for case in 0..150 {
        let n_rules = 1 + random.below(4);
        let rules: Vec<Made> = (0..n_rules).map(|rule| random.part(3, rule + 1, n_rules)).collect();
        let mut text = "root ::= r0\n".to_owned();
        for (n, rule) in rules.iter().enumerate() {
            text += &format!("r{n} ::= ");
            rule.write(&mut text);
            text.push('\n');
        }
        let lark = match self::lark(&text) {
            Ok(lark) => lark,
            // Of what may be empty, a rule behind it may be the first.
            Err(error) => {
                assert!(error.contains("left recursion"), "{text}\n{error}");
                continue;
            }
        };
        n_compiled += 1;
        let parser = compile(&text);
        for (n, chars) in texts.iter().enumerate().filter(|(n, _)| *n < 40 || (n + case) % 7 == 0) {
            let expected = rules[0].ends(&rules, chars, 0) & 1 << chars.len() != 0;
            let word: String = chars.iter().collect();
            n_allowed += usize::from(expected);
            assert_eq!(allows(&parser, &word), expected, "text {n} {word:?} of\n{text}\n{lark}");
        }
    }
    println!("{n_compiled} grammars, {n_allowed} texts allowed");
    assert!(n_compiled > 100 && n_allowed > 500, "{n_compiled} grammars, {n_allowed} texts allowed");
}

/// A grammar's file, texts that are its own, and some that are not.
const CASES: [(&str, &[&str], &[&str]); 8] = [
    ("arithmetic", &["a+1=2\n", "x_1 *(b +3) =\n 42 \ny=z\n\n\n"], &["a=1+2\n", "a=1", "a=(b\n", ""]),
    (
        "c",
        &["", "int main(int x){return x*( y+1 );}", "int f(){int = 5;while(a<b){x (1, 2);}//so\n/* a ** b */}"],
        &["int main(", "int f(){returnx;}", "int f(){x y;}", "double f(){}"],
    ),
    ("chess", &["1. e4 e5\n2. Nf3 Nc6\n", "1. O-O O-O-O\n99. exd8=Q# a1+\n"], &["1. e4 e5\n", "1. e9 e5\n2. e4 e5\n"]),
    ("english", &["Hello, world!", "[a]\\ b^"], &["a  b", "caf\u{e9}", ""]),
    ("japanese", &["\u{3053}\u{3093}\u{306b}\u{3061}\u{306f} \u{4e16}\u{754c}"], &["abc", "\u{3053}  \u{3093}"]),
    (
        "json",
        &["{}", r#"{"a": [1, -2.5e+12,true, "x\n\u00e4"], "b":{}}"#, "{\n  \"a\":null}\n\t"],
        &["[]", r#"{"a":01}"#, r#"{"a" 1}"#, r#"{"a":"\q"}"#, "{\"a\":\"\u{7f}\"}", r#"{"a":1,}"#],
    ),
    ("json_arr", &["[\n]", "[\n{\"a\":1},\n[2, 3]]"], &["[]", "[\n1,2]", "[\n1] "]),
    ("list", &["- a\n- b c\n"], &["- a", "a\n", "- a\n- \n", "- a\u{2028}\n"]),
];

#[test]
fn published_grammars_allow_what_they_should() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/grammars");
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("skipped: models/grammars is not there (scripts/fetch_vocabularies.py fetches it)");
        return;
    };
    let n_files = files.filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some())).count();
    assert_eq!(n_files, CASES.len(), "grammars that no texts are known of");
    for (name, good, bad) in CASES {
        let parser = compile(&std::fs::read_to_string(folder.join(format!("{name}.gbnf"))).unwrap());
        good.iter().for_each(|text| assert!(allows(&parser, text), "{name}: {text:?}"));
        bad.iter().for_each(|text| assert!(!allows(&parser, text), "{name}: {text:?}"));
    }
}
