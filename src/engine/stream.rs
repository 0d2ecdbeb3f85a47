//! Token ids to complete UTF-8, with stop strings held back.

use super::model::Model;
use crate::error::{Error, Result};

/// Tokens in, text out.
pub struct TextStream {
    model: Model,
}

#[allow(missing_docs, unused_variables)]
impl TextStream {
    pub fn new(model: &Model, stop: Vec<String>, special: bool) -> Result<TextStream> {
        Ok(TextStream { model: model.clone() })
    }

    pub fn push(&mut self, token: u32, text: &mut String) -> Result<()> {
        self.model.token_kind(token)?;
        Err(Error::Unsupported { what: "stream", name: "not in this build".to_owned() })
    }

    pub fn finish(&mut self, text: &mut String) -> Result<()> {
        Err(Error::Unsupported { what: "stream", name: "not in this build".to_owned() })
    }

    pub fn stopped(&self) -> Option<usize> {
        None
    }
}
