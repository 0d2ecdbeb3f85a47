//! Numbers and strings in a template's source.

use super::fault::{Done, raise, unsupported};
use super::token::Token;

/// Digits with single underscores between them; how many bytes.
fn digits(text: &str, is_digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut n = 0;
    while let Some(&byte) = bytes.get(n) {
        let joins = byte == b'_' && n > 0 && bytes.get(n + 1).is_some_and(|&b| is_digit(b));
        if !is_digit(byte) && !joins {
            break;
        }
        n += 1;
    }
    n
}

/// The number that a text begins with, and how long it is.
pub(super) fn number(text: &str, behind_point: bool) -> Option<(Done<Token>, usize)> {
    if let Some(length) = float(text).filter(|_| !behind_point) {
        let number = text.get(..length)?.replace('_', "").parse::<f64>();
        return Some((number.map(Token::Float).or_else(|_| raise("invalid number")), length));
    }
    let lower = text.get(..2.min(text.len())).unwrap_or_default().to_ascii_lowercase();
    let radix = match &*lower {
        "0b" => Some((2, digits(text.get(2..)?.trim_start_matches('_'), |b| matches!(b, b'0' | b'1')))),
        "0o" => Some((8, digits(text.get(2..)?.trim_start_matches('_'), |b| (b'0'..=b'7').contains(&b)))),
        "0x" => Some((16, digits(text.get(2..)?.trim_start_matches('_'), |b| b.is_ascii_hexdigit()))),
        _ => None,
    };
    if let Some((radix, n)) = radix.filter(|&(_, n)| n > 0 && text.as_bytes().get(3) != Some(&b'_')) {
        let skipped = usize::from(text.as_bytes().get(2) == Some(&b'_'));
        let length = 2 + skipped + n;
        return Some((int(text.get(2..length)?, radix), length));
    }
    let length = match text.as_bytes().first()? {
        b'1'..=b'9' => digits(text, |b| b.is_ascii_digit()),
        b'0' => digits(text, |b| b == b'0'),
        _ => return None,
    };
    Some((int(text.get(..length)?, 10), length))
}

fn int(text: &str, radix: u32) -> Done<Token> {
    match i128::from_str_radix(&text.replace('_', ""), radix) {
        Ok(int) => Ok(Token::Int(int)),
        Err(_) => unsupported("integers beyond 128 bits"),
    }
}

/// How long the floating-point number is that a text begins with.
fn float(text: &str) -> Option<usize> {
    let is_digit = |b: u8| b.is_ascii_digit();
    let whole = digits(text, is_digit);
    if whole == 0 {
        return None;
    }
    let rest = text.get(whole..)?;
    let fraction = rest.strip_prefix('.').map_or(0, |rest| digits(rest, is_digit));
    let length = whole + if fraction > 0 { 1 + fraction } else { 0 };
    let exponent = text.get(length..)?.strip_prefix(['e', 'E']).map_or(0, |rest| {
        let signed = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        match digits(signed, is_digit) {
            0 => 0,
            n => 1 + rest.len() - signed.len() + n,
        }
    });
    (fraction > 0 || exponent > 0).then_some(length + exponent)
}

/// How long the string is that a text begins with, and what stands between its quotes.
pub(super) fn string(text: &str) -> Option<(usize, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some((at + 1, text.get(1..at)?)),
            _ => {}
        }
    }
    None
}

/// The string that Python makes of what stands between quotes.
pub(super) fn unescape(text: &str) -> Done<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        let Some(c) = escape.chars().next() else { return raise("\\ at end of string") };
        rest = escape.get(c.len_utf8()..).unwrap_or_default();
        let simple = match c {
            '\n' => continue,
            '\\' | '\'' | '"' => c,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => {
                let n = escape.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                rest = escape.get(n..).unwrap_or_default();
                let number = u32::from_str_radix(escape.get(..n).unwrap_or_default(), 8).unwrap_or(0);
                char::from_u32(number).unwrap_or_default()
            }
            'x' | 'u' | 'U' => numbered(c, &mut rest)?,
            'N' => return unsupported("the escape \\N in a string"),
            c if !c.is_ascii() => return unsupported(format!("a backslash before {c:?} in a string")),
            c => {
                out.push('\\');
                c
            }
        };
        out.push(simple);
    }
    out.push_str(rest);
    Ok(out)
}

/// A character by its number in two, four or eight digits.
fn numbered(kind: char, rest: &mut &str) -> Done<char> {
    let (n, shape) = match kind {
        'x' => (2, "xXX"),
        'u' => (4, "uXXXX"),
        _ => (8, "UXXXXXXXX"),
    };
    let digits = rest.get(..n).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let Some(digits) = digits else { return raise(format!("truncated \\{shape} escape")) };
    *rest = rest.get(n..).unwrap_or_default();
    let number = u32::from_str_radix(digits, 16).unwrap_or(u32::MAX);
    match char::from_u32(number) {
        Some(c) => Ok(c),
        None if number > 0x10_ffff => raise("illegal Unicode character"),
        None => unsupported("half of a surrogate pair in a string"),
    }
}
