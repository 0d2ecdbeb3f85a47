//! What a chat template is rendered with: messages, tools and variables, read and checked.

use std::collections::BTreeSet;

use super::continued::Continued;
use super::jinja::{Limits, Map, Value};
use super::{json_reader, marks};
use crate::alloc;
use crate::error::{Error, Result};

/// Variables that a conversation has anyway.
const OWN_VARIABLES: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

/// A conversation in JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatJson<'a> {
    /// An array of objects with a `role`.
    pub messages: &'a str,
    /// What the template gets as `tools`.
    pub tools: Option<&'a str>,
    /// An object of further variables.
    pub variables: Option<&'a str>,
    /// Whether the text ends with what opens an answer.
    pub add_generation_prompt: bool,
    /// Whether the text ends within the last message, which is to be gone on with.
    pub continue_final: bool,
    /// Which of the model's templates renders it; none: the first.
    pub template_name: Option<&'a str>,
}

impl ChatJson<'_> {
    /// Reads the tools and the variables, and fails as a rendering would.
    pub fn check_tools(&self) -> Result<()> {
        Conversation::of_json(&ChatJson { messages: "[]", continue_final: false, ..*self }, 0).map(drop)
    }
}

/// What a template is rendered with.
pub(super) struct Conversation {
    pub(super) messages: Value,
    pub(super) n_messages: usize,
    pub(super) tools: Value,
    pub(super) variables: Vec<(String, Value)>,
    pub(super) add_generation_prompt: bool,
    /// The size of all its texts.
    pub(super) bytes: usize,
    /// What marks must not be.
    pub(super) taken: BTreeSet<char>,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// Where the last message ends, which is to be gone on with.
    pub(super) continued: Option<Continued>,
}

impl Conversation {
    pub(super) fn of_pairs(messages: &[(&str, &str)], add_generation_prompt: bool, now: i64) -> Result<Conversation> {
        let bytes = messages.iter().fold(0_usize, |sum, (role, content)| sum + role.len() + content.len());
        // The values, and what the engine then takes.
        alloc::require(bytes + messages.len() * 512 + Limits::of(bytes, messages.len()).memory())?;
        let mut taken = BTreeSet::new();
        let said = messages.iter().map(|&(role, content)| {
            marks::note(role, &mut taken);
            marks::note(content, &mut taken);
            let member = |name: &str, text: &str| (format!("s{name}"), Value::str(name), Value::str(text));
            Map::new(vec![member("role", role), member("content", content)]).map(Value::Map)
        });
        let said = said.collect::<std::result::Result<Vec<_>, _>>().and_then(Value::list);
        Ok(Conversation {
            messages: said.map_err(|fault| Error::Internal { message: format!("{fault:?}") })?,
            n_messages: messages.len(),
            tools: Value::None,
            variables: Vec::new(),
            add_generation_prompt,
            bytes,
            taken,
            now,
            continued: None,
        })
    }

    pub(super) fn of_json(chat: &ChatJson<'_>, now: i64) -> Result<Conversation> {
        let texts = [Some(chat.messages), chat.tools, chat.variables];
        let bytes = texts.iter().flatten().map(|text| text.len()).sum();
        let reading: usize = texts.iter().flatten().map(|text| json_reader::memory(text.len())).sum();
        alloc::require(reading.saturating_add(Limits::of(bytes, 0).memory()))?;
        let mut taken = BTreeSet::new();
        let messages = json_reader::read(chat.messages, "messages_json", &mut taken)?;
        let n_messages = check_messages(&messages)?;
        let mut read = |text: Option<&str>, name| text.map(|text| json_reader::read(text, name, &mut taken));
        let tools = read(chat.tools, "tools_json").transpose()?.unwrap_or(Value::None);
        if !matches!(tools, Value::List(_) | Value::None) {
            return Err(unlike("tools_json", format!("a {}", kind(&tools)), "an array or null"));
        }
        let named = read(chat.variables, "variables_json").transpose()?.unwrap_or(Value::None);
        let variables = check_variables(&named)?;
        let add_generation_prompt = chat.add_generation_prompt;
        let (messages, continued) = match chat.continue_final {
            true if add_generation_prompt => {
                let expected = "one of a new answer and the last message to go on with";
                return Err(unlike("flags", "for both".to_owned(), expected));
            }
            true => Continued::put(&messages, &variables).map(|(messages, continued)| (messages, Some(continued)))?,
            false => (messages, None),
        };
        Ok(Conversation { messages, n_messages, tools, variables, add_generation_prompt, bytes, taken, now, continued })
    }
}

fn unlike(name: &'static str, found: String, expected: &str) -> Error {
    Error::Argument { name, found, expected: expected.to_owned() }
}

/// What a value is, in the words of JSON.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::None => "null",
        Value::Bool(_) => "boolean",
        Value::Int(_) | Value::Float(_) => "number",
        Value::Str(_) => "string",
        Value::Map(_) => "map",
        _ => "sequence",
    }
}

/// How many messages there are, each of which must be an object with a role.
fn check_messages(messages: &Value) -> Result<usize> {
    let name = "messages_json";
    let Value::List(list) = messages else {
        return Err(unlike(name, format!("a {}", kind(messages)), "an array of messages"));
    };
    for (at, message) in list.items.iter().enumerate() {
        let Value::Map(message) = message else {
            let found = format!("holding a {} at #/{at}", kind(message));
            return Err(unlike(name, found, "objects with a role"));
        };
        match message.get_plain("role") {
            None => return Err(unlike(name, format!("holding a message without a role at #/{at}"), "a role")),
            Some(Value::Str(role)) if role.is_empty() => {
                return Err(unlike(name, format!("holding an empty role at #/{at}"), "a name"));
            }
            Some(Value::Str(_)) => {}
            Some(role) => return Err(unlike(name, format!("holding a {} at #/{at}/role", kind(role)), "a string")),
        }
    }
    Ok(list.items.len())
}

/// A template's further variables, from an object.
fn check_variables(named: &Value) -> Result<Vec<(String, Value)>> {
    let name = "variables_json";
    let entries = match named {
        Value::None => &[][..],
        Value::Map(map) => map.entries(),
        value => return Err(unlike(name, format!("a {}", kind(value)), "an object or null")),
    };
    let mut variables = Vec::new();
    for (key, value) in entries {
        let text = key.as_str().unwrap_or_default();
        if OWN_VARIABLES.contains(&text) {
            let expected = "names other than messages, tools and add_generation_prompt";
            return Err(unlike(name, format!("naming {text}"), expected));
        }
        variables.push((text.to_owned(), value.clone()));
    }
    Ok(variables)
}
