//! Numbers and texts in Python's notations: those of `format` and of `%`.

use super::fault::{Done, raise, unsupported};
use super::print;

/// The widest field and the most digits.
const MAX_WIDTH: usize = 999;

/// A field's notation: `[[fill]align][sign][#][0][width][,][.precision][type]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    pub fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    pub align: Option<char>,
    pub sign: Option<char>,
    pub alternate: bool,
    pub width: usize,
    pub grouping: Option<char>,
    pub precision: Option<usize>,
    pub kind: Option<char>,
}

/// A number of a notation, with its digits taken off.
pub(super) fn number(rest: &mut &str) -> Done<Option<usize>> {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, behind) = rest.split_at(end);
    *rest = behind;
    match digits.parse::<usize>() {
        _ if digits.is_empty() => Ok(None),
        Ok(n) if n <= MAX_WIDTH => Ok(Some(n)),
        _ => unsupported(format!("a width or precision of {digits}; the most is {MAX_WIDTH}")),
    }
}

impl Spec {
    /// Reads one of `format`.
    pub fn read(text: &str, type_name: &str) -> Done<Spec> {
        let mut spec = Spec::default();
        let mut rest = text;
        let is_align = |c: &char| matches!(c, '<' | '>' | '^' | '=');
        let mut chars = rest.chars();
        match (chars.next(), chars.next().filter(is_align)) {
            (Some(fill), Some(align)) => {
                (spec.fill, spec.align) = (Some(fill), Some(align));
                rest = chars.as_str();
            }
            (first, _) => {
                if let Some(align) = first.filter(is_align) {
                    spec.align = Some(align);
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
        }
        let take = |rest: &mut &str, set: &[char]| {
            let c = rest.chars().next().filter(|c| set.contains(c))?;
            *rest = rest.get(1..).unwrap_or_default();
            Some(c)
        };
        spec.sign = take(&mut rest, &['+', '-', ' ']);
        spec.alternate = take(&mut rest, &['#']).is_some();
        if take(&mut rest, &['0']).is_some() {
            spec.fill.get_or_insert('0');
            spec.align.get_or_insert('=');
        }
        spec.width = number(&mut rest)?.unwrap_or(0);
        spec.grouping = take(&mut rest, &[',', '_']);
        if take(&mut rest, &['.']).is_some() {
            match number(&mut rest)? {
                Some(n) => spec.precision = Some(n),
                None => return raise("Format specifier missing precision"),
            }
        }
        spec.kind = rest.chars().next();
        if rest.chars().count() > 1 {
            return raise(format!("Invalid format specifier '{text}' for object of type '{type_name}'"));
        }
        Ok(spec)
    }

    /// The text in its field.
    pub fn field(&self, sign: &str, body: &str, usual: char) -> String {
        let n = sign.chars().count() + body.chars().count();
        let missing = self.width.saturating_sub(n);
        let fill = self.fill.unwrap_or(' ');
        let filled = |n: usize| fill.to_string().repeat(n);
        match self.align.unwrap_or(usual) {
            '<' => format!("{sign}{body}{}", filled(missing)),
            '^' => format!("{}{sign}{body}{}", filled(missing / 2), filled(missing - missing / 2)),
            '=' => format!("{sign}{}{body}", filled(missing)),
            _ => format!("{}{sign}{body}", filled(missing)),
        }
    }

    fn sign_of(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        }
    }

    /// An integer.
    pub fn int(&self, int: i128) -> Done<String> {
        let size = int.unsigned_abs();
        let (prefix, digits, every) = match self.kind.unwrap_or('d') {
            'd' | 'i' | 'u' | 'n' => ("", size.to_string(), 3),
            'x' => ("0x", format!("{size:x}"), 4),
            'X' => ("0X", format!("{size:X}"), 4),
            'o' => ("0o", format!("{size:o}"), 4),
            'b' => ("0b", format!("{size:b}"), 4),
            'c' => match u32::try_from(int).ok().and_then(char::from_u32) {
                // The planes for private use have what stands for control tokens.
                Some('\u{f0000}'..) => return unsupported("%c of a character for private use"),
                Some(c) => return Ok(self.field("", &c.to_string(), '<')),
                None => return raise("%c arg not in range(0x110000)"),
            },
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%' => return self.float(int as f64),
            kind => return raise(format!("Unknown format code '{kind}' for object of type 'int'")),
        };
        if self.precision.is_some() {
            return raise("Precision not allowed in integer format specifier");
        }
        let sign = format!("{}{}", self.sign_of(int < 0), if self.alternate { prefix } else { "" });
        Ok(self.field(&sign, &self.grouped(&digits, every), '>'))
    }

    fn grouped(&self, digits: &str, every: usize) -> String {
        let Some(mark) = self.grouping else { return digits.to_owned() };
        let n = digits.len();
        let mark = |(at, c): (usize, char)| {
            let cut = at > 0 && (n - at).is_multiple_of(every);
            cut.then_some(mark).into_iter().chain([c])
        };
        digits.chars().enumerate().flat_map(mark).collect()
    }

    /// A floating-point number.
    pub fn float(&self, number: f64) -> Done<String> {
        let size = number.abs();
        let precision = self.precision.unwrap_or(6);
        let body = match self.kind {
            _ if !size.is_finite() => {
                let word = if size.is_nan() { "nan" } else { "inf" };
                if matches!(self.kind, Some('E' | 'F' | 'G')) { word.to_uppercase() } else { word.to_owned() }
            }
            Some('e') => scientific(size, precision),
            Some('E') => scientific(size, precision).to_uppercase(),
            Some('f' | 'F') => format!("{size:.precision$}"),
            Some('%') => format!("{:.precision$}%", size * 100.0),
            Some('g') => general(size, precision, self.alternate, 0),
            Some('G') => general(size, precision, self.alternate, 0).to_uppercase(),
            None | Some('n') => match self.precision {
                None => print::float(size),
                Some(precision) => general(size, precision, false, 1),
            },
            Some(kind) => return raise(format!("Unknown format code '{kind}' for object of type 'float'")),
        };
        let (whole, rest) = body.split_at(body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len()));
        let body = format!("{}{rest}", self.grouped(whole, 3));
        Ok(self.field(self.sign_of(number.is_sign_negative() && !number.is_nan()), &body, '>'))
    }
}

fn scientific(size: f64, precision: usize) -> String {
    let text = format!("{size:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// So many significant digits, without zeros behind, in the shorter notation; `early`: how much sooner the exponent comes.
fn general(size: f64, precision: usize, zeros: bool, early: i32) -> String {
    let precision = precision.max(1);
    let text = format!("{size:.*e}", precision - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let most = precision as i32 - early;
    let trim = |text: String| {
        if zeros || !text.contains('.') {
            return text;
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if exponent < -4 || exponent >= most.max(1 - early) {
        let (digits, _) = text.split_once('e').unwrap_or((&text, ""));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(digits.to_owned()), exponent.unsigned_abs());
    }
    let behind = (precision as i32 - 1 - exponent).max(0) as usize;
    let text = trim(format!("{size:.behind$}"));
    // Without a type a number stays one with a point.
    if early > 0 && !text.contains('.') { format!("{text}.0") } else { text }
}
