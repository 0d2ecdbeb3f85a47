//! Rules as a Lark text, without what no value comes to.

use std::fmt::Write;

use super::rules::{Compiler, Symbol};

/// The deepest that rules are inside of each other when each is first read.
const MAX_LEVELS: usize = 2_000;

/// How deep they are where the deepest of them is read beforehand.
const LISTED_LEVELS: usize = 300;
/// The most rules and tokens: llguidance numbers them, and what becomes of counted ones, in 16 bits.
const MAX_RULES: usize = 50_000;

/// White space that may stand between two tokens: a space, or the end of a line and an indentation, and no more.
///
/// An endless run of it is thereby not possible, which models are otherwise drawn into.
const SPACE: &str = r"(\x20|\r?\n[\x20\t]{0,80})";

/// The Lark text; in braces behind `%lark` where it stands in another one.
pub(super) fn write(compiler: &Compiler, compact: bool, embedded: bool) -> Result<String, String> {
    let alive = alive(compiler);
    if !alive[0] {
        return Err("#: no value is valid".to_owned());
    }
    let (order, listed) = order(compiler, &alive)?;
    check_rules(compiler, &order)?;
    let mut out = String::new();
    out.push_str(if embedded { "%lark {\n" } else { "" });
    if !compact {
        let _ = write!(out, "%llguidance {{\"ignore_once\": true}}\n%ignore /{SPACE}/\n");
    }
    // Rules are read where they are first named, inside of the rule that names them: with some of them read before, none is
    // deep. Nothing ever comes to these alternatives.
    if listed.is_empty() {
        out.push_str("start: r0\n");
    } else {
        out.push_str("start: NEVER listed | r0\nNEVER: /a/ & /b/\nlisted: ");
        for (i, rule) in listed.iter().enumerate() {
            let _ = write!(out, "{}r{rule}", if i > 0 { " | " } else { "" });
        }
        out.push('\n');
    }
    // Around these numbers stands what stands around others.
    let options = match compact {
        true => "{\"whitespace_flexible\":false}".to_owned(),
        false => format!("{{\"whitespace_pattern\":\"{}\"}}", SPACE.replace('\\', "\\\\")),
    };
    let mut used = vec![false; compiler.tokens.len()];
    for &rule in &order {
        let _ = write!(out, "r{rule}: ");
        let alternatives = compiler.rules[rule as usize].iter();
        for (i, symbols) in alternatives.filter(|symbols| symbols.iter().all(|s| possible(s, &alive))).enumerate() {
            out.push_str(if i == 0 { "" } else { " | " });
            write_symbols(&mut out, symbols, &alive, &options, &mut used);
        }
        out.push('\n');
    }
    for (token, rx) in compiler.tokens.iter().enumerate().filter(|(token, _)| used[*token]) {
        let _ = write!(out, "T{token}: ");
        rx.write(&mut out);
        out.push('\n');
    }
    out.push_str(if embedded { "}" } else { "" });
    Ok(out)
}

/// Refuses more rules than llguidance can number.
fn check_rules(compiler: &Compiler, order: &[u32]) -> Result<(), String> {
    // A count becomes rules for each power of four in it.
    let powers = |n: u64| 8 * (u64::BITS - n.leading_zeros()) as usize / 2;
    let weight = |symbol: &Symbol| match symbol {
        Symbol::Repeat(_, least, most) => 1 + powers(*least) + most.map_or(0, powers),
        _ => 0,
    };
    let symbols = order.iter().flat_map(|rule| compiler.rules[*rule as usize].iter().flatten());
    let n = order.len() + compiler.tokens.len() + symbols.map(weight).sum::<usize>();
    match n > MAX_RULES {
        true => Err(format!("#: rules of the schema's grammar: {n}; at most {MAX_RULES}")),
        false => Ok(()),
    }
}

