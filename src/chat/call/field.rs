//! The texts of a call: its name and what else stands in front of its arguments, and values between tags.

use super::{Call, Context, Inner, Step};
use crate::chat::event::EventKind;
use crate::chat::json;
use crate::chat::mark::{Begins, Byte, Found, Mark, begins_character, find};
use crate::chat::syntax::Field;
use crate::chat::tools;
use crate::chat::value::{Value, Wanted};

/// Bytes of a name, an id or what else stands in front of the arguments.
const MAX_FIELD: usize = 256;

/// How much of a text stands in front of the first of these marks, or of what may become one, and whether it is there.
fn before(text: &[Byte], marks: &[&Mark]) -> (usize, bool) {
    match find(text, marks, false) {
        Found::Whole { at, .. } => (at, true),
        Found::Partly(at) => (at, false),
        Found::None => (text.len(), false),
    }
}

impl Call {
    pub(super) fn field(
        &mut self,
        field: Field,
        ends: &[Mark],
        text: &[Byte],
        skip: usize,
        context: &mut Context<'_>,
    ) -> Step {
        let marks: Vec<&Mark> = ends.iter().collect();
        let text_from = text.get(skip..).unwrap_or_default();
        let (n, ended) = before(text_from, &marks);
        if let Inner::None = self.inner {
            if text_from.is_empty() {
                return Step::More(skip);
            }
            self.inner = Inner::Field(Vec::new());
        }
        let Inner::Field(held) = &mut self.inner else { return Step::Bad(0) };
        for (at, byte) in text_from.iter().take(n).enumerate() {
            // A character that has begun is taken whole.
            if !byte.is_text() || held.len() >= MAX_FIELD && begins_character(byte.byte) {
                return Step::Bad(skip + at);
            }
            held.push(byte.byte);
        }
        // A name has no spaces in it; what looks like one so far may go on.
        let so_far = held.trim_ascii_start();
        let plain = !matches!(field, Field::Name | Field::IdWithName) || is_name(so_far.trim_ascii_end(), so_far);
        if !plain {
            return Step::Bad(0);
        }
        if !ended {
            return Step::More(skip + n);
        }
        let found = held.trim_ascii().to_vec();
        if !self.known(field, found, context) {
            return Step::Bad(0);
        }
        self.go(skip + n)
    }

    /// A field has been read; whether it can be what it is.
    fn known(&mut self, field: Field, text: Vec<u8>, context: &mut Context<'_>) -> bool {
        match field {
            Field::Name | Field::IdWithName => {
                let name = if field == Field::Name { text.clone() } else { name_of_id(&text).to_vec() };
                if name.is_empty() {
                    return false;
                }
                if field == Field::IdWithName {
                    self.id = Some(text);
                }
                self.name = name;
                self.begin(context);
            }
            Field::Id => match self.index {
                Some(index) => context.events.say(EventKind::CallId, index, false, &text),
                None => self.id = Some(text),
            },
            Field::Key => self.key = text,
            // Of DeepSeek's `string="true"`, and of types by their names.
            Field::Type => match text.as_slice() {
                b"true" | b"string" => self.wanted = Some(Wanted::TEXT),
                _ => self.wanted = Some(Wanted::OTHER),
            },
            Field::Other => {}
        }
        true
    }

    pub(super) fn value(
        &mut self,
        (lines, ends, cdata): (bool, &[Mark], &Option<(Mark, Mark)>),
        text: &[Byte],
        context: &mut Context<'_>,
    ) -> Step {
        let mut out = Vec::new();
        let mut skip;
        if let Inner::None = self.inner {
            // The end of the tag's line is not the value's.
            match text.first() {
                None => return Step::More(0),
                Some(first) => skip = usize::from(lines && first.is_text() && first.byte == b'\n'),
            }
            if let Some((open, _)) = cdata {
                match open.begins(text) {
                    Begins::Partly => return Step::More(0),
                    Begins::Whole => (skip, self.is_cdata) = (open.len(), true),
                    Begins::Otherwise => {}
                }
            }
            out.push(if self.has_arguments { b',' } else { b'{' });
            out.push(b'"');
            self.key.iter().for_each(|&byte| json::escape(byte, &mut out));
            out.extend_from_slice(b"\":");
            let (name, key) = (String::from_utf8_lossy(&self.name), String::from_utf8_lossy(&self.key));
            let wanted = self.wanted.take().unwrap_or_else(|| context.tools.wanted(&name, &key));
            self.inner = Inner::Value(Box::new(Value::new(wanted, &mut out)));
            self.arguments(&out, context);
            return Step::Go(skip);
        }
        let marks: Vec<&Mark> = match (self.is_cdata, cdata) {
            (true, Some((_, close))) => vec![close],
            _ => ends.iter().collect(),
        };
        let (n, ended) = before(text, &marks);
        let Inner::Value(value) = &mut self.inner else { return Step::Bad(0) };
        let mut taken = 0;
        let mut good = true;
        for byte in text.iter().take(n) {
            good = !byte.is_text() || value.push(byte.byte, &mut out).is_some();
            if !good {
                break;
            }
            taken += 1;
        }
        if good && ended {
            good = value.finish(&mut out).is_some();
        }
        self.arguments(&out, context);
        match (good, ended) {
            (false, _) => Step::Bad(taken),
            (true, false) => Step::More(n),
            (true, true) => {
                let quote = if std::mem::take(&mut self.is_cdata) {
                    cdata.as_ref().map_or(0, |(_, close)| close.len())
                } else {
                    0
                };
                self.go(n + quote)
            }
        }
    }
}

/// Whether a text is a function's name, or may become one: `so_far` has what stands behind it.
fn is_name(name: &[u8], so_far: &[u8]) -> bool {
    // Spaces may stand behind a name, and nothing behind them.
    name.iter().copied().all(tools::is_of_name) && so_far.len() <= name.len() + 64
}

/// The name in an id such as `functions.name:0`.
fn name_of_id(id: &[u8]) -> &[u8] {
    let name = id.strip_prefix(b"functions.").unwrap_or(id);
    match name.iter().rposition(|&b| b == b':') {
        Some(at) if name.get(at + 1..).is_some_and(|n| n.iter().all(u8::is_ascii_digit)) => {
            name.get(..at).unwrap_or_default()
        }
        _ => name,
    }
}
