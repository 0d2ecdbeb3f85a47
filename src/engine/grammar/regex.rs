//! Mistakes in a regular expression, told by their places in it: llguidance's messages are about a Lark text around it.

use regex_syntax::ast::{AssertionKind, Ast, Visitor, parse, visit};

/// Refuses what is no regular expression.
pub(super) fn check(text: &str) -> Result<(), String> {
    let Err(error) = regex_syntax::Parser::new().parse(text) else { return Ok(()) };
    let (what, at) = match &error {
        regex_syntax::Error::Parse(e) => (e.kind().to_string(), e.span().start.offset),
        regex_syntax::Error::Translate(e) => (e.kind().to_string(), e.span().start.offset),
        other => return Err(other.to_string()),
    };
    Err(located(text, at, &what))
}

/// The message that llguidance refuses a regular expression with, without what it wraps it in.
pub(super) fn refusal(text: &str, message: &str) -> String {
    if message.contains("lookarounds not supported")
        && let Some(at) = look_around(text)
    {
        return located(text, at, "assertions are not supported, but for ^ at its beginning and $ at its end");
    }
    without_place(message).to_owned()
}

/// A message of llguidance without its place in the Lark text: "at LINE(COLUMN): ", and the line itself behind it.
pub(super) fn without_place(message: &str) -> &str {
    match message.strip_prefix("at ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest.lines().next().unwrap_or(rest),
        None => message,
    }
}

fn located(text: &str, at: usize, what: &str) -> String {
    let rest = text.get(at..).unwrap_or_default();
    let shown: String = rest.chars().take(24).collect();
    let place = match (rest, shown.len() < rest.len()) {
        ("", _) => "its end".to_owned(),
        (_, true) => format!("{shown:?}..."),
        _ => format!("{shown:?}"),
    };
    format!("byte {at} of the regular expression, at {place}: {what}")
}

/// The first assertion that is neither ^ at the beginning nor $ at the end.
fn look_around(text: &str) -> Option<usize> {
    /// What is looked for, and the text's length.
    struct First(Option<usize>, usize);
    impl Visitor for First {
        type Output = Option<usize>;
        type Err = ();
        fn finish(self) -> Result<Option<usize>, ()> {
            Ok(self.0)
        }
        fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
            use AssertionKind::{EndLine, EndText, StartLine, StartText};
            if let Ast::Assertion(found) = ast {
                let (start, end) = (found.span.start.offset, found.span.end.offset);
                let at_an_end = match found.kind {
                    StartLine | StartText => start == 0,
                    EndLine | EndText => end == self.1,
                    _ => false,
                };
                if !at_an_end {
                    self.0 = self.0.or(Some(start));
                }
            }
            Ok(())
        }
    }
    let ast = parse::Parser::new().parse(text).ok()?;
    visit(&ast, First(None, text.len())).ok()?
}
