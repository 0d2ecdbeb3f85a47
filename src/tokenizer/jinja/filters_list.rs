//! Jinja's filters of lists, maps and numbers.

use super::arguments::Arguments;
use super::arithmetic;
use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::lookup;
use super::numbers;
use super::strings::integer;
use super::value::{List, Object, Value, View, lock};

/// The attribute that a filter looks at, such as `a.0.b`; none: the item itself.
pub(super) struct Path {
    parts: Vec<Value>,
    default: Option<Value>,
}

impl Path {
    pub fn new(context: &Context<'_>, attribute: &Value, default: Option<Value>) -> Done<Path> {
        let part = |part: &str| match part.parse::<i128>() {
            Ok(place) if part.bytes().all(|b| b.is_ascii_digit()) => Value::Int(place),
            _ => Value::str(part),
        };
        let parts = match attribute {
            Value::None => Vec::new(),
            Value::Str(text) | Value::Markup(text) => {
                let text = context.plain(text);
                context.meter.make_elements(2 * (1 + text.bytes().filter(|b| *b == b'.').count()))?;
                text.split('.').map(part).collect()
            }
            other => vec![other.clone()],
        };
        Ok(Path { parts, default: default.filter(|default| !matches!(default, Value::None)) })
    }

    /// What is there in an item.
    pub fn of(&self, context: &Context<'_>, item: &Value) -> Done<Value> {
        let mut value = item.clone();
        for part in &self.parts {
            value = lookup::item(context, &value, part)?;
            if let (true, Some(default)) = (value.is_undefined(), &self.default) {
                value = default.clone();
            }
        }
        Ok(value)
    }
}

/// What is compared: without regard to case, unless that is wanted.
fn key(context: &Context<'_>, value: Value, case_sensitive: bool) -> Done<Value> {
    match value.as_str() {
        Some(text) if !case_sensitive => context.text(context.plain(text).to_lowercase()),
        _ => Ok(value),
    }
}

/// Fails where items are nested too deep to be in something.
pub(super) fn check_levels(items: &Done<Vec<Value>>) -> Done<()> {
    match items {
        Ok(items) => List::new(items.clone()).map(|_| ()),
        Err(_) => Ok(()),
    }
}

