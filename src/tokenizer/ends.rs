//! Tokens that end a generation, known by their texts.

use super::tokens::TokenTable;
use super::vocab::{TokenKind, Vocab};
use super::{fim_names, is_special};

/// Texts of control tokens that end a generation whatever the file's ids say. Source: llama.cpp's `llama-vocab.cpp`.
const TEXTS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// The ids that end a generation. A user-defined token with the text of a turn's end is made a control token, so
/// that no message can hold one; `</s>`, `<eos>` and the like may be markup and end nothing unless they are control
/// tokens.
pub(super) fn find(vocab: &Vocab<'_>, eos: Option<u32>, tokens: &mut TokenTable) -> Vec<u32> {
    let mut ends: Vec<u32> = vocab.ends.iter().map(|end| end.1).chain(eos).collect();
    let mut turned = Vec::new();
    for (id, text, kind) in tokens.iter() {
        if !TEXTS.contains(&text) && !fim_names::is_end(text) {
            continue;
        }
        let is_turn_end = (text.starts_with("<|") && text.ends_with("|>")) || text == "<end_of_turn>";
        // Gemma 4's, which a caller is to see: it waits for a tool.
        let is_seen = kind == TokenKind::UserDefined && text == "<|tool_response>";
        if is_special(kind) || is_seen {
            ends.push(id);
        } else if kind == TokenKind::UserDefined && is_turn_end {
            ends.push(id);
            turned.push(id);
        }
    }
    for id in turned {
        tokens.set_kind(id, TokenKind::Control);
    }
    // o200k_harmony and solar-open: there `<|end|>` ends a message, and these end the turn.
    let has = |text: &str| ends.iter().any(|&id| tokens.text(id) == Some(text));
    let call = has("<|call|>") || has("<|calls|>");
    let ends_message = call && (has("<|return|>") || has("<|flush|>"));
    ends.retain(|&id| !(ends_message && Some(id) != eos && tokens.text(id) == Some("<|end|>")));
    ends.sort_unstable();
    ends.dedup();
    ends
}
