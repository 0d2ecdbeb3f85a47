//! Texts of regular expressions and Lark grammars that grow with a number until a parser is overwhelmed.

/// A name and a text for a size.
pub type Family = (&'static str, fn(usize) -> String);

fn many(n: usize, each: impl Fn(usize) -> String) -> String {
    (0..n).map(each).collect()
}

fn word(seed: usize, len: usize) -> String {
    let mut state = seed as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    (0..len).map(|_| (b'a' + (next() % 26) as u8) as char).collect()
}

fn letter(i: usize) -> char {
    char::from_u32(0x4E00 + i as u32 % 20_000).unwrap()
}

/// An expression of random parts, `n` of them.
fn random(seed: usize, n: usize) -> String {
    let pick = |i: usize, of: usize| word(seed * 7919 + i, 8).bytes().map(usize::from).sum::<usize>() % of;
    let mut text = String::new();
    let mut open = 0;
    for i in 0..n {
        match pick(i, 14) {
            0 => text.push_str("[a-f]?"),
            1 => text.push_str(".*"),
            2 => text.push_str("\\w{1,40}"),
            3 => text.push_str("x{3,}"),
            4 if open < 40 => {
                text.push('(');
                open += 1;
            }
            5 if open > 0 => {
                text.push_str("z)*");
                open -= 1;
            }
            6 if open > 0 => {
                text.push_str("z){1,9}");
                open -= 1;
            }
            7 => text.push_str("ab|"),
            8 => text.push_str("[^a-c]+"),
            9 => text.push_str("(?:foo|foobar|fo[op])"),
            10 => text.push_str(".{0,30}"),
            11 => text.push_str("[\\dA-F]{4}"),
            12 => text.push_str("(?i:maße)?"),
            _ => text.push_str("lorem "),
        }
    }
    text + &"z)?".repeat(open)
}

/// Regular expressions.
pub const REGEXES: &[Family] = &[
    ("stars", |n| "a*".repeat(n)),
    ("optional classes", |n| "[a-z]?".repeat(n)),
    ("optional classes that differ", |n| many(n, |i| format!("[a-{}]?", (b'b' + (i % 25) as u8) as char))),
    ("optional dots", |n| ".?".repeat(n)),
    ("optional words", |n| many(n, |i| format!("({})?", word(i, 6)))),
    ("counted", |n| "x{1,1000}".repeat(n)),
    ("counted dots", |n| ".{1,1000}y".repeat(n)),
    ("counted in counted", |n| (0..n).fold("a".to_owned(), |inner, _| format!("({inner}b?){{1,9}}"))),
    ("counted sequences", |n| format!("({}){{1,1000}}", many(n, |i| format!("{}?", (b'a' + (i % 26) as u8) as char)))),
    ("two counted dots", |n| format!("(.{{0,{n}}}a.{{0,{n}}}b){{0,{n}}}")),
    ("a far letter", |n| format!(".*a.{{{n}}}")),
    ("far letters", |n| many(n, |i| format!("(.*{}.{{40}})?", (b'a' + (i % 26) as u8) as char))),
    ("groups around much", |n| format!("{}{}{}", "(".repeat(n % 240), "ab?".repeat(n), "x)".repeat(n % 240))),
    ("groups around stars", |n| format!("{}a{}", "(".repeat(n.min(200)), ")*b*".repeat(n.min(200)))),
    ("word characters", |n| "\\w".repeat(n)),
    ("word characters that differ", |n| many(n, |i| format!("[\\w{}]", letter(i)))),
    ("letters of any case", |n| format!("(?i){}", "\\w".repeat(n))),
    ("classes of any case that differ", |n| format!("(?i){}", many(n, |i| format!("[\\p{{L}}{}]", letter(i))))),
    ("one class of many classes", |n| format!("[{}]", "\\w".repeat(n))),
    ("ranges that differ", |n| many(n, |i| format!("[{}-{}]", letter(i), letter(i + 9)))),
    ("negated letters", |n| many(n, |i| format!("[^{}]", letter(i)))),
    ("intersections", |n| many(n, |i| format!("[\\w&&[^{}]]", letter(i)))),
    ("words", |n| many(n, |i| format!("{}|", word(i, 10))) + "end"),
    ("long words", |n| many(n, |i| format!("{}|", word(i, 400))) + "end"),
    ("words that begin alike", |n| many(n, |i| format!("{}{}|", "same".repeat(20), word(i, 4))) + "end"),
    ("alternatives of classes", |n| many(n, |i| format!("[a-f]{}[0-9]*|", word(i, 3))) + "end"),
    ("alternatives with stars", |n| many(n, |i| format!("[ab]*{}|", word(i, 3))) + "end"),
    ("random 1", |n| random(1, n)),
    ("random 2", |n| random(2, n)),
    ("random 3", |n| random(3, n)),
    ("random 4", |n| random(4, n)),
    ("random 5", |n| random(5, n)),
    ("random 6", |n| random(6, n)),
];

/// Lark grammars, beside one of each expression above as a terminal.
pub const LARKS: &[Family] = &[
    ("literals", |n| format!("start: {}\"end\"\n", many(n, |i| format!("\"{}\" | ", word(i, 8))))),
    ("terminals of classes", |n| format!("start: {}\"end\"\n", many(n, |i| format!("/[a-z]{{{},}}x/ | ", i + 1)))),
    ("terminals with stars", |n| format!("start: ({}\"end\")*\n", many(n, |i| format!("/.*{}/ | ", word(i, 3))))),
    ("repeated terminals", |n| format!("start: {}\"end\"\n", many(n, |i| format!("/.{{{},{}}}x/ ", i + 1, i + 50)))),
    ("optional literals", |n| format!("start: {}\n", many(n, |i| format!("\"{}\"? ", word(i, 5))))),
    ("optional rules", |n| {
        format!(
            "start: {}\n{}",
            many(n, |i| format!("r{i}? ")),
            many(n, |i| format!("r{i}: \"{}\" r{i} | \"x\"\n", word(i, 4)))
        )
    }),
    ("ambiguous", |n| format!("start: s\ns: {}\"a\"\n", many(n, |_| "s s | ".to_owned()))),
    ("ambiguous in turn", |n| {
        format!(
            "start: r0\n{}r{n}: \"a\"\n",
            many(n, |i| format!("r{i}: r{} r{} | r{i} r{} | \"a\"\n", i + 1, i + 1, i + 1))
        )
    }),
    ("nothing in many ways", |n| format!("start: s\ns: {}| \"a\" s\n", many(n, |_| "s ".to_owned()))),
    ("right recursion", |n| format!("start: s\ns: \"a\" s | \"b\"\n{}", many(n, |i| format!("u{i}: \"a\"\n")))),
    ("a chain of alternatives", |n| {
        format!("start: r0\n{}r{n}: \"b\"\n", many(n, |i| format!("r{i}: r{} | \"{}\"\n", i + 1, word(i, 3))))
    }),
    ("a repeat", |n| format!("start: \"a\"{{0,{n}}}\n")),
    ("repeats in repeats", |n| format!("start: ((\"a\" | \"b\"){{0,{n}}} \"c\"?){{0,{n}}}\n")),
    ("rules in a repeat", |n| format!("start: ({}){{0,{n}}}\n", many(n, |i| format!("\"{}\"? ", word(i, 3))))),
    ("both", |n| format!("start: T\nT: /.*/ {}\n", many(n, |i| format!("& /.*{}.*/ ", word(i, 2))))),
    ("none of", |n| format!("start: T\nT: /[a-z]*/ & ~({}/x/)\n", many(n, |i| format!("/.*{}.*/ | ", word(i, 2))))),
    ("not far", |n| format!("start: T\nT: ~/(.*a.{{{n}}})/\n")),
    ("not not", |n| format!("start: T0\n{}T{n}: /[ab]*/\n", many(n, |i| format!("T{i}: ~(T{} /c?/)\n", i + 1)))),
    ("parts of a text", |n| format!("start: T\nT: %regex {{\"substring_chars\": \"{}\"}}\n", word(5, n))),
    ("parts of a dull text", |n| format!("start: T\nT: %regex {{\"substring_chars\": \"{}\"}}\n", "ab".repeat(n))),
    ("parts of words", |n| {
        format!("start: T\nT: %regex {{\"substring_words\": \"{}\"}}\n", many(n, |i| word(i, 4) + " "))
    }),
    ("parts of parts", |n| {
        format!(
            "start: T\nT: %regex {{\"substring_chunks\": [{}\"x\"]}}\n",
            many(n, |i| format!("\"{}\",", word(i % 9, 5)))
        )
    }),
    ("names of parts", |n| {
        format!("start: T\nT: {}\nS: %regex {{\"substring_chars\": \"{}\"}}\n", "S ".repeat(n), word(7, n))
    }),
    ("ignored", |n| format!("start: \"a\" \"b\"\n{}", many(n, |i| format!("%ignore /{}+/\n", word(i, 3))))),
    ("tokens by id", |n| format!("start: {}<[1-9]>\n", many(n, |i| format!("<[{}-{}]> ", i % 300, i % 300 + 90)))),
    ("nested texts", |n| format!("start: {}\"x\"\n", many(n, |i| format!("%lark {{ start: \"{}\" }} | ", word(i, 3))))),
    ("terminals of terminals", |n| {
        format!(
            "start: T0\n{}T{}: \"x\"\n",
            many(n.min(250), |i| format!("T{i}: T{} /[a-f]?/ T{}\n", i + 1, i + 1)),
            n.min(250)
        )
    }),
    ("long terminals named often", |n| {
        format!(
            "start: {}\"e\"\nL: {}\n{}",
            many(n, |i| format!("N{i} | ")),
            many(n, |_| "/[ab]c/ ".to_owned()),
            many(n, |i| format!("N{i}: L \"{}\"\n", word(i, 4)))
        )
    }),
    ("brackets", |n| format!("start: {}\"a\"{}\n", "(".repeat(n), ")".repeat(n))),
    ("optional brackets", |n| format!("start: {}\"a\"{}\n", "[".repeat(n), " \"b\"]".repeat(n))),
    ("lazy", |n| format!("start: s\ns[lazy]: /.*/ ({}\"x\")\n", many(n, |i| format!("\"{}\" | ", word(i, 4))))),
    ("stops", |n| {
        format!(
            "start: {}\n{}",
            many(n, |i| format!("s{i} ")),
            many(n, |i| format!("s{i}[stop=\"{}\"]: /.*/\n", word(i, 2)))
        )
    }),
    ("one after another", |n| format!("start: {}\n", many(n, |i| format!("\"{}\" ", word(i, 9))))),
];

/// What people use.
pub const USUAL: &[Family] = &[
    ("words", |n| many(n, |i| format!("{}|", word(i, 9))) + "end"),
    ("a date", |_| {
        "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?Z?)?".to_owned()
    }),
    ("a mail address", |_| "[a-zA-Z0-9_.+-]+@[a-zA-Z0-9-]+(\\.[a-zA-Z0-9-]+)+".to_owned()),
    ("prose", |_| "(\\p{Lu}\\w*([ ,;] ?\\w+){2,20}[.?!] ){1,5}".to_owned()),
];

/// A grammar of a part of SQL.
pub const SQL: &str = r#"
start: select ";"
select: "SELECT" ("DISTINCT")? columns "FROM" table (join)* (where)? (group)? (order)? (limit)?
columns: "*" | column ("," column)*
column: expr ("AS" NAME)?
table: NAME ("AS"? NAME)? | "(" select ")" "AS" NAME
join: ("LEFT" | "INNER" | "OUTER")? "JOIN" table "ON" expr
where: "WHERE" expr
group: "GROUP" "BY" expr ("," expr)* ("HAVING" expr)?
order: "ORDER" "BY" expr ("ASC" | "DESC")? ("," expr ("ASC" | "DESC")?)*
limit: "LIMIT" NUMBER
expr: and ("OR" and)*
and: comparison ("AND" comparison)*
comparison: sum (("=" | "<" | ">" | "<=" | ">=" | "<>" | "LIKE") sum)? | sum "IN" "(" expr ("," expr)* ")"
sum: product (("+" | "-") product)*
product: atom (("*" | "/") atom)*
atom: NAME ("." NAME)? | NUMBER | STRING | "(" expr ")" | NAME "(" (expr ("," expr)*)? ")"
NAME: /[a-zA-Z_][a-zA-Z0-9_]*/
NUMBER: /[0-9]+(\.[0-9]+)?/
STRING: /'[^']*'/
%ignore /[ \t\n]+/
"#;
