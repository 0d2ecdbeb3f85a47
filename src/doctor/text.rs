//! The model's words: its tokenizer, its chat template, and an answer that does not repeat itself.

use std::collections::HashMap;

use super::{Finding, Patient, Subject};
use crate::engine::GenerateOptions;
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
        // A control token that the template writes is one, and not its letters.
        let written = |id: &u32| {
            let text = tokenizer.token_text(*id).unwrap_or_default();
            !text.is_empty() && rendered.text.contains(text)
        };
        let mut controls = (0..p.config.n_vocab as u32).filter(|id| tokenizer.is_control(*id)).filter(written);
        let lost = controls.next().is_some() && !rendered.ids.iter().any(|id| tokenizer.is_control(*id));
        if !rendered.text.contains(secret) || !p.model.detokenize(&rendered.ids, true)?.contains(secret) || lost {
            wrong.push(format!("the chat template makes \"{}\" of \"{secret}\"", rendered.text));
        }
    }
    let text = match wrong.first() {
        Some(first) => format!("{first}; {} in all", wrong.len()),
        None => format!("faults in {n_controls} control tokens and {} texts; {chat}", TEXTS.len()),
    };
    Ok(Finding::of(wrong.len() as f64, 0.0, text))
}

/// Tokens of answers that are looked at, and the most answers that they come from.
const ANSWERED: usize = 64;
const ANSWERS: u64 = 16;

/// In answers to a question no token makes up half, and none ends in a cycle. An answer that is short is followed by
/// another one, with another seed; the token that ends one counts, so that ending at once is no variety.
pub(super) fn repetition(p: &Patient<'_>) -> Result<Finding> {
    let question = "Describe the four seasons of the year in a few sentences.";
    let prompt = match p.model.facts().has_chat_template {
        true => p.model.render_chat(&[("user", question)], true)?.ids,
        false => p.model.tokenize("The four seasons of the year are", true, false)?,
    };
    let n_ctx = p.config.n_ctx_train.min(prompt.len() + ANSWERED);
    if n_ctx < prompt.len() + 16 {
        return Ok(Finding::skipped(format!("a context of {n_ctx} leaves too little for an answer")));
    }
    let session = p.session(n_ctx)?;
    let (mut answers, mut counts, mut n, mut n_answers) = (Vec::new(), HashMap::<u32, usize>::new(), 0, 0);
    while n < ANSWERED && n_answers < ANSWERS {
        let seed = p.seed.wrapping_add(n_answers);
        session.set_sampling(SamplingParams { temperature: 0.8, seed, ..SamplingParams::default() })?;
        // The last token of the prompt again: its logits.
        session.truncate(if n_answers == 0 { 0 } else { prompt.len() - 1 })?;
        session.prefill(if n_answers == 0 { &prompt } else { &prompt[prompt.len() - 1..] })?;
        let options = GenerateOptions { max_tokens: Some(ANSWERED - n), keep_end: true, ..GenerateOptions::default() };
        session.generate(&options, &mut |_, _| true)?;
        let answer = session.with_tokens(|tokens| Ok(tokens[prompt.len()..].to_vec()))?;
        answer.iter().for_each(|t| *counts.entry(*t).or_default() += 1);
        n += answer.len();
        n_answers += 1;
        answers.push(answer);
    }
    let (token, most) = counts.iter().map(|(t, n)| (*t, *n)).max_by_key(|(t, n)| (*n, *t)).unwrap_or((0, 0));
    let share = most as f64 / n.max(1) as f64;
    let shown =
        |answer: &[u32]| p.model.detokenize(answer, false).map(|t| t.trim().chars().take(60).collect::<String>());
    for answer in &answers {
        if let Some(period) = cycle(answer) {
            let text = format!("an answer ends in a cycle of {period} tokens: \"{}\"", shown(answer)?);
            return Ok(Finding::of(f64::INFINITY, 0.5, text).blame(Subject::Repetition));
        }
    }
    let first = shown(&answers[0])?;
    let text = match share < 0.5 {
        true => format!("share of the most frequent of {n} tokens of answers ({n_answers}), no cycle: \"{first}\""),
        false => format!("token {token} makes up {most} of {n}: \"{first}\""),
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
