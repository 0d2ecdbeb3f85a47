//! Calls in a notation of their own.

use super::Row;
use crate::chat::syntax::{Field, Notation, Part, mark};

pub(super) fn rows() -> Vec<Row> {
    let name = Part::Field(Field::Name);
    let gemma = vec![mark("call:"), name.clone(), mark("{"), Part::Pairs(Notation::Gemma)];
    let python = vec![name, mark("("), Part::Pairs(Notation::Python)];
    let lfm = |signs| {
        let row = Row::of_parts("lfm2", signs, "<|tool_call_start|>", Some("<|tool_call_end|>"), python.clone());
        row.with(|calls| (calls.listed, calls.brackets) = (true, true))
    };
    vec![
        Row::of_parts("gemma4", &["<|tool_call>", "call:"], "<|tool_call>", Some("<tool_call|>"), gemma),
        lfm(&["<|tool_call_start|>"]),
        // Its template lists the tools and renders no calls.
        lfm(&["<|tool_list_start|>"]),
    ]
}
