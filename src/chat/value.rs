//! An argument between tags, whose text says nothing of its type, as JSON.

use super::json::{self, Scanner, Step};
use super::literal::Converter;

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub text: bool,
    pub other: bool,
}

impl Wanted {
    /// Nothing is known of it.
    pub const ANY: Wanted = Wanted { text: true, other: true };
    /// A text.
    pub const TEXT: Wanted = Wanted { text: true, other: false };
    /// Anything but a text.
    pub const OTHER: Wanted = Wanted { text: false, other: true };
}

/// Bytes of a value that are held until it is known what it is. A longer one is a text, unless the schema allows none
/// and it reads like JSON so far.
pub(super) const MAX_HELD: usize = 4096;

/// A value, as it comes.
#[derive(Clone, Debug)]
pub(super) struct Value {
    wanted: Wanted,
    held: Vec<u8>,
    mode: Mode,
}

#[derive(Clone, Debug)]
enum Mode {
    /// What it is depends on how it ends.
    Open,
    Text,
    /// JSON, and whether it has ended.
    Json(Box<Scanner>),
}

impl Value {
    pub fn new(wanted: Wanted, out: &mut Vec<u8>) -> Value {
        let mode = if wanted.other { Mode::Open } else { Mode::Text };
        if !wanted.other {
            out.push(b'"');
        }
        Value { wanted, held: Vec::new(), mode }
    }

    /// Takes a byte of it, appends what is certain; none: it cannot stand there.
    pub fn push(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<()> {
        match &mut self.mode {
            Mode::Text => json::escape(byte, out),
            Mode::Json(scanner) => {
                if scanner.push(byte) == Step::Bad {
                    return None;
                }
                out.push(byte);
            }
            Mode::Open => {
                self.held.push(byte);
                if self.held.len() > MAX_HELD {
                    self.decide(out);
                }
            }
        }
        Some(())
    }

    /// Whether nothing but white space has come of it, and nothing has been told.
    pub fn is_blank(&self) -> bool {
        matches!(self.mode, Mode::Open) && self.held.trim_ascii().is_empty()
    }

    /// The value is longer than what is held.
    fn decide(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let mut scanner = Scanner::default();
        if self.wanted.text || held.iter().any(|&byte| scanner.push(byte) == Step::Bad) {
            out.push(b'"');
            held.iter().for_each(|&byte| json::escape(byte, out));
            self.mode = Mode::Text;
        } else {
            out.extend_from_slice(&held);
            self.mode = Mode::Json(Box::new(scanner));
        }
    }

    /// It has ended; none: it is not whole.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Option<()> {
        match &self.mode {
            Mode::Text => out.push(b'"'),
            Mode::Json(scanner) => return scanner.is_complete().then_some(()),
            Mode::Open => {
                let held = std::mem::take(&mut self.held);
                let text = held.trim_ascii();
                let mut scanner = Scanner::default();
                let is_json = text.iter().all(|&byte| scanner.push(byte) != Step::Bad) && scanner.is_complete();
                // A text in quotes has them; where no text may stand, they are those of JSON.
                if is_json && !(self.wanted.text && text.first() == Some(&b'"')) {
                    out.extend_from_slice(text);
                } else if let Some(made) = (!self.wanted.text).then(|| Converter::python(text)).flatten() {
                    out.extend_from_slice(&made);
                } else {
                    out.push(b'"');
                    held.iter().for_each(|&byte| json::escape(byte, out));
                    out.push(b'"');
                }
            }
        }
        Some(())
    }
}
