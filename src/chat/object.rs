//! A call that is a JSON object: its name, its id and its arguments found among the members, whatever their order.

use super::json::{Read, Scanner, Step, TextReader};
use super::mark::{begins_character, is_space};
use super::syntax::Keys;

/// Bytes of a member's name, a call's name or an id.
const MAX_TEXT: usize = 256;

/// What a byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to tell.
    More,
    /// The name, or the id, is known.
    Name,
    Id,
    /// The arguments begin.
    Arguments,
    /// The object has ended.
    End,
    Bad,
}

#[derive(Clone, Debug)]
enum State {
    Begin,
    KeyOrEnd,
    NextKey,
    Key(TextReader),
    Colon,
    Value,
    /// The value of a member that is a text: the name, the id.
    Text(TextReader),
    /// An id that is a number.
    Number,
    Arguments(Box<Scanner>),
    /// Arguments that are a text with JSON in it.
    Quoted(Box<(TextReader, Scanner)>),
    /// Arguments that are null.
    Null(usize),
    Skipped(Box<Scanner>),
    Behind,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Name,
    Id,
    Arguments,
    /// An object that has the members that are looked for.
    Inner,
    Other,
}

/// A place in a call's object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    keys: Keys,
    state: State,
    /// Objects around this place within the call's.
    depth: usize,
    text: Vec<u8>,
    member: Member,
    has_arguments: bool,
    pub name: Option<Vec<u8>>,
    pub id: Option<Vec<u8>>,
}

impl Object {
    pub fn new(keys: Keys) -> Object {
        Object {
            keys,
            state: State::Begin,
            depth: 0,
            text: Vec::new(),
            member: Member::Other,
            has_arguments: false,
            name: None,
            id: None,
        }
    }

    /// Whether the arguments have begun.
    pub fn has_arguments(&self) -> bool {
        self.has_arguments
    }

    /// Takes a byte; appends to `out` what is the arguments'.
    pub fn push(&mut self, byte: u8, out: &mut Vec<u8>) -> Turn {
        let space = is_space(byte);
        match &mut self.state {
            State::Begin | State::KeyOrEnd | State::NextKey | State::Colon | State::Value | State::Behind if space => {
                Turn::More
            }
            State::Begin if byte == b'{' => self.go(State::KeyOrEnd),
            State::KeyOrEnd | State::NextKey if byte == b'"' => {
                self.text.clear();
                self.go(State::Key(TextReader::default()))
            }
            State::KeyOrEnd if byte == b'}' => self.close(),
            State::Key(reader) => match reader.push(byte, &mut self.text) {
                Read::More if self.text.len() <= MAX_TEXT || !begins_character(byte) => Turn::More,
                Read::End => self.key(),
                _ => Turn::Bad,
            },
            State::Colon if byte == b':' => self.go(State::Value),
            State::Value => self.value(byte, out),
            State::Text(reader) => match reader.push(byte, &mut self.text) {
                Read::More if self.text.len() <= MAX_TEXT || !begins_character(byte) => Turn::More,
                Read::End => self.known(),
                _ => Turn::Bad,
            },
            State::Number if byte.is_ascii_digit() && self.text.len() < MAX_TEXT => {
                self.text.push(byte);
                Turn::More
            }
            State::Number => {
                let turn = self.known();
                match self.push(byte, out) {
                    Turn::More => turn,
                    // That ends the object, and it is looked at for its id then.
                    other => other,
                }
            }
            State::Arguments(scanner) => match scanner.push(byte) {
                Step::Bad => Turn::Bad,
                step => {
                    out.push(byte);
                    if step == Step::Done { self.go(State::Behind) } else { Turn::More }
                }
            },
            State::Quoted(inner) => {
                let (reader, scanner) = &mut **inner;
                let from = out.len();
                let read = reader.push(byte, out);
                let bad = out.get(from..).unwrap_or_default().iter().any(|&byte| scanner.push(byte) == Step::Bad);
                match read {
                    Read::More if !bad => Turn::More,
                    Read::End if scanner.is_complete() => self.go(State::Behind),
                    _ => {
                        out.truncate(from);
                        Turn::Bad
                    }
                }
            }
            State::Null(at) => match b"null".get(*at) {
                Some(expected) if *expected == byte && *at == 3 => {
                    out.extend_from_slice(b"{}");
                    self.go(State::Behind)
                }
                Some(expected) if *expected == byte => {
                    *at += 1;
                    Turn::More
                }
                _ => Turn::Bad,
            },
            State::Skipped(_) => self.skip(byte, out),
            State::Behind if byte == b',' => self.go(State::NextKey),
            State::Behind if byte == b'}' => self.close(),
            _ => Turn::Bad,
        }
    }

