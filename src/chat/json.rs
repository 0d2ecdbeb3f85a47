//! Reads JSON byte by byte and says where a value ends; holds nothing of it.

/// Arrays and objects inside of each other.
const MAX_DEPTH: usize = 512;

/// What a byte is to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Part of it, and more has to come.
    More,
    /// Its last.
    Done,
    /// What cannot stand there.
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only an object.
    Object,
    Value,
    ValueOrEnd,
    KeyOrEnd,
    Key,
    Colon,
    Behind,
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Hex {
        key: bool,
        left: u8,
    },
    Number(Digits),
    Word(&'static [u8]),
    Done,
}

/// Where in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// A place in a JSON value.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    state: State,
    depth: usize,
    /// Whether each level is an object.
    objects: [u64; MAX_DEPTH / 64],
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner { state: State::Value, depth: 0, objects: [0; MAX_DEPTH / 64] }
    }
}

impl Digits {
    /// Where the next byte leads; none: it is not the number's.
    fn next(self, byte: u8) -> Option<Digits> {
        use Digits::*;
        Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Whole, b'0'..=b'9') => Whole,
            (Zero | Whole, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Whole | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => Sign,
            (Exponent | Sign | Power, b'0'..=b'9') => Power,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Digits::Zero | Digits::Whole | Digits::Fraction | Digits::Power)
    }
}

impl Scanner {
    /// For a value that has to be an object.
    pub fn of_object() -> Scanner {
        Scanner { state: State::Object, ..Scanner::default() }
    }

    /// Takes a byte.
    pub fn push(&mut self, byte: u8) -> Step {
        let space = super::mark::is_space(byte);
        let next = match self.state {
            State::Done => return if space { Step::Done } else { Step::Bad },
            State::Object
            | State::Value
            | State::ValueOrEnd
            | State::KeyOrEnd
            | State::Key
            | State::Colon
            | State::Behind
                if space =>
            {
                return Step::More;
            }
            State::Object if byte == b'{' => return self.open(true),
            State::ValueOrEnd if byte == b']' => return self.close(),
            State::Value | State::ValueOrEnd => return self.value(byte),
            State::KeyOrEnd if byte == b'}' => return self.close(),
            State::KeyOrEnd | State::Key if byte == b'"' => State::Text { key: true },
            State::Colon if byte == b':' => State::Value,
            State::Behind => return self.behind(byte),
            State::Text { key } if byte == b'"' => return if key { self.go(State::Colon) } else { self.end() },
            State::Text { key } if byte == b'\\' => State::Escape { key },
            State::Text { key } if byte >= 0x20 => State::Text { key },
            State::Escape { key } if byte == b'u' => State::Hex { key, left: 4 },
            State::Escape { key } if b"\"\\/bfnrt".contains(&byte) => State::Text { key },
            State::Hex { key, left } if byte.is_ascii_hexdigit() => match left {
                1 => State::Text { key },
                _ => State::Hex { key, left: left - 1 },
            },
            State::Number(digits) => match digits.next(byte) {
                Some(digits) => State::Number(digits),
                None if !digits.is_whole() => return Step::Bad,
                None => match self.end() {
                    Step::More => return self.push(byte),
                    // A number on its own ends where nothing follows it.
                    _ => return if space { Step::Done } else { Step::Bad },
                },
            },
            State::Word(rest) => match rest.split_first() {
                Some((first, [])) if *first == byte => return self.end(),
                Some((first, rest)) if *first == byte => State::Word(rest),
                _ => return Step::Bad,
            },
            _ => return Step::Bad,
        };
        self.go(next)
    }

    /// Whether what was taken is a whole value, if nothing follows.
    pub fn is_complete(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Number(digits) => self.depth == 0 && digits.is_whole(),
            _ => false,
        }
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    fn value(&mut self, byte: u8) -> Step {
        match byte {
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'"' => self.go(State::Text { key: false }),
            b'-' => self.go(State::Number(Digits::Minus)),
            b'0' => self.go(State::Number(Digits::Zero)),
            b'1'..=b'9' => self.go(State::Number(Digits::Whole)),
            b't' => self.go(State::Word(b"rue")),
            b'f' => self.go(State::Word(b"alse")),
            b'n' => self.go(State::Word(b"ull")),
            _ => Step::Bad,
        }
    }

    fn open(&mut self, object: bool) -> Step {
        let Some(word) = self.objects.get_mut(self.depth / 64) else { return Step::Bad };
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        self.go(if object { State::KeyOrEnd } else { State::ValueOrEnd })
    }

    fn is_object(&self) -> bool {
        let level = self.depth.saturating_sub(1);
        self.objects.get(level / 64).is_some_and(|word| word >> (level % 64) & 1 == 1)
    }

    fn close(&mut self) -> Step {
        self.depth = self.depth.saturating_sub(1);
        self.end()
    }

    /// A value has ended.
    fn end(&mut self) -> Step {
        if self.depth > 0 {
            return self.go(State::Behind);
        }
        self.state = State::Done;
        Step::Done
    }

    fn behind(&mut self, byte: u8) -> Step {
        match (byte, self.is_object()) {
            (b',', true) => self.go(State::Key),
            (b',', false) => self.go(State::Value),
            (b'}', true) | (b']', false) => self.close(),
            _ => Step::Bad,
        }
    }
}

/// Appends a character's bytes as they stand in a text of JSON; a byte of a longer character as it is.
pub(super) fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0..0x20 => {
            let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
        _ => out.push(byte),
    }
}

/// Takes a text of JSON apart, from behind its first quote.
#[derive(Clone, Debug, Default)]
pub(super) struct TextReader {
    escape: Option<Escape>,
    /// The first half of a pair of surrogates.
    half: Option<u16>,
}

#[derive(Clone, Debug)]
enum Escape {
    Begun,
    Hex { unit: u16, left: u8 },
}

/// What a byte of a text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    More,
    /// The quote behind it.
    End,
    Bad,
}

impl TextReader {
    /// Takes a byte, appends what it comes to.
    pub fn push(&mut self, byte: u8, out: &mut Vec<u8>) -> Read {
        match self.escape.take() {
            None if byte == b'\\' => self.escape = Some(Escape::Begun),
            // Half of a pair stands for nothing.
            None if self.half.is_some() => return Read::Bad,
            None if byte == b'"' => return Read::End,
            None if byte < 0x20 => return Read::Bad,
            None => out.push(byte),
            Some(Escape::Begun) if byte == b'u' => self.escape = Some(Escape::Hex { unit: 0, left: 4 }),
            Some(Escape::Begun) => {
                let plain = match byte {
                    b'"' | b'\\' | b'/' => byte,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    _ => return Read::Bad,
                };
                if self.half.is_some() {
                    return Read::Bad;
                }
                out.push(plain);
            }
            Some(Escape::Hex { unit, left }) => {
                let Some(digit) = char::from(byte).to_digit(16) else { return Read::Bad };
                let unit = unit << 4 | digit as u16;
                if left > 1 {
                    self.escape = Some(Escape::Hex { unit, left: left - 1 });
                    return Read::More;
                }
                return self.unit(unit, out);
            }
        }
        Read::More
    }

    fn unit(&mut self, unit: u16, out: &mut Vec<u8>) -> Read {
        let first = self.half.take();
        if first.is_none() && (0xd800..0xdc00).contains(&unit) {
            self.half = Some(unit);
            return Read::More;
        }
        let units = first.into_iter().chain([unit]);
        for c in char::decode_utf16(units) {
            let Ok(c) = c else { return Read::Bad };
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Read::More
    }
}
