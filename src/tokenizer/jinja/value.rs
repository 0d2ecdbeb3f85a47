//! What a template computes with: Python's values, as far as templates can tell them.
//!
//! Lists and maps do not change once they are made, so no value contains itself; only a namespace is set, and never to
//! what has a namespace or a loop in it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::fault::{Done, Fault, raise};
use super::meter::costly;

/// Levels of lists and maps in one another. More could not be walked on the stack that there is.
pub(super) const MAX_LEVELS: u32 = 64;
/// Bytes of a tuple as a key, which is written out to be compared.
const MAX_KEY: usize = 64 << 10;
/// Entries from which on a map is looked up by a table.
const LARGE: usize = 8;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Undefined(Arc<Missing>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    /// A string that the template has called safe or escaped: `+` escapes what it is joined with.
    Markup(Arc<str>),
    List(Arc<List>),
    Tuple(Arc<List>),
    Map(Arc<Map>),
    Object(Arc<Object>),
}

/// Why something is undefined, in Jinja's words.
#[derive(Debug)]
pub(crate) enum Missing {
    Name(Arc<str>),
    /// The type of what has no such attribute.
    Attribute(&'static str, Arc<str>),
    /// The type of what has no such element, and the element as it is printed.
    Element(&'static str, String),
    Words(String),
}

/// A list or tuple.
#[derive(Debug)]
pub(crate) struct List {
    pub items: Vec<Value>,
    levels: u32,
    /// Bytes that it would take as a key, written out: what is shared is counted as often as it stands there.
    weight: usize,
}

/// A map in the order in which its keys came.
#[derive(Debug, Default)]
pub(crate) struct Map {
    entries: Vec<(Value, Value)>,
    /// The places of the keys, by [`key_text`], where there are many.
    table: HashMap<Box<str>, u32>,
    levels: u32,
}

/// What is neither data nor a text.
#[derive(Debug)]
pub(crate) enum Object {
    Namespace(Mutex<Vec<(Arc<str>, Value)>>),
    /// A macro by its place in the program, with the scope that it was made in.
    Macro {
        place: usize,
        scope: usize,
        name: Arc<str>,
        parameters: Arc<[Arc<str>]>,
    },
    Loop(Mutex<Loop>),
    /// A function of the environment, by its name.
    Function(&'static str),
    /// A method of a value.
    Method(Value, Arc<str>),
    /// A block of the template, by its place.
    Block(usize),
    /// `self`, whose attributes are the blocks.
    Itself,
    /// Its levels, its items and which comes next.
    Cycler(u32, Mutex<(Vec<Value>, usize)>),
    Joiner(Mutex<(Arc<str>, bool)>),
    Range {
        start: i128,
        stop: i128,
        step: i128,
    },
    View(View, Arc<Map>),
    /// What gives its items once: its Python type, its levels, then what is left, or what it ends with.
    Generator(&'static str, u32, Mutex<Result<Vec<Value>, Fault>>),
    /// A group of `groupby`: a tuple of two with names.
    Group(Value, Value),
}

/// What a view of a map shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Keys,
    Values,
    Items,
}

/// Where a loop is.
#[derive(Debug)]
pub(crate) struct Loop {
    pub items: Arc<Vec<Value>>,
    pub index0: usize,
    pub depth0: usize,
    /// What `changed` was last asked of.
    pub last_changed: Option<Vec<Value>>,
    /// Its place in the program and the scope around it, where it is recursive.
    pub recursion: Option<(usize, usize)>,
}

/// The lock of a value that only one thread ever has.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Missing {
    /// What an error about it says.
    pub fn words(&self) -> String {
        match self {
            Missing::Name(name) => format!("'{name}' is undefined"),
            Missing::Attribute("NoneType", name) => format!("'None' has no attribute '{name}'"),
            Missing::Attribute(kind, name) => format!("'{kind} object' has no attribute '{name}'"),
            Missing::Element("NoneType", element) => format!("None has no element {element}"),
            Missing::Element(kind, element) => format!("{kind} object has no element {element}"),
            Missing::Words(words) => words.clone(),
        }
    }
}

impl List {
    /// Fails with levels beyond the most.
    pub fn new(items: Vec<Value>) -> Done<Arc<List>> {
        let levels = levels_above(&items)?;
        let weight = items.iter().fold(16_usize, |sum, item| sum.saturating_add(item.weight()));
        Ok(Arc::new(List { items, levels, weight }))
    }
}

fn above(levels: u32) -> Done<u32> {
    if levels >= MAX_LEVELS {
        return costly(format!("it builds a structure of more than {MAX_LEVELS} levels"));
    }
    Ok(levels + 1)
}

/// Levels of what has these items; fails with more than the most.
pub(super) fn levels_above(items: &[Value]) -> Done<u32> {
    above(items.iter().map(Value::levels).max().unwrap_or(0))
}

/// What tells keys apart, by texts that have no marks; fails on what Python cannot hash.
pub(super) fn key_text(key: &Value, plain: &dyn for<'t> Fn(&'t str) -> Cow<'t, str>) -> Done<String> {
    let refused = |kind| raise(format!("unhashable type: '{kind}'"));
    Ok(match key {
        Value::Undefined(_) => "u".to_owned(),
        Value::None => "n".to_owned(),
        Value::Bool(bool) => format!("i{}", u8::from(*bool)),
        Value::Int(int) => format!("i{int}"),
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 1e38 => format!("i{}", *float as i128),
        Value::Float(float) => format!("f{}", float.to_bits()),
        Value::Str(text) | Value::Markup(text) => format!("s{}", plain(text)),
        // Written out, what is shared could be without end.
        Value::Tuple(list) if list.weight > MAX_KEY => {
            return costly(format!("it makes a key of more than {MAX_KEY} bytes"));
        }
        Value::Tuple(list) => {
            let parts = list.items.iter().map(|item| key_text(item, plain));
            let parts = parts.collect::<Done<Vec<_>>>()?;
            let sizes = parts.iter().map(|part| format!("{},", part.len())).collect::<String>();
            format!("t{sizes}:{}", parts.concat())
        }
        Value::Object(object) => match &**object {
            Object::Range { start, stop, step } => format!("r{start},{stop},{step}"),
            Object::View(..) => return refused(key.kind()),
            // Its second part is a list.
            Object::Group(..) => return refused("list"),
            object => format!("o{:p}", object),
        },
        Value::List(_) | Value::Map(_) => return refused(key.kind()),
    })
}

impl Map {
    /// A map of entries whose keys, as [`key_text`] has them, tell them apart: of one that comes twice the last value
    /// stays, at the first's place.
    pub fn new(entries: Vec<(String, Value, Value)>) -> Done<Arc<Map>> {
        let mut levels = 0;
        let mut map = Map { entries: Vec::with_capacity(entries.len()), ..Map::default() };
        for (text, key, value) in entries {
            levels = levels.max(key.levels()).max(value.levels());
            match map.table.get(&*text) {
                Some(&place) => {
                    if let Some(entry) = map.entries.get_mut(place as usize) {
                        entry.1 = value;
                    }
                }
                None => {
                    map.table.insert(text.into(), map.entries.len() as u32);
                    map.entries.push((key, value));
                }
            }
        }
        map.levels = above(levels)?;
        if map.entries.len() <= LARGE {
            map.table = HashMap::new();
        }
        Ok(Arc::new(map))
    }