    fn go(&mut self, state: State) -> Turn {
        self.state = state;
        Turn::More
    }

    fn close(&mut self) -> Turn {
        if self.depth > 0 {
            self.depth -= 1;
            return self.go(State::Behind);
        }
        self.state = State::Done;
        Turn::End
    }

    fn key(&mut self) -> Turn {
        let is = |names: &[&str]| names.iter().any(|name| name.as_bytes() == self.text);
        self.member = if self.keys.named && self.depth == 0 {
            if self.name.is_some() {
                return Turn::Bad;
            }
            self.name = Some(self.text.clone());
            self.state = State::Colon;
            self.member = Member::Arguments;
            return Turn::Name;
        } else if is(self.keys.name) && self.name.is_none() {
            Member::Name
        } else if is(self.keys.arguments) && !self.has_arguments {
            Member::Arguments
        } else if is(self.keys.id) && self.id.is_none() {
            Member::Id
        } else if is(&["function"]) && self.depth == 0 {
            Member::Inner
        } else {
            Member::Other
        };
        self.go(State::Colon)
    }

    fn value(&mut self, byte: u8, out: &mut Vec<u8>) -> Turn {
        self.text.clear();
        let text = TextReader::default;
        match (self.member, byte) {
            (Member::Name | Member::Id, b'"') => self.go(State::Text(text())),
            (Member::Inner, b'"') if self.name.is_none() => {
                self.member = Member::Name;
                self.go(State::Text(text()))
            }
            (Member::Name, _) => Turn::Bad,
            (Member::Id, b'0'..=b'9') => {
                self.text.push(byte);
                self.go(State::Number)
            }
            (Member::Inner, b'{') => {
                self.depth += 1;
                self.go(State::KeyOrEnd)
            }
            (Member::Arguments, b'{') => {
                let mut scanner = Scanner::default();
                scanner.push(byte);
                out.push(byte);
                self.begun(State::Arguments(Box::new(scanner)))
            }
            (Member::Arguments, b'"') => self.begun(State::Quoted(Box::new((text(), Scanner::of_object())))),
            (Member::Arguments, b'n') => self.begun(State::Null(1)),
            (Member::Arguments, _) => Turn::Bad,
            _ => {
                let mut scanner = Box::new(Scanner::default());
                let step = scanner.push(byte);
                self.state = State::Skipped(scanner);
                if step == Step::Bad { Turn::Bad } else { Turn::More }
            }
        }
    }

    fn begun(&mut self, state: State) -> Turn {
        self.has_arguments = true;
        self.state = state;
        Turn::Arguments
    }

    /// The name, or the id, is whole.
    fn known(&mut self) -> Turn {
        let text = std::mem::take(&mut self.text);
        self.state = State::Behind;
        match self.member {
            Member::Name if text.is_empty() => Turn::Bad,
            Member::Name => {
                self.name = Some(text);
                Turn::Name
            }
            _ => {
                self.id = Some(text);
                Turn::Id
            }
        }
    }

    fn skip(&mut self, byte: u8, out: &mut Vec<u8>) -> Turn {
        let State::Skipped(scanner) = &mut self.state else { return Turn::Bad };
        // A number's end is what comes behind it.
        if scanner.is_complete() && matches!(byte, b',' | b'}') {
            self.state = State::Behind;
            return self.push(byte, out);
        }
        match scanner.push(byte) {
            Step::More => Turn::More,
            Step::Done => self.go(State::Behind),
            Step::Bad => Turn::Bad,
        }
    }
}
