//! Python's methods of strings, over what marks stand for: a control token in the template's own text is the text it is.

use super::arguments::Arguments;
use super::case;
use super::context::{Context, Plain, is_space};
use super::fault::{Done, raise, unsupported};
use super::meter::Text;
use super::value::Value;

/// The widest text that padding makes, in characters.
const MAX_WIDTH: usize = 100_000;

/// Which end of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
    Both,
}

/// A string that a method takes, or Python's error.
fn string(value: &Value, error: impl Fn(&str) -> String) -> Done<&str> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => raise(error(value.kind())),
    }
}

/// An integer that a method takes.
pub(super) fn integer(value: &Value) -> Done<i128> {
    match value.as_int() {
        Some(int) => Ok(int),
        None => raise(format!("'{}' object cannot be interpreted as an integer", value.kind())),
    }
}

/// The place of a character, or the end.
fn byte_of(text: &str, n: usize) -> usize {
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

/// The part that a start and a stop mean, in bytes; `None` where it begins behind the end.
fn range(plain: &str, bounds: &[Value]) -> Done<Option<(usize, usize)>> {
    let n = plain.chars().count() as i128;
    let bound = |at: usize, usual: i128| match bounds.get(at) {
        None | Some(Value::None) => Ok(usual),
        Some(value) => integer(value).map(|i| if i < 0 { (i + n).max(0) } else { i }),
    };
    let (start, stop) = (bound(0, 0)?, bound(1, n)?.min(n));
    if start > stop {
        return Ok(None);
    }
    Ok(Some((byte_of(plain, start as usize), byte_of(plain, stop as usize))))
}

/// What a method of a string gives; `None` where there is no such method here.
pub(super) fn call(context: &Context<'_>, text: &str, method: &str, arguments: Arguments) -> Done<Option<Value>> {
    let view = context.view(text)?;
    let plain = &*view.plain;
    let done = match method {
        "upper" | "lower" | "title" | "capitalize" | "swapcase" | "casefold" => {
            arguments.none(&format!("str.{method}"))?;
            return recase(context, &view, method).map(Some);
        }
        "strip" => return stripped(context, &view, method, End::Both, arguments).map(Some),
        "lstrip" => return stripped(context, &view, method, End::Left, arguments).map(Some),
        "rstrip" => return stripped(context, &view, method, End::Right, arguments).map(Some),
        "split" | "rsplit" => return split(context, &view, method == "rsplit", arguments).map(Some),
        "splitlines" => return split_lines(context, &view, arguments).map(Some),
        "partition" | "rpartition" => return partition(context, &view, method, arguments).map(Some),
        "replace" => return replace(context, &view, arguments).map(Some),
        "startswith" | "endswith" => return begins(context, plain, method, arguments).map(Some),
        "find" | "rfind" | "index" | "rindex" | "count" => {
            return found(context, plain, method, arguments).map(Some);
        }
        "join" => return join(context, text, arguments).map(Some),
        "removeprefix" | "removesuffix" => return removed(context, &view, method, arguments).map(Some),
        "zfill" | "center" | "ljust" | "rjust" => return padded(context, &view, method, arguments).map(Some),
        "expandtabs" => return expanded(context, &view, arguments).map(Some),
        "encode" | "translate" | "maketrans" => return unsupported(format!("str.{method}()")),
        _ => super::classes::is(context, plain, method)?,
    };
    if done.is_some() {
        arguments.none(&format!("str.{method}"))?;
    }
    Ok(done.map(Value::Bool))
}

fn recase(context: &Context<'_>, view: &Plain<'_>, method: &str) -> Done<Value> {
    let plain = &*view.plain;
    context.meter.make(plain.len().saturating_mul(6))?;
    let new = match method {
        "upper" => plain.to_uppercase(),
        "lower" => plain.to_lowercase(),
        "title" => case::title(plain),
        "capitalize" => case::capitalize(plain),
        "swapcase" => case::swap(plain),
        _ if plain.is_ascii() => plain.to_ascii_lowercase(),
        _ => return unsupported("str.casefold() beyond ASCII"),
    };
    Ok(Value::str(view.changed(new)))
}

fn stripped(context: &Context<'_>, view: &Plain<'_>, method: &str, end: End, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain(method, 0, 1)?;
    let set = match arguments.first() {
        None | Some(Value::None) => None,
        Some(chars) => Some(string(chars, |_| format!("{method} arg must be None or str"))?),
    };
    strip(context, view, set, end)
}

fn strip(context: &Context<'_>, view: &Plain<'_>, set: Option<&str>, end: End) -> Done<Value> {
    context.meter.make(set.map_or(0, |set| 16 * set.len()))?;
    let set: Option<Vec<char>> = set.map(|set| {
        let mut set: Vec<char> = context.plain(set).chars().collect();
        set.sort_unstable();
        set
    });
    let is = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.binary_search(&c).is_ok());
    let mut rest = &*view.plain;
    if end != End::Right {
        rest = rest.trim_start_matches(is);
    }
    if end != End::Left {
        rest = rest.trim_end_matches(is);
    }
    context.text(view.piece_of(rest))
}

