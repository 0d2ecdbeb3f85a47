//! The model's words: its tokenizer, its chat template, and an answer that does not repeat itself.

use std::collections::HashMap;

use super::{Finding, Patient, Subject};
use crate::engine::{GenerateOptions, Session, SessionOptions};
use crate::error::Result;
use crate::sampler::SamplingParams;

/// Texts that must come back.
const TEXTS: [&str; 6] = [
    "An old silent pond; a frog jumps into the pond. Splash! Silence again.",
    "for (int i = 0; i < 10; ++i) {\n\tsum += x[i] * 2.5e-3;\n}\n",
    "d\u{e9}j\u{e0} vu, na\u{ef}ve, \u{201c}quotes\u{201d} \u{2014} \u{20ac}1,234.56",
    "\u{53e4}\u{6c60}\u{3084} \u{86d9}\u{98db}\u{3073}\u{3053}\u{3080} \u{6c34}\u{306e}\u{97f3}",
    "\u{1f438}\u{1f4a6} \u{1f469}\u{200d}\u{1f4bb}",
    "  two  spaces,   three; 007 1000000",
];

/// Control tokens looked at; a vocabulary may have thousands.
const CONTROLS: usize = 300;

pub(super) fn tokenizer(p: &Patient<'_>) -> Result<Finding> {
    let mut wrong = Vec::new();
    let tokenizer = p.model.tokenizer();
    let mut n_controls = 0;
    for id in (0..p.config.n_vocab as u32).filter(|id| tokenizer.is_control(*id)).take(CONTROLS) {
        let text = tokenizer.token_text(id)?.to_owned();
        if text.is_empty() {
            continue;
        }
        n_controls += 1;
        if p.model.tokenize(&text, false, true)? != [id] {
            wrong.push(format!("control token {id} \"{text}\" is not atomic"));
        }
        if p.model.tokenize(&format!("a{text}b"), false, false)?.contains(&id) {
            wrong.push(format!("plain text becomes control token {id} \"{text}\""));
        }
    }
    for text in TEXTS {
        let ids = p.model.tokenize(text, false, false)?;
        let back = p.model.detokenize(&ids, false)?;
        // A SentencePiece vocabulary may put a space in front.
        if back != text && back.strip_prefix(' ') != Some(text) {
            wrong.push(format!("\"{text}\" comes back as \"{back}\""));
        }
    }
    let mut chat = "no chat template";
    if p.model.facts().has_chat_template {
        chat = "the chat template renders";
        let secret = "the frog 7391";
        let rendered = p.model.render_chat(&[("user", secret)], true)?;
        let control = rendered.ids.iter().any(|id| tokenizer.is_control(*id));
        if !rendered.text.contains(secret) || !p.model.detokenize(&rendered.ids, true)?.contains(secret) || !control {
            wrong.push(format!("the chat template makes \"{}\" of \"{secret}\"", rendered.text));
        }
    }
    let text = match wrong.first() {
        Some(first) => format!("{first}; {} in all", wrong.len()),
        None => format!("faults in {n_controls} control tokens and {} texts; {chat}", TEXTS.len()),
    };
    Ok(Finding::of(wrong.len() as f64, 0.0, text))
}

/// An answer to a question has no token that makes up half of it, and no cycle.
pub(super) fn repetition(p: &Patient<'_>) -> Result<Finding> {
    let question = "Describe the four seasons of the year in a few sentences.";
    let prompt = match p.model.facts().has_chat_template {
        true => p.model.render_chat(&[("user", question)], true)?.ids,
        false => p.model.tokenize("The four seasons of the year are", true, false)?,
    };
    let n_ctx = p.config.n_ctx_train.min(prompt.len() + 64);
    let sampling = SamplingParams { temperature: 0.8, seed: p.seed, ..SamplingParams::default() };
    let session = Session::new(&p.model, SessionOptions { n_ctx: Some(n_ctx), sampling, ..SessionOptions::default() })?;
    session.prefill(&prompt)?;
    let options = GenerateOptions { max_tokens: Some(64), ignore_end: true, ..GenerateOptions::default() };
    session.generate(&options, &mut |_, _| true)?;
    let answer = session.with_tokens(|tokens| Ok(tokens[prompt.len()..].to_vec()))?;
    if answer.len() < 16 {
        return Ok(Finding::skipped(format!("a context of {n_ctx} leaves {} tokens for an answer", answer.len())));
    }
    // What comes behind the answer's end is no answer.
    let end = answer.iter().position(|t| p.model.tokenizer().is_end_of_generation(*t)).unwrap_or(answer.len());
    let answer = &answer[..end.max(16)];
    let mut counts: HashMap<u32, usize> = HashMap::new();
    answer.iter().for_each(|t| *counts.entry(*t).or_default() += 1);
    let (token, most) = counts.iter().map(|(t, n)| (*t, *n)).max_by_key(|(t, n)| (*n, *t)).unwrap_or((0, 0));
    let share = most as f64 / answer.len() as f64;
    let shown: String = p.model.detokenize(answer, false)?.chars().take(60).collect();
    if let Some(period) = cycle(answer) {
        let text = format!("the answer ends in a cycle of {period} tokens: \"{shown}\"");
        return Ok(Finding::of(f64::INFINITY, 0.5, text).blame(Subject::Repetition));
    }
    let text = match share < 0.5 {
        true => format!("share of the most frequent of {} tokens, no cycle: \"{shown}\"", answer.len()),
        false => format!("token {token} makes up {most} of {}: \"{shown}\"", answer.len()),
    };
    let finding = Finding::of(share, 0.5, text);
    Ok(if share < 0.5 { finding } else { finding.blame(Subject::Repetition) })
}

/// The period that the end of the answer has: at least three times, and over 24 tokens.
pub(super) fn cycle(answer: &[u32]) -> Option<usize> {
    (1..=16).find(|period| {
        let n = (3 * period).max(24);
        let tail = answer.len().checked_sub(n).map(|from| &answer[from..]);
        tail.is_some_and(|tail| tail.windows(period + 1).all(|w| w[0] == w[*period]))
    })
}
