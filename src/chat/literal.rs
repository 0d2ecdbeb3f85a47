//! Makes JSON of values in other notations, as they come.

use super::json;
use super::mark::{Begins, Byte, Mark};
use super::syntax::Notation;

/// Arrays and objects inside of each other.
const MAX_DEPTH: usize = 64;
/// Bytes of a number or a word.
const MAX_WORD: usize = 400;

/// What a converter has done with the text before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This many bytes are read, and more have to come.
    More(usize),
    /// The last byte of the value is the one before this.
    Done(usize),
    /// This many bytes are read, and what comes next cannot stand there.
    Bad(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value {
        first: bool,
    },
    Key {
        first: bool,
    },
    /// Between a key and its value.
    Colon,
    Behind,
    Text {
        quote: Quote,
        key: bool,
    },
    Escape {
        quote: Quote,
        key: bool,
    },
    /// The digits of an escape: how many are missing, what they come to.
    Hex {
        quote: Quote,
        key: bool,
        left: u8,
        code: u32,
    },
    /// A name without quotes.
    Bare,
    /// A number, or a word such as `True`.
    Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Byte(u8),
    Mark,
}

/// A place in a value.
#[derive(Clone, Debug)]
pub(super) struct Converter {
    notation: Notation,
    state: State,
    /// What is open, the outermost first: the bracket that closes it.
    open: Vec<u8>,
    word: Vec<u8>,
    /// A comma has been read, and is written with what follows it: one in front of a bracket is left out.
    comma: bool,
    /// Gemma's quote.
    quote: Mark,
}

impl Converter {
    /// For the arguments of a call, whose bracket has been read; their brace is written.
    pub fn of_arguments(notation: Notation, quote: &Mark, out: &mut Vec<u8>) -> Converter {
        out.push(b'{');
        let open = vec![if notation == Notation::Python { b')' } else { b'}' }];
        let state = State::Key { first: true };
        Converter { notation, state, open, word: Vec::new(), comma: false, quote: quote.clone() }
    }

    /// The JSON of a value in Python's notation, if it is one.
    pub fn python(text: &[u8]) -> Option<Vec<u8>> {
        let state = State::Value { first: false };
        let (open, quote) = (Vec::new(), Mark::default());
        let mut converter =
            Converter { notation: Notation::Python, state, open, word: Vec::new(), comma: false, quote };
        let origin = super::mark::Origin::Text;
        let mut bytes: Vec<Byte> = text.trim_ascii().iter().map(|&byte| Byte { byte, origin }).collect();
        // What a number or a word ends at.
        bytes.push(Byte { byte: b' ', origin });
        let mut out = Vec::new();
        match converter.read(&bytes, true, &mut out) {
            Step::Done(n) if n + 1 >= bytes.len() => Some(out),
            _ => None,
        }
    }

    /// Takes what it can of a text, appends the JSON that it comes to. `last`: nothing follows.
    pub fn read(&mut self, text: &[Byte], last: bool, out: &mut Vec<u8>) -> Step {
        let mut at = 0;
        while let Some(&next) = text.get(at) {
            let rest = text.get(at..).unwrap_or_default();
            let in_text = matches!(self.state, State::Text { .. } | State::Escape { .. } | State::Hex { .. });
            if self.notation == Notation::Gemma {
                match self.quote.begins(rest) {
                    Begins::Whole if self.at_quote(out) => {
                        at += self.quote.len();
                        continue;
                    }
                    Begins::Partly if !last => return Step::More(at),
                    _ => {}
                }
            }
            if !next.is_text() {
                return Step::Bad(at);
            }
            at += 1;
            let done = if in_text { self.text(next.byte, out) } else { self.plain(next.byte, out) };
            match done {
                None => return Step::Bad(at - 1),
                Some(true) => return Step::Done(at),
                Some(false) => {}
            }
        }
        Step::More(at)
    }

    /// At the mark that is a quote: whether one can stand there.
    fn at_quote(&mut self, out: &mut Vec<u8>) -> bool {
        let key = match self.state {
            State::Value { .. } => false,
            State::Key { .. } => true,
            State::Text { quote: Quote::Mark, key } => {
                self.end_text(key, out);
                return true;
            }
            _ => return false,
        };
        self.separate(out);
        out.push(b'"');
        self.state = State::Text { quote: Quote::Mark, key };
        true
    }

    fn end_text(&mut self, key: bool, out: &mut Vec<u8>) {
        out.push(b'"');
        self.state = if key { State::Colon } else { State::Behind };
    }