/// One alternative; `used` notes its tokens, `options` stand in those of multiples.
fn write_symbols(out: &mut String, symbols: &[Symbol], alive: &[bool], options: &str, used: &mut [bool]) {
    let mut empty = true;
    for symbol in symbols {
        let _ = match symbol {
            Symbol::Token(token) => {
                used[*token as usize] = true;
                write!(out, "T{token} ")
            }
            Symbol::Rule(rule) => write!(out, "r{rule} "),
            Symbol::Repeat(rule, ..) if !alive[*rule as usize] => continue,
            Symbol::Repeat(_, _, Some(0)) => continue,
            Symbol::Repeat(rule, 0, None) => write!(out, "r{rule}* "),
            Symbol::Repeat(rule, least, None) => write!(out, "r{rule}{{{least},}} "),
            Symbol::Repeat(rule, least, Some(most)) => write!(out, "r{rule}{{{least},{most}}} "),
            Symbol::Multiple(schema) => write!(out, "%json {schema},\"x-guidance\":{options}}} "),
        };
        empty = false;
    }
    out.push_str(if empty { "\"\"" } else { "" });
}

fn possible(symbol: &Symbol, alive: &[bool]) -> bool {
    match symbol {
        Symbol::Rule(rule) => alive[*rule as usize],
        Symbol::Repeat(rule, least, _) => *least == 0 || alive[*rule as usize],
        Symbol::Token(_) | Symbol::Multiple(_) => true,
    }
}

/// Rules that some text comes to.
fn alive(compiler: &Compiler) -> Vec<bool> {
    let mut alive = vec![false; compiler.rules.len()];
    let mut users: Vec<Vec<u32>> = vec![Vec::new(); compiler.rules.len()];
    for (i, rule) in compiler.rules.iter().enumerate() {
        for symbol in rule.iter().flatten() {
            if let Symbol::Rule(used) | Symbol::Repeat(used, ..) = symbol {
                users[*used as usize].push(i as u32);
            }
        }
    }
    let mut open: Vec<u32> = (0..compiler.rules.len() as u32).collect();
    while let Some(i) = open.pop() {
        let rule = &compiler.rules[i as usize];
        if !alive[i as usize] && rule.iter().any(|symbols| symbols.iter().all(|s| possible(s, &alive))) {
            alive[i as usize] = true;
            open.extend(&users[i as usize]);
        }
    }
    alive
}

/// The rules that the first one leads to, each behind those that it names as far as these do not name it; and those that
/// are read beforehand, in this order, so that the reader is never deep.
fn order(compiler: &Compiler, alive: &[bool]) -> Result<(Vec<u32>, Vec<u32>), String> {
    let named = |rule: u32| {
        let alternatives = compiler.rules[rule as usize].iter();
        let possible = alternatives.filter(|symbols| symbols.iter().all(|s| possible(s, alive)));
        let rules = possible.flatten().filter_map(|symbol| match symbol {
            Symbol::Rule(rule) | Symbol::Repeat(rule, ..) if alive[*rule as usize] => Some(*rule),
            _ => None,
        });
        rules.collect::<Vec<u32>>()
    };
    let mut order = Vec::new();
    let mut met = vec![false; compiler.rules.len()];
    let mut open = vec![(0u32, false)];
    while let Some((rule, left)) = open.pop() {
        if left {
            order.push(rule);
        } else if !std::mem::replace(&mut met[rule as usize], true) {
            open.push((rule, true));
            open.extend(named(rule).into_iter().rev().map(|rule| (rule, false)));
        }
    }
    // How many rules are read inside of each other where one is read first, as far as it does not lead to itself.
    let mut heights = vec![0usize; compiler.rules.len()];
    let mut listed = Vec::new();
    for &rule in &order {
        let height = 1 + named(rule).into_iter().map(|rule| heights[rule as usize]).max().unwrap_or(0);
        heights[rule as usize] = height;
        if height >= LISTED_LEVELS {
            listed.push(rule);
            heights[rule as usize] = 0;
        }
    }
    let mut read = vec![false; compiler.rules.len()];
    for &rule in listed.iter().chain([&0]) {
        let mut open = vec![(rule, 1)];
        while let Some((rule, level)) = open.pop() {
            if !std::mem::replace(&mut read[rule as usize], true) {
                if level > MAX_LEVELS {
                    return Err(format!(
                        "#: schemas that name each other: more than {MAX_LEVELS} rules inside of each other"
                    ));
                }
                open.extend(named(rule).into_iter().rev().map(|rule| (rule, level + 1)));
            }
        }
    }
    Ok((order, listed))
}
