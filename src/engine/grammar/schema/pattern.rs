//! `pattern` and `format`: regular expressions for a string's content, rewritten for the string as JSON writes it.

use llguidance::derivre::Regex;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::json::{escape, put_char};
use super::rx::{CHAR, Rx, write_class};

/// The most bytes of a pattern, and of what it is rewritten to.
const MAX_PATTERN: usize = 64 << 10;
const MAX_REWRITTEN: usize = 256 << 10;
/// The deepest nesting of a pattern; llguidance's own limit for what it is rewritten to.
const MAX_NESTING: u32 = 250;
/// The most alternatives that begin or end with an anchor of their own.
const MAX_BRANCHES: usize = 64;

/// A pattern for the names of members.
pub(super) struct NamePattern {
    pub(super) rx: Rx,
    /// What every name that matches begins with, where that is told.
    pub(super) begin: Option<String>,
    /// Made when the first name is looked at.
    pub(super) matcher: Option<Regex>,
}

impl NamePattern {
    pub(super) fn new(pattern: &str) -> Result<NamePattern, String> {
        Ok(NamePattern { rx: search(pattern)?, begin: beginning(pattern), matcher: None })
    }
}

/// The strings, with their quotes, in which a pattern is found.
///
/// The syntax is that of the crate `regex`, with `\d` and `\w` for ASCII only as ECMA 262 has it.
pub(super) fn search(pattern: &str) -> Result<Rx, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("{} bytes; at most {MAX_PATTERN}", pattern.len()));
    }
    let ascii = llguidance::regex_to_lark(pattern, "dw");
    let parsed = ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(&ascii);
    let hir = parsed.map_err(|e| last_line(&e.to_string()))?;
    let mut parts = Vec::new();
    let mut branches = vec![Branch { parts: vec![&hir], start: false, end: false }];
    while let Some(branch) = branches.pop() {
        if parts.len() + branches.len() > MAX_BRANCHES {
            return Err(format!("alternatives with anchors of their own: more than {MAX_BRANCHES}"));
        }
        match branch.opened() {
            Opened::Branches(more) => branches.extend(more.into_iter().rev()),
            Opened::Whole(branch) => {
                let mut out = String::new();
                let rest = format!("{CHAR}*");
                out.push_str(if branch.start { "" } else { &rest });
                for hir in &branch.parts {
                    write(&mut out, hir)?;
                }
                out.push_str(if branch.end { "" } else { &rest });
                parts.push(out);
            }
        }
    }
    Ok(Rx::Pattern(format!("\\x22({})\\x22", parts.join("|"))))
}

/// The letters that every text begins with in which a pattern is found; `None`: it is not anchored, or they are not told.
fn beginning(pattern: &str) -> Option<String> {
    let rest = pattern.strip_prefix('^')?;
    let n = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_/:@-".contains(b)).count();
    // A last letter may be repeated or left out; an alternative begins anew.
    let certain = if rest[n..].starts_with(['*', '?', '{', '+']) { n.checked_sub(1)? } else { n };
    (certain > 0 && !pattern.contains('|')).then(|| rest[..certain].to_owned())
}

/// Strings whose whole content matches an expression of ASCII characters without escapes.
fn whole(content: &str) -> Rx {
    Rx::Pattern(format!("\\x22({content})\\x22"))
}

fn last_line(text: &str) -> String {
    text.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// One way to match: parts behind each other.
struct Branch<'a> {
    parts: Vec<&'a Hir>,
    start: bool,
    end: bool,
}