/// What stands between separators, or between blanks, with at most so many cuts.
fn split(context: &Context<'_>, view: &Plain<'_>, from_right: bool, arguments: Arguments) -> Done<Value> {
    let method = if from_right { "rsplit" } else { "split" };
    let [separator, most] = arguments.bind(&format!("{method}()"), ["sep", "maxsplit"])?;
    let most = match most {
        None => usize::MAX,
        Some(most) => usize::try_from(integer(&most)?).unwrap_or(usize::MAX),
    };
    let plain = &*view.plain;
    context.meter.charge(plain.len())?;
    let mut pieces: Vec<&str> = Vec::new();
    let separator = separator.filter(|separator| !matches!(separator, Value::None));
    if let Some(separator) = separator {
        let separator = string(&separator, |kind| format!("must be str or None, not {kind}"))?.to_owned();
        if separator.is_empty() {
            return raise("empty separator");
        }
        let separator = context.plain(&separator).into_owned();
        let n = plain.matches(&*separator).count().min(most);
        context.meter.make_elements(2 * (n + 1))?;
        let cuts = n.saturating_add(1);
        if from_right {
            pieces.extend(plain.rsplitn(cuts, &*separator));
            pieces.reverse();
        } else {
            pieces.extend(plain.splitn(cuts, &*separator));
        }
    } else {
        context.meter.make_elements(2 * plain.split(is_space).count().min(most.saturating_add(1)))?;
        let mut rest = if from_right { plain.trim_end_matches(is_space) } else { plain.trim_start_matches(is_space) };
        while !rest.is_empty() {
            let at = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
            let Some(at) = at.filter(|_| pieces.len() < most) else {
                pieces.push(rest);
                break;
            };
            let blank = rest.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
            let (left, right) = (rest.get(..at).unwrap_or_default(), rest.get(at + blank..).unwrap_or_default());
            pieces.push(if from_right { right } else { left });
            rest = if from_right { left.trim_end_matches(is_space) } else { right.trim_start_matches(is_space) };
        }
        if from_right {
            pieces.reverse();
        }
    }
    context.meter.make(view.text().len())?;
    Value::list(pieces.into_iter().map(|piece| Value::str(view.piece_of(piece))).collect())
}

/// The lines of a text, in bytes: where each begins, where it ends, and where its line end does.
pub(super) fn lines(context: &Context<'_>, plain: &str) -> Done<Vec<(usize, usize, usize)>> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    // Charged before they are there, with what they double by.
    context.meter.make_elements(2 * (1 + plain.chars().filter(|c| is_end(*c)).count()))?;
    let (mut found, mut start) = (Vec::new(), 0);
    while let Some(length) = plain.get(start..).and_then(|rest| rest.find(is_end)) {
        let end = start + length;
        let rest = plain.get(end..).unwrap_or_default();
        let width = if rest.starts_with("\r\n") { 2 } else { rest.chars().next().map_or(1, char::len_utf8) };
        found.push((start, end, end + width));
        start = end + width;
    }
    if start < plain.len() {
        found.push((start, plain.len(), plain.len()));
    }
    Ok(found)
}