    /// The value of a key without marks.
    pub fn get_plain(&self, key: &str) -> Option<&Value> {
        if self.entries.len() > LARGE {
            return self.get_by_text(&format!("s{key}"));
        }
        let is = |entry: &&(Value, Value)| entry.0.as_str() == Some(key);
        self.entries.iter().find(is).map(|entry| &entry.1)
    }

    /// The value of the key with this [`key_text`], of a map with a table.
    pub fn get_by_text(&self, text: &str) -> Option<&Value> {
        self.table.get(text).and_then(|&place| self.entries.get(place as usize)).map(|entry| &entry.1)
    }

    /// Whether it has a table.
    pub fn is_large(&self) -> bool {
        self.entries.len() > LARGE
    }

    pub fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }
}

impl Value {
    /// A string.
    pub fn str(text: impl Into<Arc<str>>) -> Value {
        Value::Str(text.into())
    }

    /// Something undefined, with Jinja's words.
    pub fn undefined(words: impl Into<String>) -> Value {
        Value::Undefined(Arc::new(Missing::Words(words.into())))
    }

    pub fn object(object: Object) -> Value {
        Value::Object(Arc::new(object))
    }

    /// A list; fails with levels beyond the most.
    pub fn list(items: Vec<Value>) -> Done<Value> {
        List::new(items).map(Value::List)
    }

