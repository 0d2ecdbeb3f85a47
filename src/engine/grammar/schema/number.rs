//! Regular expressions for numbers: ranges of integers and decimals of any size, and multiples.
//!
//! They are made digit by digit from the schema's own digits and pass through no machine number. A number with a bound is
//! written without an exponent; one without any may have one.

use super::decimal::Decimal;

/// One end of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) at: Decimal,
    /// The number itself is not in the range.
    pub(super) strict: bool,
}

/// Any number as JSON writes it, of an integer and of either kind.
pub(super) const INTEGER: &str = "-?(0|[1-9][0-9]*)";
pub(super) const NUMBER: &str = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?";
/// Those without an exponent.
pub(super) const PLAIN: &str = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?";

/// An absolute value's digits, as long as the range's ends are.
struct Edge {
    digits: Vec<u8>,
    /// How many of the digits stand before the point.
    n_whole: usize,
    strict: bool,
}

impl Edge {
    fn of(bound: &Bound) -> Edge {
        let (whole, fraction) = bound.at.parts();
        let digits = whole.bytes().chain(fraction.bytes()).collect();
        Edge { digits, n_whole: whole.len(), strict: bound.strict }
    }

    fn digit(&self, at: usize) -> u8 {
        self.digits.get(at).copied().unwrap_or(b'0')
    }

    /// Its first `n` digits as a text begins with them; with the point where `n` goes up to it and more follows.
    fn prefix(&self, n: usize, more: bool) -> String {
        let mut out = String::new();
        for at in 0..n {
            if at == self.n_whole {
                out.push_str("\\.");
            }
            out.push(char::from(self.digit(at)));
        }
        if n == self.n_whole && more {
            out.push_str("\\.");
        }
        out
    }
}

fn class(from: u8, to: u8) -> String {
    if from == to { char::from(from).to_string() } else { format!("[{}-{}]", char::from(from), char::from(to)) }
}

/// Alternatives of one range of absolute values.
struct Writer {
    integer: bool,
    parts: Vec<String>,
}

impl Writer {
    fn fraction(&self) -> &'static str {
        if self.integer { "" } else { r"(\.[0-9]+)?" }
    }

    /// The text up to the digit `at`, that digit from a class, and any behind it.
    fn step(&mut self, edge: &Edge, at: usize, from: u8, to: u8) {
        if from > to || self.integer && at >= edge.n_whole {
            return;
        }
        let mut text = edge.prefix(at, at >= edge.n_whole) + &class(from, to);
        match (at + 1).cmp(&edge.n_whole) {
            std::cmp::Ordering::Less => {
                text += &format!("[0-9]{{{}}}", edge.n_whole - at - 1);
                text += self.fraction();
            }
            std::cmp::Ordering::Equal => text += self.fraction(),
            std::cmp::Ordering::Greater => text += "[0-9]*",
        }
        self.parts.push(text);
    }

    /// What begins with an edge's first `n` digits, which reach the point at least, and is not less than these.
    fn not_less(&mut self, edge: &Edge, n: usize, strict: bool) {
        let text = edge.prefix(n, false);
        let more = if n == edge.n_whole { "\\." } else { "" };
        self.parts.push(match (self.integer, strict) {
            (true, true) => return,
            (true, false) => text,
            (false, false) if more.is_empty() => text + "[0-9]*",
            (false, false) => text + self.fraction(),
            (false, true) => text + more + "[0-9]*[1-9][0-9]*",
        });
    }

    /// An edge's own value, however many zeros follow.
    fn equal(&mut self, edge: &Edge) {
        let text = edge.prefix(edge.digits.len(), false);
        self.parts.push(match (self.integer, edge.digits.len() == edge.n_whole) {
            (true, _) => text,
            (false, true) => text + "(\\.0+)?",
            (false, false) => text + "0*",
        });
    }

    /// All of the length of `low`, from it on.
    fn above_low(&mut self, low: &Edge) {
        for at in 0..low.digits.len() {
            self.step(low, at, low.digit(at) + 1, b'9');
        }
        self.not_less(low, low.digits.len(), low.strict);
    }

    /// All of the length of `high`, up to it.
    fn below_high(&mut self, high: &Edge, from: usize) {
        for at in from..high.digits.len() {
            let first = if at == 0 && high.n_whole > 1 { b'1' } else { b'0' };
            self.step(high, at, first, high.digit(at) - 1);
            // It may end before its last digit.
            if !self.integer && at >= high.n_whole && at > 0 {
                self.parts.push(high.prefix(at, false));
            }
        }
        if !high.strict {
            self.equal(high);
        }
    }

    /// All between two of the same length.
    fn between(&mut self, low: &Edge, high: &Edge) {
        let n = low.digits.len().max(high.digits.len());
        let Some(at) = (0..n).find(|at| low.digit(*at) != high.digit(*at)) else {
            if !low.strict && !high.strict {
                self.equal(low);
            }
            return;
        };
        if low.digit(at) > high.digit(at) {
            return;
        }
        self.step(high, at, low.digit(at) + 1, high.digit(at) - 1);
        // Where the lower end is over before they part, its value written with fewer zeros.
        if !low.strict && !self.integer {
            for n in low.digits.len()..=at {
                self.parts.push(low.prefix(n, false));
            }
        }
        for at in at + 1..low.digits.len() {
            self.step(low, at, low.digit(at) + 1, b'9');
        }
        let n = low.digits.len().max(at + 1);
        self.not_less(low, n, low.strict);
        self.below_high(high, at + 1);
    }
}

