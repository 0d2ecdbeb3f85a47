//! Strings that are called safe for HTML, and those that are made so.

use super::context::Context;
use super::fault::Done;
use super::meter::Text;
use super::value::Value;

/// The value's text with what HTML reads as a tag or an entity escaped; a safe string's as it is. Marks stay.
pub(super) fn escaped(context: &Context<'_>, value: &Value) -> Done<String> {
    if let Value::Markup(text) = value {
        context.meter.make(text.len())?;
        return Ok(text.to_string());
    }
    escape(context, &context.str(value)?)
}

/// The text with what HTML reads as a tag or an entity escaped.
pub(super) fn escape(context: &Context<'_>, text: &str) -> Done<String> {
    let mut out = Text::new(&context.meter);
    for (marked, c) in text.chars().zip(context.plain(text).chars()) {
        match c {
            '&' => out.push("&amp;")?,
            '<' => out.push("&lt;")?,
            '>' => out.push("&gt;")?,
            '"' => out.push("&#34;")?,
            '\'' => out.push("&#39;")?,
            _ => out.push_char(marked)?,
        }
    }
    Ok(out.out)
}