fn split_lines(context: &Context<'_>, view: &Plain<'_>, arguments: Arguments) -> Done<Value> {
    let [keep] = arguments.bind("splitlines()", ["keepends"])?;
    let keep = keep.is_some_and(|keep| keep.is_true());
    context.meter.make(view.text().len())?;
    let lines = lines(context, &view.plain)?;
    context.meter.make_elements(2 * lines.len())?;
    let line = |(start, end, next)| Value::str(view.piece(start, if keep { next } else { end }));
    Value::list(lines.into_iter().map(line).collect())
}

fn partition(context: &Context<'_>, view: &Plain<'_>, method: &str, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain(&format!("str.{method}"), 1, 1)?;
    let separator = string(&arguments[0], |kind| format!("must be str, not {kind}"))?;
    if separator.is_empty() {
        return raise("empty separator");
    }
    let (plain, separator) = (&*view.plain, context.plain(separator));
    context.meter.make(view.text().len() + 256)?;
    let at = if method == "partition" { plain.find(&*separator) } else { plain.rfind(&*separator) };
    let parts = match at {
        Some(at) => {
            let end = at + separator.len();
            [view.piece(0, at), view.piece(at, end), view.piece(end, plain.len())]
        }
        None if method == "partition" => [view.text(), "", ""],
        None => ["", "", view.text()],
    };
    Value::tuple(parts.into_iter().map(Value::str).collect())
}

fn replace(context: &Context<'_>, view: &Plain<'_>, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain("replace", 2, 3)?;
    let part =
        |at: usize| string(&arguments[at], |kind| format!("replace() argument {} must be str, not {kind}", at + 1));
    let most = arguments.get(2).map(integer).transpose()?.unwrap_or(-1);
    replaced(context, view, part(0)?, part(1)?, usize::try_from(most).unwrap_or(usize::MAX))
}

/// A text with another in the place of a part, at most so often.
pub(super) fn replaced(context: &Context<'_>, view: &Plain<'_>, old: &str, new: &str, most: usize) -> Done<Value> {
    let (plain, old) = (&*view.plain, context.plain(old));
    context.meter.charge(plain.len())?;
    let mut out = Text::new(&context.meter);
    let mut done = 0;
    for (at, part) in plain.match_indices(&*old).take(most) {
        out.push(view.piece(done, at))?;
        out.push(new)?;
        done = at + part.len();
    }
    out.push(view.piece(done, plain.len()))?;
    Ok(Value::str(out.out))
}