    /// A byte of a text; whether the value has ended, or none: it cannot stand there.
    fn text(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<bool> {
        match self.state {
            State::Text { quote: Quote::Byte(quote), key } if byte == quote => {
                self.end_text(key, out);
                return Some(self.open.is_empty());
            }
            State::Text { quote: quote @ Quote::Byte(_), key } if byte == b'\\' => {
                self.state = State::Escape { quote, key }
            }
            State::Escape { quote, key } => {
                let left = match byte {
                    b'x' => 2,
                    b'u' => 4,
                    b'U' => 8,
                    _ => 0,
                };
                self.state = State::Text { quote, key };
                match byte {
                    _ if left > 0 => self.state = State::Hex { quote, key, left, code: 0 },
                    b'n' => json::escape(b'\n', out),
                    b't' => json::escape(b'\t', out),
                    b'r' => json::escape(b'\r', out),
                    b'\\' | b'"' | b'\'' => json::escape(byte, out),
                    // As in Python, what is no escape is what it looks like.
                    _ => {
                        json::escape(b'\\', out);
                        json::escape(byte, out);
                    }
                }
            }
            State::Hex { quote, key, left, code } => {
                let code = code << 4 | char::from(byte).to_digit(16)?;
                self.state = State::Hex { quote, key, left: left - 1, code };
                if left == 1 {
                    let c = char::from_u32(code)?;
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| json::escape(byte, out));
                    self.state = State::Text { quote, key };
                }
            }
            _ => json::escape(byte, out),
        }
        Some(false)
    }

    /// A byte outside of a text; whether the value has ended, or none: it cannot stand there.
    fn plain(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<bool> {
        let space = super::mark::is_space(byte);
        match self.state {
            State::Word if space || b",)]}:".contains(&byte) => {
                self.end_word(out)?;
                return if self.open.is_empty() { space.then_some(true) } else { self.plain(byte, out) };
            }
            // A character that has begun is taken whole.
            State::Word if self.word.len() >= MAX_WORD && byte & 0xc0 != 0x80 => return None,
            State::Word => self.word.push(byte),
            State::Bare if byte == b':' || byte == b'=' || space => {
                out.push(b'"');
                self.state = State::Colon;
                return self.plain(byte, out);
            }
            State::Bare => json::escape(byte, out),
            _ if space => {}
            State::Key { .. } | State::Value { first: true } | State::Behind if self.open.last() == Some(&byte) => {
                return self.close(out);
            }
            State::Value { .. } if self.comma && self.open.last() == Some(&byte) => return self.close(out),
            State::Key { .. } if byte == b'"' || byte == b'\'' => {
                self.separate(out);
                out.push(b'"');
                self.state = State::Text { quote: Quote::Byte(byte), key: true };
            }
            State::Key { .. } if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 => {
                self.separate(out);
                out.push(b'"');
                out.push(byte);
                self.state = State::Bare;
            }
            State::Colon if byte == b':' || byte == b'=' => {
                out.push(b':');
                self.state = State::Value { first: false };
            }
            State::Value { .. } => self.value(byte, out)?,
            State::Behind if byte == b',' => {
                self.comma = true;
                let list = self.open.last() == Some(&b']');
                self.state = if list { State::Value { first: false } } else { State::Key { first: false } };
            }
            _ => return None,
        }
        Some(false)
    }

    /// Writes the comma that stands in front of what comes.
    fn separate(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.comma) {
            out.push(b',');
        }
    }

    fn value(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<()> {
        self.separate(out);
        match byte {
            b'[' | b'{' => {
                if self.open.len() >= MAX_DEPTH {
                    return None;
                }
                out.push(byte);
                self.open.push(if byte == b'[' { b']' } else { b'}' });
                self.state = if byte == b'[' { State::Value { first: true } } else { State::Key { first: true } };
            }
            b'"' | b'\'' => {
                out.push(b'"');
                self.state = State::Text { quote: Quote::Byte(byte), key: false };
            }
            _ => {
                self.word.clear();
                self.word.push(byte);
                self.state = State::Word;
            }
        }
        Some(())
    }

    fn close(&mut self, out: &mut Vec<u8>) -> Option<bool> {
        let closed = self.open.pop()?;
        self.comma = false;
        out.push(if closed == b']' { b']' } else { b'}' });
        self.state = State::Behind;
        Some(self.open.is_empty())
    }

    fn end_word(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let text: &[u8] = match self.word.as_slice() {
            b"True" | b"true" => b"true",
            b"False" | b"false" => b"false",
            b"None" | b"null" => b"null",
            number => {
                let mut scanner = json::Scanner::default();
                let is_number = number.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-')
                    && number.iter().all(|&b| scanner.push(b) == json::Step::More)
                    && scanner.is_complete();
                is_number.then_some(number)?
            }
        };
        out.extend_from_slice(text);
        self.state = State::Behind;
        Some(())
    }
}
