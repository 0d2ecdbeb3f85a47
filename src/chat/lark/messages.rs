//! Answers made of messages, some of which are calls.

use super::{Tool, ToolChoice, Writer, quoted};
use crate::chat::syntax::{Calls, Channels};
use crate::error::Result;

impl Writer<'_> {
    /// gpt-oss's messages: thinking, what is said meanwhile, then an answer or calls.
    pub(super) fn channels(
        &mut self,
        channels: &Channels,
        to: &str,
        tools: &[Tool<'_>],
        choice: &ToolChoice<'_>,
    ) -> String {
        let channel = channels.open.get(1).map(|open| self.mark(open)).unwrap_or_default();
        let message = self.mark(channels.message);
        let [thought, said] = ["analysis", "commentary"].map(|name| {
            let rest = self.up_to(&next(channels));
            self.rule("", &format!("{channel} \"{name}\" {message} {rest}"))
        });
        let constrain = self.mark("<|constrain|>");
        let call = self.any_of(tools, |writer, tool| {
            let schema = writer.schema(&tool.schema);
            let to = quoted(&format!("{to}functions.{}", tool.name));
            let head = format!(
                "(\" \" {to} {channel} \"commentary\" \" \"? ({constrain}? \"json\")? | {channel} \"commentary \" {to} \" \"? ({constrain}? \"json\")?)"
            );
            Ok(format!("{head} {message} {schema}"))
        });
        // A call's message ends with the turn.
        let call = call.unwrap_or_default();
        let last = if choice.required { call } else { format!("({call} | {channel} \"final\" {message} FREE?)") };
        format!("{thought}* {said}? {last}")
    }

    /// Muse's messages, whose heads say to whom they are: thinking, what is said meanwhile, then an answer or calls.
    pub(super) fn addressed(
        &mut self,
        family: &str,
        channels: &Channels,
        calls: &Calls,
        tools: &[Tool<'_>],
        choice: &ToolChoice<'_>,
    ) -> Result<String> {
        let message = self.mark(channels.message);
        let open = calls.open.first().map(|open| self.mark(open)).unwrap_or_default();
        let [to_self, to_user] =
            [channels.thinking.to_owned(), format!("to={}", channels.answer)].map(|to| quoted(&format!(" {to}")));
        let [thought, said] = [&to_self, &to_user].map(|head| {
            let rest = self.up_to(&next(channels));
            self.rule("", &format!("{head} {message} {rest}"))
        });
        let call = self.any_of(tools, |writer, tool| {
            let inner = writer.calls(family, calls, std::slice::from_ref(tool), true)?;
            Ok(format!("{} {message} WS? {open} {inner}", quoted(&format!(" to={}", tool.name))))
        })?;
        let more = if choice.one { String::new() } else { format!("(WS? {} {call})*", self.mark(&next(channels))) };
        let all = format!("{call} {more} WS?");
        Ok(match choice.required {
            true => format!("{thought}* {all}"),
            false => format!("{thought}* {said}? ({all} | {to_user} {message} FREE?)"),
        })
    }

    /// Functionary's messages, whose heads are names: an answer, then calls.
    pub(super) fn named(&mut self, channels: &Channels, tools: &[Tool<'_>], choice: &ToolChoice<'_>) -> String {
        let open = channels.open.first().copied().unwrap_or_default();
        let message = self.mark(channels.message);
        let call = self.any_of(tools, |writer, tool| {
            let schema = writer.schema(&tool.schema);
            Ok(format!("{} {message} {schema}", quoted(tool.name)))
        });
        let call = call.unwrap_or_default();
        let more = if choice.one { String::new() } else { format!("(WS? {} {call})*", self.mark(open)) };
        let calls = self.rule("", &format!("{call} {more} WS?"));
        if choice.required {
            return calls;
        }
        let (begun, plain) = (self.up_to(open), self.without(open));
        format!("({calls} | {} {message} ({begun} {calls} | {plain})?)", quoted(channels.answer))
    }

    /// The rule of a call of any of the tools.
    fn any_of(
        &mut self,
        tools: &[Tool<'_>],
        mut body: impl FnMut(&mut Self, &Tool<'_>) -> Result<String>,
    ) -> Result<String> {
        let mut each = Vec::new();
        for tool in tools {
            if self.is_full() {
                break;
            }
            let body = body(self, tool)?;
            each.push(self.rule("", &body));
        }
        Ok(self.rule("", &each.join(" | ")))
    }
}

/// What stands between two messages.
fn next(channels: &Channels) -> String {
    let [end, start] = [&channels.ends, &channels.open].map(|marks| marks.first().copied().unwrap_or_default());
    format!("{end}{start}assistant")
}
