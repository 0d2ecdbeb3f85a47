//! Calls in a notation of their own.

use super::Row;
use crate::chat::syntax::{Calls, Field, Notation, Part, Syntax, mark};

pub(super) fn rows() -> Vec<Row> {
    let name = Part::Field(Field::Name);
    let gemma = vec![mark("call:"), name.clone(), mark("{"), Part::Pairs(Notation::Gemma)];
    let python = vec![name, mark("("), Part::Pairs(Notation::Python)];
    let mut listed = Calls::parts("<|tool_call_start|>", Some("<|tool_call_end|>"), python);
    listed.listed = true;
    vec![
        Row {
            signs: &["<|tool_call>", "call:"],
            syntax: Syntax::with_calls("gemma4", Calls::parts("<|tool_call>", Some("<tool_call|>"), gemma)),
        },
        Row { signs: &["<|tool_call_start|>"], syntax: Syntax::with_calls("lfm2", listed.clone()) },
        // Its template lists the tools and renders no calls.
        Row { signs: &["<|tool_list_start|>"], syntax: Syntax::with_calls("lfm2", listed) },
    ]
}
