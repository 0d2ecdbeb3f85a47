//! Token ids to complete UTF-8, with stop strings held back.

use super::model::Model;
use crate::alloc::reserve;
use crate::error::{Error, Result};
use crate::tokenizer::Utf8Stream;

/// Tokens in, text out.
pub struct TextStream {
    model: Model,
    special: bool,
    stream: Utf8Stream,
}

impl TextStream {
    /// A stream that ends before the first of the `stop` strings; `special`: control tokens are part of the text.
    ///
    /// Fails with `Argument` if a stop string is empty.
    pub fn new(model: &Model, stop: &[String], special: bool) -> Result<TextStream> {
        let mut stops: Vec<&str> = Vec::new();
        reserve(&mut stops, stop.len())?;
        stops.extend(stop.iter().map(String::as_str));
        Ok(TextStream { model: model.clone(), special, stream: Utf8Stream::new(&stops)? })
    }

    /// Takes a token; appends what has become complete to `text`.
    ///
    /// Fails with `TokenOutOfRange` or `OutOfMemory`, and is as it was.
    pub fn push(&mut self, token: u32, text: &mut String) -> Result<()> {
        let flags = self.model.token_flags(token)?;
        if self.special || !flags.control {
            let bytes = self.model.token_bytes(token)?;
            // Asked for before: what has been given out is not given again.
            room(text, self.stream.most(bytes.len()))?;
            text.push_str(self.stream.push(&bytes)?.text);
        }
        Ok(())
    }

    /// Appends what was held back. The stream is as new then, unless it has stopped. Fails with `OutOfMemory`, and is as it
    /// was.
    pub fn finish(&mut self, text: &mut String) -> Result<()> {
        room(text, self.stream.most(0))?;
        text.push_str(self.stream.finish()?.text);
        Ok(())
    }

    /// Index of the stop string that has been reached.
    pub fn stopped(&self) -> Option<usize> {
        self.stream.stopped()
    }
}

/// Room for so many more bytes, and for a NUL of the caller's.
fn room(text: &mut String, n: usize) -> Result<()> {
    let n = n.saturating_add(1);
    text.try_reserve(n).map_err(|_| Error::OutOfMemory { place: "host".into(), requested: n as u64, free: 0 })
}