enum Opened<'a> {
    Branches(Vec<Branch<'a>>),
    Whole(Branch<'a>),
}

impl<'a> Branch<'a> {
    /// The branch with an anchor at an end taken off, or with what holds one there taken apart.
    fn opened(mut self) -> Opened<'a> {
        for first in [true, false] {
            let at = if first { 0 } else { self.parts.len().saturating_sub(1) };
            let Some(hir) = self.parts.get(at).copied() else { continue };
            let look = if first { Look::Start } else { Look::End };
            if hir.properties().look_set().is_empty() {
                continue;
            }
            let with = |middle: &[&'a Hir]| {
                let mut parts = self.parts.clone();
                parts.splice(at..=at, middle.iter().copied());
                Branch { parts, start: self.start, end: self.end }
            };
            match hir.kind() {
                HirKind::Look(found) if *found == look => {
                    self.parts.remove(at);
                    if first {
                        self.start = true
                    } else {
                        self.end = true
                    }
                    return Opened::Branches(vec![self]);
                }
                HirKind::Capture(capture) => return Opened::Branches(vec![with(&[&capture.sub])]),
                HirKind::Concat(parts) => return Opened::Branches(vec![with(&parts.iter().collect::<Vec<_>>())]),
                HirKind::Alternation(parts) => {
                    return Opened::Branches(parts.iter().map(|part| with(&[part])).collect());
                }
                _ => {}
            }
        }
        Opened::Whole(self)
    }
}

/// Writes what an expression matches as a JSON string has it.
fn write(out: &mut String, hir: &Hir) -> Result<(), String> {
    if out.len() > MAX_REWRITTEN {
        return Err(format!("rewritten for JSON it has more than {MAX_REWRITTEN} bytes"));
    }
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).map_err(|_| "bytes that are no text".to_owned())?;
            for c in text.chars() {
                match escape(c) {
                    Some(escape) => escape.chars().for_each(|c| put_char(out, c)),
                    None => put_char(out, c),
                }
            }
        }
        HirKind::Class(class) => {
            let matched = match class {
                Class::Unicode(class) => write_class(out, class.iter().map(|r| (r.start(), r.end()))),
                Class::Bytes(class) => {
                    write_class(out, class.iter().map(|r| (char::from(r.start()), char::from(r.end()))))
                }
            };
            if !matched {
                // A class without characters: no text has one.
                out.push_str("[^\\x{0}-\\x{10ffff}]");
            }
        }
        HirKind::Look(look) => return Err(format!("{} inside of it is not supported", name(*look))),
        HirKind::Repetition(repetition) => {
            out.push('(');
            write(out, &repetition.sub)?;
            out.push(')');
            match (repetition.min, repetition.max) {
                (0, None) => out.push('*'),
                (1, None) => out.push('+'),
                (0, Some(1)) => out.push('?'),
                (least, None) => out.push_str(&format!("{{{least},}}")),
                (least, Some(most)) => out.push_str(&format!("{{{least},{most}}}")),
            }
        }
        HirKind::Capture(capture) => write(out, &capture.sub)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(out, part))?,
        HirKind::Alternation(parts) => {
            out.push('(');
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    out.push('|');
                }
                write(out, part)?;
            }
            out.push(')');
        }
    }
    Ok(())
}

fn name(look: Look) -> &'static str {
    match look {
        Look::Start | Look::StartLF | Look::StartCRLF => "\"^\"",
        Look::End | Look::EndLF | Look::EndCRLF => "\"$\"",
        _ => "a boundary of words",
    }
}

