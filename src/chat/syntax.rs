//! How a family of models writes its answers, as data: which marks stand where and how a call's arguments are written. One
//! machine reads them all; a new family is a new value here.

/// An answer's marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Syntax {
    /// What the family is called.
    pub family: &'static str,
    /// What begins thinking and what ends it.
    pub thinking: Vec<(String, String)>,
    /// What stands around an answer and is no part of it.
    pub around: Vec<String>,
    pub calls: Option<Calls>,
    pub channels: Option<Channels>,
}

/// How calls are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    /// Any of these begins a call, or several.
    pub open: Vec<String>,
    /// What stands behind the last of them.
    pub close: Option<String>,
    /// They may stand in brackets with commas between.
    pub listed: bool,
    /// They do.
    pub brackets: bool,
    /// Objects may stand in a row without marks between.
    pub row: bool,
    /// An object that the answer begins with is a call too, if it has the members of one.
    pub bare: bool,
    pub item: Item,
}

/// How one call is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A JSON object.
    Object(Keys),
    /// These in a row, with or without white space between.
    Parts(Vec<Part>),
}

impl Default for Item {
    fn default() -> Item {
        Item::Object(Keys::default())
    }
}

/// The names of the members of a call's object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub name: &'static [&'static str],
    pub arguments: &'static [&'static str],
    pub id: &'static [&'static str],
    /// The object has one member, named as the function is.
    pub named: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Mark(String),
    /// Text up to what comes next.
    Field(Field),
    /// The arguments as a JSON object.
    Json,
    /// The arguments one by one, each as these in a row, among them a `Key` and a `Value`.
    Each(Vec<Part>),
    /// An argument's value, up to the mark behind it. `lines`: it stands on lines of its own; `cdata`: it may stand in XML's
    /// quotes for any text.
    Value {
        lines: bool,
        cdata: bool,
    },
    /// The arguments in brackets of which the first has been read.
    Pairs(Notation),
    /// The arguments in tags that may be inside of each other, each behind this mark, up to what ends this tag.
    Nested(&'static str, &'static str),
}

impl Part {
    pub fn is_nested(&self) -> bool {
        matches!(self, Part::Nested(..))
    }
}

/// What a piece of text in a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Id,
    /// An id such as `functions.name:0`, which has the name in it.
    IdWithName,
    /// An argument's name.
    Key,
    /// What type an argument's value is of.
    Type,
    /// What says nothing.
    Other,
}

/// How values are written that are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notation {
    /// `a='b', c=[True]` up to a round bracket.
    Python,
    /// `a:<|"|>b<|"|>,c:[true]` up to a brace.
    Gemma,
}

/// Messages inside of the answer, each behind a head that says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    /// What begins a head.
    pub open: Vec<&'static str>,
    /// What ends it, and begins the message.
    pub message: &'static str,
    /// What ends the message.
    pub ends: Vec<&'static str>,
    /// What a head of thinking has in it.
    pub thinking: &'static str,
    /// What a call's name stands behind in a head; its message is the arguments, as JSON.
    pub call: Option<&'static str>,
    /// What heads may begin with; nothing: the name of one of the tools, or of the answer.
    pub head: &'static [&'static str],
    /// What stands in place of a call's name where the message is the answer.
    pub answer: &'static str,
}

/// The usual names of the members of a call.
pub(super) const KEYS: Keys = Keys {
    name: &["name"],
    arguments: &["arguments", "parameters"],
    id: &["id", "call_id", "tool_call_id"],
    named: false,
};

impl Syntax {
    /// A family that has calls.
    pub fn with_calls(family: &'static str, calls: Calls) -> Syntax {
        Syntax { family, calls: Some(calls), ..Syntax::default() }
    }
}

impl Calls {
    /// Calls as JSON objects between two marks; without the second to the end of the last.
    pub fn objects(open: &str, close: Option<&str>, keys: Keys) -> Calls {
        let (open, close) = (vec![open.to_owned()], close.map(str::to_owned));
        Calls { open, close, listed: true, brackets: false, row: false, bare: false, item: Item::Object(keys) }
    }

    /// Calls in parts.
    pub fn parts(open: &str, close: Option<&str>, parts: Vec<Part>) -> Calls {
        let (open, close) = (vec![open.to_owned()], close.map(str::to_owned));
        Calls { open, close, listed: false, brackets: false, row: false, bare: false, item: Item::Parts(parts) }
    }
}

/// A part that is a mark.
pub(super) fn mark(text: &str) -> Part {
    Part::Mark(text.to_owned())
}
