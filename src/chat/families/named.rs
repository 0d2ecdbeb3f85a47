//! Calls that are a name and, behind it, the arguments as JSON.

use super::Row;
use crate::chat::syntax::{Field, Part, mark};

pub(super) fn rows() -> Vec<Row> {
    let (name, id) = (Part::Field(Field::Name), Part::Field(Field::Id));
    let other = Part::Field(Field::Other);
    let kimi = vec![
        mark("<|tool_call_begin|>"),
        Part::Field(Field::IdWithName),
        mark("<|tool_call_argument_begin|>"),
        Part::Json,
        mark("<|tool_call_end|>"),
    ];
    let solar = vec![
        mark("<|tool_call:begin|>"),
        id.clone(),
        mark("<|tool_call:name|>"),
        name.clone(),
        mark("<|tool_call:args|>"),
        Part::Json,
        mark("<|tool_call:end|>"),
    ];
    let deepseek = vec![
        mark("<｜tool▁call▁begin｜>"),
        other,
        mark("<｜tool▁sep｜>"),
        name.clone(),
        mark("```json"),
        Part::Json,
        mark("```"),
        mark("<｜tool▁call▁end｜>"),
    ];
    let deepseek_v31 = vec![
        mark("<｜tool▁call▁begin｜>"),
        name.clone(),
        mark("<｜tool▁sep｜>"),
        Part::Json,
        mark("<｜tool▁call▁end｜>"),
    ];
    let with_id = vec![name.clone(), mark("[CALL_ID]"), id, mark("[ARGS]"), Part::Json];
    let without_id = vec![name, mark("[ARGS]"), Part::Json];
    let (begin, end) = ("<｜tool▁calls▁begin｜>", Some("<｜tool▁calls▁end｜>"));
    let row = Row::of_parts;
    let mut solar =
        row("solar", &["<|tool_call:begin|>", "<|tool_call:args|>"], "<|tool_calls|>", Some("<|calls|>"), solar);
    solar.syntax.thinking = vec![("<|think|>".to_owned(), "<|end|>".to_owned())];
    solar.syntax.around = ["<|begin|>assistant", "<|content|>"].map(str::to_owned).to_vec();
    vec![
        row(
            "kimi-k2",
            &["<|tool_call_begin|>", "<|tool_call_argument_begin|>"],
            "<|tool_calls_section_begin|>",
            Some("<|tool_calls_section_end|>"),
            kimi,
        ),
        solar,
        row("deepseek", &["<｜tool▁call▁begin｜>", "```json"], begin, end, deepseek),
        row("deepseek-v3.1", &["<｜tool▁call▁begin｜>"], begin, end, deepseek_v31),
        row("mistral", &["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"], "[TOOL_CALLS]", None, with_id),
        row("mistral", &["[TOOL_CALLS]", "[ARGS]"], "[TOOL_CALLS]", None, without_id),
    ]
}
