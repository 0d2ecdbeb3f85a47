//! Marks: texts that a model writes around the parts of an answer, found where they are written and nowhere else.

/// Where a byte of an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A token that is text.
    Token,
    /// A control token's text.
    Control,
    /// Text from elsewhere, which does not tell one from the other.
    Text,
}

/// A byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Byte {
    pub byte: u8,
    pub origin: Origin,
}

impl Byte {
    /// Whether it can be part of a text: a control token's is only a mark's.
    pub fn is_text(self) -> bool {
        self.origin != Origin::Control
    }

    /// Whether it is white space.
    pub fn is_space(self) -> bool {
        self.is_text() && is_space(self.byte)
    }
}

/// The white space of JSON.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether a byte begins a character, in UTF-8.
pub(super) fn begins_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// A mark, of which it is known what of it is written with control tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    /// Its bytes, and whether each is a control token's.
    bytes: Vec<(u8, bool)>,
}

/// What a text begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// The mark.
    Whole,
    /// The text is the mark as far as it goes.
    Partly,
    /// Something else.
    Otherwise,
}

impl Mark {
    /// A mark of pieces of text, some of which are control tokens.
    pub fn new<'t>(pieces: impl Iterator<Item = (bool, &'t str)>) -> Mark {
        Mark { bytes: pieces.flat_map(|(control, text)| text.bytes().map(move |byte| (byte, control))).collect() }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it begins with a control token.
    pub fn is_control(&self) -> bool {
        self.bytes.first().is_some_and(|(_, control)| *control)
    }

    /// Whether a text begins with it. A control token is not what is spelled in other tokens; in text from elsewhere the two
    /// look the same.
    pub fn begins(&self, text: &[Byte]) -> Begins {
        let same = |(&(byte, control), found): (&(u8, bool), &Byte)| {
            byte == found.byte && (found.origin == Origin::Text || (found.origin == Origin::Control) == control)
        };
        if !self.bytes.iter().zip(text).all(same) {
            return Begins::Otherwise;
        }
        if text.len() < self.bytes.len() { Begins::Partly } else { Begins::Whole }
    }
}

/// Where a text has one of several marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nowhere.
    None,
    /// From there on it may become one.
    Partly(usize),
    /// This one begins there.
    Whole { at: usize, mark: usize },
}

/// The first place where one of the marks begins, and the longest that does there. `last`: nothing follows the text.
pub(super) fn find(text: &[Byte], marks: &[&Mark], last: bool) -> Found {
    for at in 0..text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let mut whole: Option<usize> = None;
        for (n, mark) in marks.iter().enumerate() {
            match mark.begins(rest) {
                Begins::Partly if !last => return Found::Partly(at),
                Begins::Whole if whole.is_none_or(|m| marks.get(m).is_some_and(|m| m.len() < mark.len())) => {
                    whole = Some(n);
                }
                _ => {}
            }
        }
        if let Some(mark) = whole {
            return Found::Whole { at, mark };
        }
    }
    Found::None
}
