//! Arguments in tags inside of each other, as JSON, as they come.

use super::json;
use super::literal::Step;
use super::mark::{Begins, Byte, Found, Mark, find};
use super::tools::{Place, Tools};
use super::value::Value;

/// Arrays and objects inside of each other.
const MAX_DEPTH: usize = 64;
/// Bytes of a tag.
const MAX_TAG: usize = 256;
/// The tag of an array's items.
const ITEM: &[u8] = b"item";

/// A tag that is open, in a container.
#[derive(Clone, Debug)]
struct Element {
    name: Vec<u8>,
    is_array: bool,
    is_empty: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// White space, then a tag.
    Between,
    /// What a tag is around, until it is known whether that are tags.
    Value(Box<Value>),
    /// A tag behind its mark, and the value that it ends.
    Tag(Vec<u8>, Option<Box<Value>>),
}

/// The arguments of a call, as far as they have been read.
#[derive(Clone, Debug)]
pub(super) struct Nested {
    /// What stands in front of each tag.
    mark: Mark,
    /// The containers that are open, the arguments first: their tag is the call's. With a value, the last is what is around that.
    open: Vec<Element>,
    state: State,
}

impl Nested {
    /// Tags behind a mark, up to the one that ends `tag`.
    pub fn new(mark: &Mark, tag: &'static str) -> Nested {
        let call = Element { name: tag.as_bytes().to_vec(), is_array: false, is_empty: true };
        Nested { mark: mark.clone(), open: vec![call], state: State::Between }
    }

    /// Reads what it can of the text, and appends what is certain.
    pub fn read(&mut self, text: &[Byte], tool: &str, tools: &Tools, out: &mut Vec<u8>) -> Step {
        let mut at = 0;
        loop {
            let rest = text.get(at..).unwrap_or_default();
            match &mut self.state {
                State::Between => {
                    at += rest.iter().take_while(|byte| byte.is_space()).count();
                    match self.mark.begins(text.get(at..).unwrap_or_default()) {
                        Begins::Whole => self.state = State::Tag(Vec::new(), None),
                        Begins::Partly => return Step::More(at),
                        Begins::Otherwise => return Step::Bad(at),
                    }
                    at += self.mark.len();
                }
                State::Value(value) => {
                    let (n, ends) = match find(rest, &[&self.mark], false) {
                        Found::Whole { at, .. } => (at, true),
                        Found::Partly(at) => (at, false),
                        Found::None => (rest.len(), false),
                    };
                    for (n, byte) in rest.iter().take(n).enumerate().filter(|(_, byte)| byte.is_text()) {
                        if value.push(byte.byte, out).is_none() {
                            return Step::Bad(at + n);
                        }
                    }
                    at += n;
                    if !ends {
                        return Step::More(at);
                    }
                    at += self.mark.len();
                    let State::Value(value) = std::mem::replace(&mut self.state, State::Between) else {
                        return Step::Bad(at);
                    };
                    self.state = State::Tag(Vec::new(), Some(value));
                }
                State::Tag(tag, value) => {
                    let Some(byte) = rest.first() else { return Step::More(at) };
                    if !byte.is_text() || tag.len() > MAX_TAG || tag.is_empty() && byte.byte != b'<' {
                        return Step::Bad(at);
                    }
                    at += 1;
                    if byte.byte != b'>' {
                        tag.push(byte.byte);
                        continue;
                    }
                    let (tag, value) = (std::mem::take(tag), value.take());
                    let done = match tag.get(1..) {
                        Some([b'/', name @ ..]) => self.close(name, value, (tool, tools), out),
                        Some(name) if !name.is_empty() => self.begin(name, value, (tool, tools), out).map(|()| false),
                        _ => None,
                    };
                    match done {
                        None => return Step::Bad(at),
                        Some(true) => return Step::Done(at),
                        Some(false) => {}
                    }
                }
            }
        }
    }

    /// Where the last open tag stands in the tool's schema.
    fn place<'t>(&self, (tool, tools): (&str, &'t Tools)) -> Place<'t> {
        let mut place = tools.place(tool);
        for pair in self.open.windows(2) {
            if let [around, inner] = pair {
                place =
                    if around.is_array { place.item() } else { place.member(&String::from_utf8_lossy(&inner.name)) };
            }
        }
        place
    }

    /// A tag begins, in the text of a value or behind another; none: it cannot stand there.
    fn begin(&mut self, name: &[u8], value: Option<Box<Value>>, of: (&str, &Tools), out: &mut Vec<u8>) -> Option<()> {
        if let Some(value) = value {
            // The value is a container, in front of whose first tag nothing stands.
            if !value.is_blank() || self.open.len() > MAX_DEPTH {
                return None;
            }
            // Where nothing is known of it, too.
            let place = self.place(of);
            let is_array = name == ITEM && (place.may_be("array") || !place.may_be("object"));
            self.open.last_mut()?.is_array = is_array;
            out.push(if is_array { b'[' } else { b'{' });
        } else if self.open.len() == 1 && self.open.last()?.is_empty {
            out.push(b'{');
        }
        let around = self.open.last_mut()?;
        if around.is_array && name != ITEM {
            return None;
        }
        if !std::mem::take(&mut around.is_empty) {
            out.push(b',');
        }
        if !around.is_array {
            out.push(b'"');
            name.iter().for_each(|&byte| json::escape(byte, out));
            out.extend_from_slice(b"\":");
        }
        self.open.push(Element { name: name.to_vec(), is_array: false, is_empty: true });
        let value = Value::new(self.place(of).wanted(), out);
        self.state = State::Value(Box::new(value));
        Some(())
    }

    /// A tag ends; whether it is the call's. None: it is not the one that is open.
    fn close(&mut self, name: &[u8], value: Option<Box<Value>>, of: (&str, &Tools), out: &mut Vec<u8>) -> Option<bool> {
        if self.open.last()?.name != name {
            return None;
        }
        match value {
            Some(mut value) => {
                let place = self.place(of);
                match value.is_blank() && !place.wanted().text {
                    true if place.may_be("array") => out.extend_from_slice(b"[]"),
                    true if place.may_be("object") => out.extend_from_slice(b"{}"),
                    _ => value.finish(out)?,
                }
            }
            None if self.open.len() == 1 && self.open.last()?.is_empty => out.extend_from_slice(b"{}"),
            None => out.push(if self.open.last()?.is_array { b']' } else { b'}' }),
        }
        self.open.pop();
        self.state = State::Between;
        Some(self.open.is_empty())
    }
}