fn flag(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

fn attribute_of(context: &Context<'_>, attribute: &Option<Value>, default: Option<Value>) -> Done<Path> {
    Path::new(context, attribute.as_ref().unwrap_or(&Value::None), default)
}

/// What a filter makes of a value.
pub(super) fn call(context: &Context<'_>, name: &str, value: &Value, arguments: Arguments) -> Done<Value> {
    match name {
        "length" | "count" => {
            arguments.none("len")?;
            match context.length(value)? {
                Some(n) => Ok(Value::Int(n as i128)),
                None => raise(format!("object of type '{}' has no len()", value.kind())),
            }
        }
        "default" | "d" => {
            let [default, boolean] = arguments.bind("do_default()", ["default_value", "boolean"])?;
            let missing = value.is_undefined() || (flag(&boolean) && !value.is_true());
            Ok(if missing { default.unwrap_or_else(|| Value::str("")) } else { value.clone() })
        }
        "attr" => {
            let [name] = arguments.bind("do_attr()", ["name"])?;
            match name.as_ref().and_then(Value::as_str) {
                Some(name) => lookup::attribute_only(context, value, &context.plain(name)),
                None => raise("attribute name must be string"),
            }
        }
        "items" => match value {
            Value::Undefined(_) => Value::generator("generator", Ok(Vec::new())),
            Value::Map(map) => {
                let view = Value::object(Object::View(View::Items, map.clone()));
                Value::generator("generator", context.items(&view))
            }
            _ => Value::generator("generator", raise("Can only get item pairs from a mapping.")),
        },
        "list" => context.items(value).and_then(|items| context.list(items)),
        "first" => first(context, value),
        "last" => last(context, value),
        "reverse" => reverse(context, value),
        "min" | "max" => extreme(context, name, value, arguments),
        "sum" => sum(context, value, arguments),
        "sort" => sort(context, value, arguments),
        "dictsort" => sort_map(context, value, arguments),
        "groupby" => group(context, value, arguments),
        "unique" => unique(context, value, arguments),
        "batch" => batch(context, value, arguments),
        "slice" => slice(context, value, arguments),
        _ => numbers::call(context, name, value, arguments),
    }
}

fn first(context: &Context<'_>, value: &Value) -> Done<Value> {
    if let Value::Object(object) = value
        && let Object::Generator(_, _, items) = &**object
    {
        // The rest stays.
        let mut items = lock(items);
        return match &mut *items {
            Ok(items) if !items.is_empty() => Ok(items.remove(0)),
            Ok(_) => Ok(Value::undefined("No first item, sequence was empty.")),
            Err(fault) => Err(fault.clone()),
        };
    }
    let first = context.items(value)?.into_iter().next();
    Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
}

/// Whether Python's `reversed` takes it.
fn is_reversible(value: &Value) -> bool {
    match value {
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
        Value::Object(object) => matches!(**object, Object::Range { .. } | Object::Group(..) | Object::View(..)),
        _ => true,
    }
}

fn last(context: &Context<'_>, value: &Value) -> Done<Value> {
    if !is_reversible(value) {
        return raise(format!("'{}' object is not reversible", value.kind()));
    }
    let last = context.items(value)?.pop();
    Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
}

fn reverse(context: &Context<'_>, value: &Value) -> Done<Value> {
    if let Some(text) = value.as_str() {
        return context.text(text.chars().rev().collect::<String>());
    }
    let kind = match value {
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => return raise("argument must be iterable"),
        Value::List(_) => "list_reverseiterator",
        Value::Map(_) => "dict_reversekeyiterator",
        _ => "reversed",
    };
    let mut items = context.items(value)?;
    items.reverse();
    if is_reversible(value) {
        List::new(items.clone())?;
        return Value::generator(kind, Ok(items));
    }
    context.list(items)
}

fn extreme(context: &Context<'_>, name: &str, value: &Value, arguments: Arguments) -> Done<Value> {
    let [case_sensitive, attribute] = arguments.bind(&format!("do_{name}()"), ["case_sensitive", "attribute"])?;
    let path = attribute_of(context, &attribute, None)?;
    let operator = if name == "min" { "<" } else { ">" };
    let mut best: Option<(Value, Value)> = None;
    for item in context.items(value)? {
        let key = key(context, path.of(context, &item)?, flag(&case_sensitive))?;
        let better = match &best {
            Some((other, _)) => context.compare(operator, &key, other)?,
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, item)| item))
}

fn sum(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [attribute, start] = arguments.bind("sync_do_sum()", ["attribute", "start"])?;
    let path = attribute_of(context, &attribute, None)?;
    let mut sum = start.unwrap_or(Value::Int(0));
    if sum.as_str().is_some() {
        return raise("sum() can't sum strings [use ''.join(seq) instead]");
    }
    for item in context.items(value)? {
        sum = arithmetic::binary(context, "+", &sum, &path.of(context, &item)?)?;
    }
    Ok(sum)
}

fn sort(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [reverse, case_sensitive, attribute] =
        arguments.bind("do_sort()", ["reverse", "case_sensitive", "attribute"])?;
    let paths = match attribute.as_ref().and_then(Value::as_str) {
        Some(text) => {
            let text = context.plain(text);
            text.split(',').map(|path| Path::new(context, &Value::str(path), None)).collect::<Done<Vec<_>>>()
        }
        None => Ok(vec![attribute_of(context, &attribute, None)?]),
    }?;
    let mut keyed = Vec::new();
    for item in context.items(value)? {
        let of = |path: &Path| key(context, path.of(context, &item)?, flag(&case_sensitive));
        let keys = context.list(paths.iter().map(of).collect::<Done<Vec<_>>>()?)?;
        keyed.push((keys, item));
    }
    context.list(context.sorted(keyed, flag(&reverse))?)
}