/// The strings of a format, with their quotes; `None`: the name is an annotation.
pub(super) fn format(name: &str) -> Option<Rx> {
    const DATE: &str = concat!(
        "([0-9]{4}\\x2d((0[13578]|1[02])\\x2d(0[1-9]|[12][0-9]|3[01])|(0[469]|11)\\x2d(0[1-9]|[12][0-9]|30)",
        "|02\\x2d(0[1-9]|1[0-9]|2[0-8]))",
        // Leap years.
        "|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)\\x2d02\\x2d29)"
    );
    // A leap second is the last one of a day at Greenwich.
    const TIME: &str = concat!(
        "((([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]+)?([Zz]|[+\\x2d]([01][0-9]|2[0-3]):[0-5][0-9]))",
        "|23:59:60(\\.[0-9]+)?([Zz]|[+\\x2d]00:00))"
    );
    const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    const LABEL: &str = "[a-zA-Z0-9]([a-zA-Z0-9\\x2d]{0,61}[a-zA-Z0-9])?";
    const SEGMENT: &str = "([a-zA-Z0-9\\x2d._~!$&\\x27()*+,;=:@]|%[0-9a-fA-F]{2})";
    let ipv4 = format!("({BYTE}\\.){{3}}{BYTE}");
    let hostname = format!("{LABEL}(\\.{LABEL})*");
    let atom = "[a-zA-Z0-9!#$%&\\x27*+\\x2d\\x2f=?\\x5e_`{|}~]+";
    let limited = |content: &str, most: u32| {
        let length = Rx::string_of(Rx::Repeat(Box::new(Rx::Pattern("[^\\x22\\x5c]".to_owned())), 0, Some(most)));
        Rx::All(vec![whole(content), length])
    };
    Some(match name {
        "date" => whole(DATE),
        "time" => whole(TIME),
        "date-time" => whole(&format!("{DATE}[Tt]{TIME}")),
        "duration" => whole(concat!(
            "P([0-9]+W|([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)",
            "(T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))?",
            "|T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))"
        )),
        "email" => whole(&format!("{atom}(\\.{atom})*@{hostname}")),
        "hostname" => limited(&hostname, 253),
        "ipv4" => whole(&ipv4),
        "ipv6" => whole(&ipv6(&ipv4)),
        "uuid" => whole("[0-9a-fA-F]{8}(\\x2d[0-9a-fA-F]{4}){3}\\x2d[0-9a-fA-F]{12}"),
        "uri" => {
            let host = format!("(\\x5b({})\\x5d|([a-zA-Z0-9\\x2d._~!$&\\x27()*+,;=]|%[0-9a-fA-F]{{2}})*)", ipv6(&ipv4));
            let user = "(([a-zA-Z0-9\\x2d._~!$&\\x27()*+,;=:]|%[0-9a-fA-F]{2})*@)?";
            let rest = format!("({SEGMENT}|[\\x2f?])*");
            whole(&format!(
                "[a-zA-Z][a-zA-Z0-9+\\x2d.]*:(\\x2f\\x2f{user}{host}(:[0-9]*)?(\\x2f{SEGMENT}*)*\
                 |\\x2f({SEGMENT}+(\\x2f{SEGMENT}*)*)?|{SEGMENT}+(\\x2f{SEGMENT}*)*|)(\\?{rest})?(#{rest})?"
            ))
        }
        "json-pointer" => {
            // Any character but "/" and "~", which has to be one of two escapes.
            let plain = r"([^\x22\x5c\x00-\x1f\x2f~]|\x5c([\x22\x5cbfnrt]|u00(0[0-7be-f]|1[0-9a-f])))";
            whole(&format!("(\\x2f({plain}|~[01])*)*"))
        }
        _ => return None,
    })
}

/// RFC 4291's text form: eight groups, the last two of which may be an IPv4 address, with one run of them left out.
fn ipv6(ipv4: &str) -> String {
    let group = "[0-9a-fA-F]{1,4}";
    let last = format!("({group}:{group}|{ipv4})");
    let mut parts = vec![format!("({group}:){{6}}{last}"), format!("::({group}:){{5}}{last}")];
    for before in 1..=5 {
        let left = 5 - before;
        let head = format!("({group}:){{0,{}}}{group}", before - 1);
        // `before` groups at most stand before the run that is left out.
        parts.push(format!("({head})?::({group}:){{{left}}}{last}"));
    }
    parts.push(format!("(({group}:){{0,5}}{group})?::{group}"));
    parts.push(format!("(({group}:){{0,6}}{group})?::"));
    format!("({})", parts.join("|"))
}
