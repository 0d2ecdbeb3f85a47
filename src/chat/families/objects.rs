//! Calls that are JSON objects, alone or in a list.

use super::Row;
use crate::chat::syntax::{Calls, Item, KEYS, Keys, Syntax};

const COHERE: Keys = Keys { name: &["tool_name"], arguments: &["parameters"], id: &["tool_call_id"], named: false };

fn row(family: &'static str, signs: &'static [&'static str], open: &str, close: Option<&str>, keys: Keys) -> Row {
    Row { signs, syntax: Syntax::with_calls(family, Calls::objects(open, close, keys)) }
}

pub(super) fn rows() -> Vec<Row> {
    let named = Keys { named: true, ..KEYS };
    let mut rows = vec![
        row("mistral", &["[TOOL_CALLS]"], "[TOOL_CALLS]", None, KEYS),
        row("cohere", &["<|START_ACTION|>"], "<|START_ACTION|>", Some("<|END_ACTION|>"), COHERE),
        row("command-r", &["Action:", "```json", "\"tool_name\""], "Action:\n```json\n", Some("```"), COHERE),
        row("apertus", &["<|tools_prefix|>"], "<|tools_prefix|>", Some("<|tools_suffix|>"), named),
        row("nemotron", &["<TOOLCALL>"], "<TOOLCALL>", Some("</TOOLCALL>"), KEYS),
        row("tool-calls", &["<tool_calls>"], "<tool_calls>", Some("</tool_calls>"), KEYS),
        row("firefunction", &["functools["], "functools", None, KEYS),
        row("gigachat", &["<|function_call|>"], "<|function_call|>", None, KEYS),
        row("gigachat", &["function call<|role_sep|>"], "function call<|role_sep|>", None, KEYS),
        row("granite", &["<|start_of_role|>", "<|tool_call|>"], "<|tool_call|>", None, KEYS),
        row("granite", &["<|start_of_role|>", "<tool_call>"], "<tool_call>", Some("</tool_call>"), KEYS),
        row("hermes", &["<tool_call>"], "<tool_call>", Some("</tool_call>"), KEYS),
    ];
    // Of templates that render no calls.
    for row in rows.iter_mut() {
        let in_brackets = ["command-r", "firefunction", "granite"].contains(&row.syntax.family);
        if let Some(calls) = &mut row.syntax.calls {
            calls.brackets = in_brackets && calls.close.as_deref() != Some("</tool_call>");
        }
    }
    for row in rows.iter_mut() {
        let Some(calls) = &mut row.syntax.calls else { continue };
        calls.row = row.syntax.family == "tool-calls";
        // A mark of the template's turns stands in front of the call, which the model may have written.
        if row.signs.contains(&"function call<|role_sep|>") {
            calls.open.insert(0, "<|message_sep|>\n\nfunction call<|role_sep|>".to_owned());
        }
    }
    let mut llama = Calls::objects("<|python_tag|>", None, KEYS);
    llama.bare = true;
    llama.item = Item::Object(Keys { arguments: &["parameters", "arguments"], ..KEYS });
    rows.push(Row {
        signs: &["<|start_header_id|>", "{\"name\": ", "\"parameters\": "],
        syntax: Syntax::with_calls("llama3", llama),
    });
    rows
}