fn begins(context: &Context<'_>, plain: &str, method: &str, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain(method, 1, 3)?;
    let error = |kind: &str| format!("{method} first arg must be str or a tuple of str, not {kind}");
    let parts = match &arguments[0] {
        Value::Tuple(list) => &list.items[..],
        _ => &arguments[..1],
    };
    let Some((start, end)) = range(plain, &arguments[1..])? else { return Ok(Value::Bool(false)) };
    let plain = plain.get(start..end).unwrap_or_default();
    for part in parts {
        let part = context.plain(string(part, error)?);
        context.meter.charge(part.len())?;
        if if method == "startswith" { plain.starts_with(&*part) } else { plain.ends_with(&*part) } {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn found(context: &Context<'_>, plain: &str, method: &str, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain(method, 1, 3)?;
    let part = context.plain(string(&arguments[0], |kind| format!("must be str, not {kind}"))?);
    context.meter.charge(plain.len() + part.len())?;
    let within = range(plain, &arguments[1..])?;
    let (start, end) = within.unwrap_or((0, 0));
    let inside = plain.get(start..end).unwrap_or_default();
    if method == "count" {
        let n = if within.is_some() { inside.matches(&*part).count() } else { 0 };
        return Ok(Value::Int(n as i128));
    }
    let at = if method.starts_with('r') { inside.rfind(&*part) } else { inside.find(&*part) };
    match at.filter(|_| within.is_some()) {
        Some(at) => Ok(Value::Int(plain.get(..start + at).unwrap_or_default().chars().count() as i128)),
        None if method.ends_with("index") => raise("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

fn join(context: &Context<'_>, separator: &str, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain("str.join", 1, 1)?;
    if matches!(&arguments[0], Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_)) {
        return raise("can only join an iterable");
    }
    let mut out = Text::new(&context.meter);
    for (at, item) in context.items(&arguments[0])?.iter().enumerate() {
        if at > 0 {
            out.push(separator)?;
        }
        out.push(string(item, |kind| format!("sequence item {at}: expected str instance, {kind} found"))?)?;
    }
    Ok(Value::str(out.out))
}

fn removed(context: &Context<'_>, view: &Plain<'_>, method: &str, arguments: Arguments) -> Done<Value> {
    let arguments = arguments.plain(&format!("str.{method}"), 1, 1)?;
    let part = string(&arguments[0], |kind| format!("{method}() argument must be str, not {kind}"))?;
    let (plain, part) = (&*view.plain, context.plain(part));
    let rest = if method == "removeprefix" { plain.strip_prefix(&*part) } else { plain.strip_suffix(&*part) };
    context.text(rest.map_or(view.text(), |rest| view.piece_of(rest)))
}

/// A text and blanks around it.
pub(super) fn pad(context: &Context<'_>, text: &str, left: usize, right: usize, fill: &str) -> Done<Value> {
    if left.max(right) > MAX_WIDTH {
        return unsupported(format!("padding a text to more than {MAX_WIDTH} characters"));
    }
    context.meter.make(left.saturating_add(right).saturating_mul(fill.len()))?;
    context.text(format!("{}{text}{}", fill.repeat(left), fill.repeat(right)))
}

fn padded(context: &Context<'_>, view: &Plain<'_>, method: &str, arguments: Arguments) -> Done<Value> {
    let zeros = method == "zfill";
    let arguments = arguments.plain(if zeros { "str.zfill" } else { method }, 1, if zeros { 1 } else { 2 })?;
    let fill = match arguments.get(1) {
        None => " ",
        Some(fill) => string(fill, |_| "The fill character must be a unicode character, not int".to_owned())?,
    };
    if fill.chars().count() != 1 {
        return raise("The fill character must be exactly one character long");
    }
    let n = view.plain.chars().count();
    let missing = usize::try_from(integer(&arguments[0])?).unwrap_or(0).saturating_sub(n);
    match method {
        "ljust" => pad(context, view.text(), 0, missing, fill),
        "rjust" => pad(context, view.text(), missing, 0, fill),
        "center" => {
            let left = missing / 2 + (missing & (missing + n) & 1);
            pad(context, view.text(), left, missing - left, fill)
        }
        _ => {
            let sign = view.plain.starts_with(['-', '+']);
            let (sign, rest) = (view.piece(0, usize::from(sign)), view.piece(usize::from(sign), view.plain.len()));
            let rest = pad(context, rest, missing, 0, "0")?;
            context.text(format!("{sign}{}", rest.as_str().unwrap_or_default()))
        }
    }
}

fn expanded(context: &Context<'_>, view: &Plain<'_>, arguments: Arguments) -> Done<Value> {
    let [size] = arguments.bind("expandtabs()", ["tabsize"])?;
    let size = usize::try_from(size.as_ref().map_or(Ok(8), integer)?).unwrap_or(0).min(MAX_WIDTH);
    let (mut out, mut column) = (Text::new(&context.meter), 0_usize);
    for (marked, c) in view.text().chars().zip(view.plain.chars()) {
        match c {
            '\t' if size > 0 => {
                let n = size - column % size;
                out.push(&" ".repeat(n))?;
                column += n;
            }
            '\t' => {}
            c => {
                out.push_char(marked)?;
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(Value::str(out.out))
}