    /// A tuple; fails with levels beyond the most.
    pub fn tuple(items: Vec<Value>) -> Done<Value> {
        List::new(items).map(Value::Tuple)
    }

    /// What gives its items once; fails with levels beyond the most.
    pub fn generator(kind: &'static str, items: Done<Vec<Value>>) -> Done<Value> {
        let levels = levels_above(items.as_ref().map_or(&[], Vec::as_slice))?;
        Ok(Value::object(Object::Generator(kind, levels, Mutex::new(items))))
    }

    /// See [`List`].
    fn weight(&self) -> usize {
        match self {
            Value::Str(text) | Value::Markup(text) => text.len().saturating_add(16),
            Value::List(list) | Value::Tuple(list) => list.weight,
            _ => 48,
        }
    }

    /// The text, where it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, where it is one or a boolean.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(bool) => Some(i128::from(*bool)),
            Value::Int(int) => Some(*int),
            _ => None,
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// The type's name, as Python's errors have it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Map(_) => "dict",
            Value::Object(object) => object.kind(),
        }
    }

    /// Levels of lists and maps.
    fn levels(&self) -> u32 {
        match self {
            Value::List(list) | Value::Tuple(list) => list.levels,
            Value::Map(map) => map.levels,
            Value::Object(object) => match &**object {
                Object::View(_, map) => map.levels,
                Object::Method(value, _) => value.levels() + 1,
                Object::Group(key, list) => key.levels().max(list.levels()) + 1,
                Object::Generator(_, levels, _) | Object::Cycler(levels, _) => *levels,
                _ => 1,
            },
            _ => 0,
        }
    }

    /// Python's truth of it.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(bool) => *bool,
            Value::Int(int) => *int != 0,
            Value::Float(float) => *float != 0.0,
            Value::Str(text) | Value::Markup(text) => !text.is_empty(),
            Value::List(list) | Value::Tuple(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            Value::Object(object) => match &**object {
                Object::Range { start, stop, step } => range_length(*start, *stop, *step) > 0,
                Object::View(_, map) => !map.entries.is_empty(),
                Object::Loop(state) => !lock(state).items.is_empty(),
                _ => true,
            },
        }
    }
}

impl Object {
    fn kind(&self) -> &'static str {
        match self {
            Object::Namespace(_) => "transformers.utils.chat_template_utils.TemplateNamespace",
            Object::Macro { .. } => "Macro",
            Object::Loop(_) => "LoopContext",
            Object::Function("dict") => "TemplateDict",
            Object::Function(_) => "function",
            Object::Method(..) => "builtin_function_or_method",
            Object::Block(_) => "BlockReference",
            Object::Itself => "TemplateReference",
            Object::Cycler(..) => "Cycler",
            Object::Joiner(_) => "Joiner",
            Object::Range { .. } => "range",
            Object::View(View::Keys, _) => "dict_keys",
            Object::View(View::Values, _) => "dict_values",
            Object::View(View::Items, _) => "dict_items",
            Object::Generator(kind, ..) => kind,
            Object::Group(..) => "_GroupTuple",
        }
    }
}

/// How many numbers a range has.
pub(super) fn range_length(start: i128, stop: i128, step: i128) -> i128 {
    let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    if span <= 0 { 0 } else { (span - 1) / step.saturating_abs().max(1) + 1 }
}
