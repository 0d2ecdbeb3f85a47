//! Jinja's filters: those that call others, and where the rest stand.

use super::arguments::Arguments;
use super::context::Context;
use super::fault::{Done, raise, unsupported};
use super::filters_list::{self, Path};
use super::filters_text;
use super::names;
use super::tests;
use super::value::Value;

/// Filters that are for pages in HTML, or depend on chance.
const NOT_HERE: [&str; 8] =
    ["filesizeformat", "pprint", "random", "striptags", "urlencode", "urlize", "wordwrap", "xmlattr"];

/// What a filter makes of a value.
pub(super) fn call(context: &Context<'_>, name: &str, value: &Value, arguments: Arguments) -> Done<Value> {
    context.meter.charge(8)?;
    if NOT_HERE.contains(&name) {
        return unsupported(format!("the filter {name}"));
    }
    match name {
        "map" => map(context, value, arguments),
        "select" => select(context, value, arguments, true, false),
        "reject" => select(context, value, arguments, false, false),
        "selectattr" => select(context, value, arguments, true, true),
        "rejectattr" => select(context, value, arguments, false, true),
        _ => match filters_text::call(context, name, value, arguments)? {
            Ok(value) => Ok(value),
            Err(arguments) => filters_list::call(context, name, value, arguments),
        },
    }
}

/// The name of a filter or test among arguments.
fn name_of(context: &Context<'_>, name: &Value) -> Done<String> {
    match name.as_str() {
        Some(name) => Ok(context.plain(name).into_owned()),
        None => unsupported(format!("a {} as a filter's or test's name", name.kind())),
    }
}

fn map(context: &Context<'_>, value: &Value, mut arguments: Arguments) -> Done<Value> {
    let mut mapped = || {
        if !value.is_true() {
            return Ok(Vec::new());
        }
        if arguments.positional.is_empty()
            && let Some(attribute) = arguments.take("attribute")
        {
            let default = arguments.take("default");
            if let Some((name, _)) = arguments.named.first() {
                return raise(format!("Unexpected keyword argument '{name}'"));
            }
            let path = Path::new(context, &attribute, default)?;
            return context.items(value)?.iter().map(|item| path.of(context, item)).collect();
        }
        if arguments.positional.is_empty() {
            return raise("map requires a filter argument");
        }
        let name = name_of(context, &arguments.positional.remove(0))?;
        if !names::is_filter(&name) {
            return raise(format!("No filter named '{name}'."));
        }
        let each = |item: &Value| call(context, &name, item, arguments.clone());
        context.items(value)?.iter().map(each).collect()
    };
    let mapped = mapped();
    charged(context, mapped)
}

fn select(
    context: &Context<'_>,
    value: &Value,
    mut arguments: Arguments,
    wanted: bool,
    by_attribute: bool,
) -> Done<Value> {
    let mut selected = || {
        if !value.is_true() {
            return Ok(Vec::new());
        }
        let mut path = None;
        if by_attribute {
            if arguments.positional.is_empty() {
                return raise("Missing parameter for attribute name");
            }
            path = Some(Path::new(context, &arguments.positional.remove(0), None)?);
        }
        let test = if arguments.positional.is_empty() { None } else { Some(arguments.positional.remove(0)) };
        let test = test.map(|test| name_of(context, &test)).transpose()?;
        if let Some(test) = test.as_ref().filter(|test| !names::is_test(test)) {
            return raise(format!("No test named '{test}'."));
        }
        let mut kept = Vec::new();
        for item in context.items(value)? {
            let tested = match &path {
                Some(path) => path.of(context, &item)?,
                None => item.clone(),
            };
            let says = match &test {
                Some(test) => tests::call(context, test, &tested, arguments.clone())?,
                None => tested.is_true(),
            };
            if says == wanted {
                kept.push(item);
            }
        }
        Ok(kept)
    };
    let selected = selected();
    charged(context, selected)
}

/// A generator, whose failure comes where it is used; what takes too much fails at once.
fn charged(context: &Context<'_>, items: Done<Vec<Value>>) -> Done<Value> {
    use super::fault::Fault;
    if let Err(fault @ (Fault::Costly(_) | Fault::Unsupported(_))) = items {
        return Err(fault);
    }
    context.meter.make_elements(items.as_ref().map_or(0, Vec::len) + 1)?;
    filters_list::check_levels(&items)?;
    Value::generator("generator", items)
}
