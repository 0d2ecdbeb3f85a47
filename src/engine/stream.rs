//! Token ids to complete UTF-8, with stop strings held back.

use super::model::Model;
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
        let stop: Vec<&str> = stop.iter().map(String::as_str).collect();
        Ok(TextStream { model: model.clone(), special, stream: Utf8Stream::new(&stop)? })
    }

    /// Takes a token; appends what has become complete to `text`.
    ///
    /// Fails with `TokenOutOfRange`, and is as it was.
    pub fn push(&mut self, token: u32, text: &mut String) -> Result<()> {
        let flags = self.model.token_flags(token)?;
        if self.special || !flags.control {
            append(text, self.stream.push(&self.model.token_bytes(token)?).text)?;
        }
        Ok(())
    }

    /// Appends what was held back. The stream is as new then, unless it has stopped.
    pub fn finish(&mut self, text: &mut String) -> Result<()> {
        append(text, self.stream.finish().text)
    }

    /// Index of the stop string that has been reached.
    pub fn stopped(&self) -> Option<usize> {
        self.stream.stopped()
    }
}

fn append(text: &mut String, more: &str) -> Result<()> {
    text.try_reserve(more.len()).map_err(|_| Error::OutOfMemory {
        place: "host".to_owned(),
        requested: more.len() as u64,
        free: 0,
    })?;
    text.push_str(more);
    Ok(())
}
