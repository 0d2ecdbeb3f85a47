//! Jinja's filters of text.

use super::arguments::Arguments;
use super::case;
use super::context::{Class, Context};
use super::fault::{Done, raise, unsupported};
use super::filters_list::Path;
use super::json;
use super::markup;
use super::meter::Text;
use super::percent;
use super::strings::{self, integer};
use super::value::Value;

/// What a filter makes of a value, or its arguments again where it is none of these.
pub(super) fn call(
    context: &Context<'_>,
    name: &str,
    value: &Value,
    arguments: Arguments,
) -> Done<Result<Value, Arguments>> {
    let done = match name {
        "upper" | "lower" | "capitalize" => {
            arguments.none(&format!("do_{name}"))?;
            method(context, value, name, Arguments::default())
        }
        "title" => {
            arguments.none("do_title")?;
            let text = context.str(value)?;
            let view = context.view(&text)?;
            context.text(view.changed(case::title_words(&view.plain)))
        }
        "trim" => {
            let [chars] = arguments.bind("do_trim()", ["chars"])?;
            method(context, value, "strip", Arguments::of(chars.into_iter().collect()))
        }
        "center" => {
            let [width] = arguments.bind("do_center()", ["width"])?;
            method(context, value, name, Arguments::of(vec![width.unwrap_or(Value::Int(80))]))
        }
        "string" => match value {
            Value::Str(_) | Value::Markup(_) => Ok(value.clone()),
            value => context.str(value).map(Value::str),
        },
        "safe" => context.str(value).map(|text| Value::Markup(text.into())),
        "e" | "escape" => markup::escaped(context, value).map(|text| Value::Markup(text.into())),
        "forceescape" => {
            let text = context.str(value)?;
            markup::escape(context, &text).map(|text| Value::Markup(text.into()))
        }
        "tojson" => json::tojson(context, value, arguments),
        "join" => join(context, value, arguments),
        "replace" => replace(context, value, arguments),
        "indent" => indent(context, value, arguments),
        "truncate" => truncate(context, value, arguments),
        "wordcount" => word_count(context, value),
        "format" => filled(context, value, arguments),
        _ => return Ok(Err(arguments)),
    };
    done.map(Ok)
}

/// A method of the value's text.
fn method(context: &Context<'_>, value: &Value, name: &str, arguments: Arguments) -> Done<Value> {
    let text = context.str(value)?;
    match strings::call(context, &text, name, arguments)? {
        Some(Value::Str(text)) if matches!(value, Value::Markup(_)) => Ok(Value::Markup(text)),
        Some(value) => Ok(value),
        None => unsupported(format!("str.{name}()")),
    }
}

fn join(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [separator, attribute] = arguments.bind("sync_do_join()", ["d", "attribute"])?;
    let separator = separator.map_or(Ok(String::new()), |separator| context.str(&separator))?;
    let path = Path::new(context, attribute.as_ref().unwrap_or(&Value::None), None)?;
    let mut out = Text::new(&context.meter);
    for (at, item) in context.items(value)?.iter().enumerate() {
        if at > 0 {
            out.push(&separator)?;
        }
        let item = path.of(context, item)?;
        match item.as_str() {
            Some(text) => out.push(text)?,
            None => out.push(&context.str(&item)?)?,
        }
    }
    Ok(Value::str(out.out))
}

fn replace(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [old, new, count] = arguments.bind("do_replace()", ["old", "new", "count"])?;
    let (Some(old), Some(new)) = (&old, &new) else {
        let missing = if old.is_none() {
            "2 required positional arguments: 'old' and 'new'"
        } else {
            "1 required positional argument: 'new'"
        };
        return raise(format!("do_replace() missing {missing}"));
    };
    let most = match count {
        None | Some(Value::None) => usize::MAX,
        Some(count) => usize::try_from(integer(&count)?).unwrap_or(usize::MAX),
    };
    let (text, old, new) = (context.str(value)?, context.str(old)?, context.str(new)?);
    strings::replaced(context, &context.view(&text)?, &old, &new, most)
}

