//! Calls that are JSON objects, alone or in a list.

use super::Row;
use crate::chat::syntax::{Calls, KEYS, Keys};

const COHERE: Keys = Keys { name: &["tool_name"], arguments: &["parameters"], id: &["tool_call_id"], named: false };

pub(super) fn rows() -> Vec<Row> {
    let named = Keys { named: true, ..KEYS };
    let row = Row::of_objects;
    // What a call shows of brackets goes before it: see `detect`.
    let in_brackets = |calls: &mut Calls| calls.brackets = true;
    let in_a_row = |calls: &mut Calls| calls.row = true;
    // A mark of the template's turns stands in front of the call, which the model may have written.
    let behind_a_turn =
        |calls: &mut Calls| calls.open.insert(0, "<|message_sep|>\n\nfunction call<|role_sep|>".to_owned());
    let llama = |calls: &mut Calls| calls.bare = true;
    let llama_keys = Keys { arguments: &["parameters", "arguments"], ..KEYS };
    let llama_signs = &["<|start_header_id|>", "{\"name\": ", "\"parameters\": "];
    vec![
        row("mistral", &["[TOOL_CALLS]"], "[TOOL_CALLS]", None, KEYS),
        row("cohere", &["<|START_ACTION|>"], "<|START_ACTION|>", Some("<|END_ACTION|>"), COHERE),
        row("command-r", &["Action:", "```json", "\"tool_name\""], "Action:\n```json\n", Some("```"), COHERE)
            .with(in_brackets),
        row("apertus", &["<|tools_prefix|>"], "<|tools_prefix|>", Some("<|tools_suffix|>"), named),
        row("nemotron", &["<TOOLCALL>"], "<TOOLCALL>", Some("</TOOLCALL>"), KEYS),
        row("tool-calls", &["<tool_calls>"], "<tool_calls>", Some("</tool_calls>"), KEYS).with(in_a_row),
        row("firefunction", &["functools["], "functools", None, KEYS).with(in_brackets),
        row("gigachat", &["<|function_call|>"], "<|function_call|>", None, KEYS),
        row("gigachat", &["function call<|role_sep|>"], "function call<|role_sep|>", None, KEYS).with(behind_a_turn),
        row("granite", &["<|start_of_role|>", "<|tool_call|>"], "<|tool_call|>", None, KEYS).with(in_brackets),
        row("granite", &["<|start_of_role|>", "<tool_call>"], "<tool_call>", Some("</tool_call>"), KEYS),
        row("hermes", &["<tool_call>"], "<tool_call>", Some("</tool_call>"), KEYS),
        row("llama3", llama_signs, "<|python_tag|>", None, llama_keys).with(llama),
    ]
}
