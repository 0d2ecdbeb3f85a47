//! Python's `str.format`, as far as the template engine has it: what it may take, and what it does not come back from.

use minijinja::{Error, Value};

use super::bounds::invalid;
use super::meter::Meter;

impl Meter {
    /// Charges what Python's `str.format` makes; fields of other fields' widths, of great ones and with keys
    /// that the engine panics on are refused.
    pub fn formatted(&self, text: &str, args: &[Value]) -> Result<(), Error> {
        const MOST: usize = 3;
        if let Some(key) = unreadable_key(text) {
            return Err(invalid(format!("the key {key} in a field of format() is not supported: it is not ASCII")));
        }
        let mut fields = 0_usize;
        for part in text.split('{').skip(1) {
            fields += 1;
            let spec = part.split('}').next().unwrap_or_default();
            if spec.len() == part.len() && !spec.is_empty() {
                return Err(invalid("a field of format() in another is not supported"));
            }
            let digits = spec.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
            if digits > MOST {
                return Err(invalid(format!(
                    "a number of {digits} digits in a field of format(); the most are {MOST}"
                )));
            }
        }
        let bytes = args.iter().try_fold(0_usize, |sum, arg| {
            let size = self.look(arg)?;
            Ok::<_, Error>(sum.saturating_add(size.bytes.saturating_mul(6)).saturating_add(size.nodes * 16))
        })?;
        self.make(text.len().saturating_add(fields.saturating_mul(bytes.saturating_add(1000))))
    }
}

/// The first key in brackets of a field that the engine would cut inside of a character. Fields are found as the engine
/// finds them: two braces are one that stands for itself, and a key ends at its bracket, whatever is in it.
fn unreadable_key(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, field)) = rest.split_once('{') {
        if let Some(literal) = field.strip_prefix('{') {
            rest = literal;
            continue;
        }
        rest = field;
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
            let Some(key) = rest.strip_prefix('[') else { break };
            let (key, behind) = key.split_once(']').unwrap_or((key, ""));
            if !key.is_ascii() {
                return Some(key);
            }
            rest = behind;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_as_the_engine_finds_them() {
        for (text, key) in [
            ("{0[\u{e9}]}", Some("\u{e9}")),
            ("{[\u{e9}", Some("\u{e9}")),
            ("{{{a.b[x][{}\u{e9}]", Some("{}\u{e9}")),
            ("\u{e9}{0[x]}[\u{e9}]", None),
            ("{{0[\u{e9}]}}", None),
            ("{:\u{e9}>3}{0[{{]}\u{e9}", None),
            ("{", None),
        ] {
            assert_eq!(unreadable_key(text), key, "{text}");
        }
    }
}