/// The absolute values of a range, as alternatives; none: there is nothing in it.
fn magnitudes(low: &Bound, high: Option<&Bound>, integer: bool) -> Vec<String> {
    let mut writer = Writer { integer, parts: Vec::new() };
    let low = Edge::of(low);
    let high = high.map(Edge::of);
    match &high {
        Some(high) if high.n_whole < low.n_whole => return Vec::new(),
        Some(high) if high.n_whole == low.n_whole => {
            writer.between(&low, high);
            return writer.parts;
        }
        _ => writer.above_low(&low),
    }
    let fraction = writer.fraction();
    match &high {
        None => writer.parts.push(format!("[1-9][0-9]{{{},}}{fraction}", low.n_whole)),
        Some(high) => {
            let (least, most) = (low.n_whole, high.n_whole - 2);
            if least <= most {
                writer.parts.push(format!("[1-9][0-9]{{{least},{most}}}{fraction}"));
            }
            writer.below_high(high, 0);
        }
    }
    writer.parts
}

fn joined(parts: Vec<String>) -> Option<String> {
    match parts.len() {
        0 => None,
        1 => parts.into_iter().next(),
        _ => Some(format!("({})", parts.join("|"))),
    }
}

/// The numbers between two ends, or only the integers; `None`: there are none.
pub(super) fn range(low: Option<&Bound>, high: Option<&Bound>, integer: bool) -> Option<String> {
    if low.is_none() && high.is_none() {
        return Some(if integer { INTEGER } else { PLAIN }.to_owned());
    }
    let whole = |bound: &Bound, up: bool| match bound.at.is_integer() {
        true if bound.strict => bound.at.beside(up),
        _ => bound.at.rounded(up),
    };
    let end = |bound: Option<&Bound>, up: bool| match bound {
        Some(bound) if integer => Some(Bound { at: whole(bound, up), strict: false }),
        bound => bound.cloned(),
    };
    let (low, high) = (end(low, true), end(high, false));
    if let (Some(low), Some(high)) = (&low, &high)
        && (low.at > high.at || low.at == high.at && (low.strict || high.strict))
    {
        return None;
    }
    let zero = |strict| Bound { at: Decimal::ZERO, strict };
    let negated = |bound: &Bound| Bound { at: bound.at.negated(), strict: bound.strict };
    let mut parts = Vec::new();
    // Below zero: the absolute values from the upper end's on.
    if low.as_ref().is_none_or(|low| low.at.negative) {
        let nearest = match &high {
            Some(high) if high.at.negative => negated(high),
            _ if integer => Bound { at: Decimal::from_integer(1), strict: false },
            _ => zero(true),
        };
        if let Some(text) = joined(magnitudes(&nearest, low.as_ref().map(negated).as_ref(), integer)) {
            parts.push(format!("-{text}"));
        }
    }
    if high.as_ref().is_none_or(|high| !high.at.negative) {
        let nearest = low.filter(|low| !low.at.negative).unwrap_or(zero(false));
        parts.extend(joined(magnitudes(&nearest, high.as_ref(), integer)));
    }
    joined(parts)
}

/// All ways in which a number is written without an exponent.
pub(super) fn equal(value: &Decimal) -> String {
    let bound = Bound { at: value.clone(), strict: false };
    let text = range(Some(&bound), Some(&bound), false).unwrap_or_default();
    if value.is_zero() { format!("-?{text}") } else { text }
}

/// The most endings that a number's last digits are chosen from.
const MAX_ENDINGS: u64 = 200;

/// The multiples of `unit` (no multiple of ten) times ten to the power of `exponent`, where their last digits tell them;
/// `None`: they do not.
pub(super) fn multiples(unit: u64, exponent: i64) -> Option<String> {
    // The least power of ten that the unit divides.
    let n = (0..=6u32).find(|n| 10u64.pow(*n) % unit == 0)?;
    let (n, power) = (n as usize, 10u64.pow(n));
    if power / unit > MAX_ENDINGS {
        return None;
    }
    let endings =
        (0..power / unit).map(|i| format!("{:0n$}", i * unit)).map(|e| if n == 0 { String::new() } else { e });
    let zeros = usize::try_from(exponent).unwrap_or(0);
    let behind = usize::try_from(-exponent).unwrap_or(0);
    let mut parts = Vec::new();
    if behind == 0 {
        parts.push("0".to_owned());
        for ending in endings {
            let short = ending.trim_start_matches('0');
            let tail = "0".repeat(zeros);
            if !short.is_empty() {
                parts.push(format!("{short}{tail}"));
            }
            parts.push(format!("[1-9][0-9]*{ending}{tail}"));
        }
        return Some(format!(r"-?({})(\.0+)?", parts.join("|")));
    }
    if n > behind {
        return None;
    }
    // Any number before the point; behind it as many digits as tell, then zeros.
    let free = behind - n;
    for ending in endings {
        let short = ending.trim_end_matches('0');
        if short.is_empty() {
            parts.push(if free > 0 { format!("[0-9]{{1,{free}}}0*") } else { "0+".to_owned() });
        } else if free > 0 {
            parts.push(format!("[0-9]{{{free}}}{short}0*"));
        } else {
            parts.push(format!("{short}0*"));
        }
    }
    Some(format!(r"-?(0|[1-9][0-9]*)(\.({}))?", parts.join("|")))
}