fn indent(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [width, first, blank] = arguments.bind("do_indent()", ["width", "first", "blank"])?;
    let indention = match width {
        None => "    ".to_owned(),
        Some(Value::Str(text)) => text.to_string(),
        Some(width) => match usize::try_from(integer(&width)?.max(0)) {
            Ok(n) if n <= 999 => " ".repeat(n),
            _ => return unsupported("an indent by more than 999"),
        },
    };
    let flag = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (flag(first), flag(blank));
    let text = match value {
        Value::Str(text) => text,
        Value::Markup(_) => return unsupported("indent of a safe string"),
        Value::Undefined(missing) => return raise(missing.words()),
        value => return raise(format!("unsupported operand type(s) for +=: '{}' and 'str'", value.kind())),
    };
    let view = context.view(text)?;
    let mut lines = strings::lines(context, &view.plain)?;
    context.meter.make_elements(lines.len())?;
    if view.plain.is_empty() || lines.last().is_some_and(|&(_, end, next)| end < next && next == view.plain.len()) {
        // The filter adds a line's end, which makes an empty line of none.
        let end = view.plain.len();
        lines.push((end, end, end));
    }
    let mut out = Text::new(&context.meter);
    for (at, (start, end, _)) in lines.into_iter().enumerate() {
        if at > 0 {
            out.push("\n")?;
        }
        if if at == 0 { first } else { blank || start < end } {
            out.push(&indention)?;
        }
        out.push(view.piece(start, end))?;
    }
    Ok(Value::str(out.out))
}

fn truncate(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    let [length, kill, end, leeway] = arguments.bind("do_truncate()", ["length", "killwords", "end", "leeway"])?;
    let length = length.as_ref().map_or(Ok(255), integer)?;
    let leeway = match &leeway {
        None | Some(Value::None) => 5,
        Some(leeway) => integer(leeway)?,
    };
    let end = end.map_or(Ok("...".to_owned()), |end| context.str(&end))?;
    let n_end = end.chars().count() as i128;
    if length < n_end {
        return raise(format!("expected length >= {n_end}, got {length}"));
    }
    if leeway < 0 {
        return raise(format!("expected leeway >= 0, got {leeway}"));
    }
    let Some(text) = value.as_str() else {
        return match context.length(value)? {
            Some(n) if n as i128 <= length.saturating_add(leeway) => Ok(value.clone()),
            Some(_) => unsupported(format!("truncate of a {}", value.kind())),
            None => raise(format!("object of type '{}' has no len()", value.kind())),
        };
    };
    let view = context.view(text)?;
    if view.plain.chars().count() as i128 <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let keep = usize::try_from(length - n_end).unwrap_or(0);
    let cut = view.plain.char_indices().nth(keep).map_or(view.plain.len(), |(at, _)| at);
    let head = view.plain.get(..cut).unwrap_or_default();
    let head =
        if kill.is_some_and(|kill| kill.is_true()) { head } else { head.rsplit_once(' ').map_or(head, |(a, _)| a) };
    context.text(format!("{}{end}", view.piece_of(head)))
}

fn word_count(context: &Context<'_>, value: &Value) -> Done<Value> {
    let text = context.str(value)?;
    let (mut n, mut inside) = (0, false);
    for c in context.plain(&text).chars() {
        let is_word = c == '_' || context.is(Class::Letter, c) || c.is_numeric();
        n += i128::from(is_word && !inside);
        inside = is_word;
    }
    Ok(Value::Int(n))
}

fn filled(context: &Context<'_>, value: &Value, arguments: Arguments) -> Done<Value> {
    if !arguments.positional.is_empty() && !arguments.named.is_empty() {
        return raise("can't handle positional and keyword arguments at the same time");
    }
    let text = context.str(value)?;
    let with = if arguments.named.is_empty() {
        context.tuple(arguments.positional)?
    } else {
        context.map(arguments.named.into_iter().map(|(name, value)| (Value::Str(name), value)).collect())?
    };
    percent::percent(context, &text, &with)
}