fn sort_map(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [case_sensitive, by, reverse] = arguments.bind("do_dictsort()", ["case_sensitive", "by", "reverse"])?;
    let by_value = match by.as_ref().map(|by| by.as_str().map(|by| context.plain(by))) {
        None => false,
        Some(Some(by)) if by == "key" => false,
        Some(Some(by)) if by == "value" => true,
        Some(_) => return raise("You can only sort by either \"key\" or \"value\""),
    };
    let Value::Map(map) = value else {
        let words = match value {
            Value::Undefined(missing) => missing.words(),
            value => format!("'{}' object has no attribute 'items'", value.kind()),
        };
        return raise(words);
    };
    let mut keyed = Vec::new();
    for (name, item) in map.entries() {
        let by = if by_value { item } else { name };
        let pair = context.tuple(vec![name.clone(), item.clone()])?;
        keyed.push((key(context, by.clone(), flag(&case_sensitive))?, pair));
    }
    context.list(context.sorted(keyed, flag(&reverse))?)
}

fn group(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [attribute, default, case_sensitive] =
        arguments.bind("sync_do_groupby()", ["attribute", "default", "case_sensitive"])?;
    let path = attribute_of(context, &attribute, default)?;
    let mut keyed = Vec::new();
    for item in context.items(value)? {
        let shown = path.of(context, &item)?;
        let by = key(context, shown.clone(), flag(&case_sensitive))?;
        keyed.push((by.clone(), (by, shown, item)));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (by, shown, item) in context.sorted(keyed, false)? {
        match groups.last_mut() {
            Some((last, _, items)) if context.equal(last, &by)? => items.push(item),
            _ => groups.push((by, shown, vec![item])),
        }
    }
    let group = |(_, shown, items): (Value, Value, Vec<Value>)| {
        let items = context.list(items)?;
        List::new(vec![items.clone()])?;
        Ok(Value::object(Object::Group(shown, items)))
    };
    context.list(groups.into_iter().map(group).collect::<Done<_>>()?)
}

fn unique(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [case_sensitive, attribute] = arguments.bind("sync_do_unique()", ["case_sensitive", "attribute"])?;
    let path = attribute_of(context, &attribute, None)?;
    let (mut seen, mut kept) = (std::collections::HashSet::new(), Vec::new());
    for item in context.items(value)? {
        let text = context.key_text(&key(context, path.of(context, &item)?, flag(&case_sensitive))?)?;
        context.meter.make(text.len() + 64)?;
        if seen.insert(text) {
            kept.push(item);
        }
    }
    List::new(kept.clone())?;
    Value::generator("generator", Ok(kept))
}

/// How many a filter was asked for.
fn count(value: &Option<Value>, function: &str, name: &str) -> Done<usize> {
    match value {
        Some(value) => match usize::try_from(integer(value)?) {
            Ok(n) if n > 0 => Ok(n),
            _ => unsupported(format!("{function} by less than 1")),
        },
        None => raise(format!("{function}() missing 1 required positional argument: '{name}'")),
    }
}

fn batch(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [n, fill] = arguments.bind("do_batch()", ["linecount", "fill_with"])?;
    let n = count(&n, "do_batch", "linecount")?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = context.items(value)?;
    let mut batches = Vec::new();
    for part in items.chunks(n) {
        let mut part = part.to_vec();
        if let (true, Some(fill)) = (part.len() < n, &fill) {
            context.meter.make_elements(n)?;
            part.resize(n, fill.clone());
        }
        batches.push(context.list(part)?);
    }
    List::new(batches.clone())?;
    Value::generator("generator", Ok(batches))
}

fn slice(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [n, fill] = arguments.bind("sync_do_slice()", ["slices", "fill_with"])?;
    let n = count(&n, "sync_do_slice", "slices")?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = context.items(value)?;
    context.meter.make_elements(n)?;
    let (each, extra) = (items.len() / n, items.len() % n);
    let mut rest = &items[..];
    let mut slices = Vec::new();
    for at in 0..n {
        let (part, behind) = rest.split_at(each + usize::from(at < extra));
        rest = behind;
        let mut part = part.to_vec();
        part.extend(fill.clone().filter(|_| at >= extra));
        slices.push(context.list(part)?);
    }
    List::new(slices.clone())?;
    Value::generator("generator", Ok(slices))
}
