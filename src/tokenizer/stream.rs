//! Token bytes in, complete UTF-8 out, stop strings held back.
//!
//! What comes out does not depend on how the bytes were cut into pushes. Invalid bytes become U+FFFD, one for each
//! maximal subpart of a character (the Unicode standard's recommended practice, and `String::from_utf8_lossy`'s).
//! The stop string that is complete first ends the output, right before it; of several complete at one place the
//! longest.

use super::{filled, grow};
use crate::alloc::reserve;
use crate::error::{Error, Result};

/// A stop string and how much of it the text's end already matches (Knuth, Morris and Pratt).
struct Stop {
    text: Vec<u8>,
    /// `back[n]`: length of the longest proper beginning of `text` that ends `text[..n]`.
    back: Vec<u32>,
    matched: usize,
}

/// What a call gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOutput<'s> {
    /// Text that is decided, to be appended to what came before.
    pub text: &'s str,
    /// Index of the stop string that ended the output; then nothing comes any more.
    pub stopped: Option<usize>,
}

/// Turns the bytes of tokens into text.
pub struct Utf8Stream {
    stops: Vec<Stop>,
    /// The beginning of a character: its first bytes, and how many.
    partial: ([u8; 4], usize),
    /// What was given out, and then text that may be the beginning of a stop string.
    text: String,
    /// Bytes of `text` that have been given out.
    given: usize,
    stopped: Option<usize>,
}

impl Stop {
    fn new(stop: &str) -> Result<Stop> {
        let mut text = filled(stop.len(), 0)?;
        text.copy_from_slice(stop.as_bytes());
        let mut back = filled(text.len() + 1, 0_u32)?;
        let mut n = 0;
        for i in 1..text.len() {
            while n > 0 && text[n] != text[i] {
                n = back[n] as usize;
            }
            n += usize::from(text[n] == text[i]);
            back[i + 1] = n as u32;
        }
        Ok(Stop { text, back, matched: 0 })
    }

    /// Takes the next byte; true once the whole string has been seen.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.text[self.matched] != byte {
            self.matched = self.back[self.matched] as usize;
        }
        self.matched += usize::from(self.text[self.matched] == byte);
        self.matched == self.text.len()
    }
}

impl Utf8Stream {
    /// A stream that ends before the first of the stop strings.
    ///
    /// Fails with `Argument` if one of them is empty, or of 4 GiB or more, with `OutOfMemory`.
    pub fn new(stops: &[&str]) -> Result<Utf8Stream> {
        if let Some(at) = stops.iter().position(|s| s.is_empty() || u32::try_from(s.len()).is_err()) {
            let found = format!("stop string {at} of {} bytes", stops[at].len());
            return Err(Error::Argument { name: "stops", found, expected: "1 to 4294967295 bytes".into() });
        }
        let mut all = Vec::new();
        reserve(&mut all, stops.len())?;
        for stop in stops {
            all.push(Stop::new(stop)?);
        }
        Ok(Utf8Stream { stops: all, partial: ([0; 4], 0), text: String::new(), given: 0, stopped: None })
    }

    /// The most bytes of text that a push of so many bytes gives.
    pub fn most(&self, n_bytes: usize) -> usize {
        // Each byte may become a U+FFFD, as may those of the character begun before.
        (self.text.len() - self.given).saturating_add(n_bytes.saturating_add(4).saturating_mul(3))
    }

    /// Takes bytes, gives the text that they decide.
    ///
    /// Fails with `OutOfMemory`, and is as it was.
    pub fn push(&mut self, bytes: &[u8]) -> Result<StreamOutput<'_>> {
        self.forget_given();
        // All that is appended below; nothing after this fails.
        let most = self.most(bytes.len());
        grow(&mut self.text, most)?;
        let mut bytes = bytes;
        // Complete the character begun before byte by byte: at most three steps until it is one or is none.
        while let (true, Some((&byte, rest))) = (self.partial.1 > 0, bytes.split_first()) {
            let (mut joined, n) = std::mem::take(&mut self.partial);
            joined[n] = byte;
            bytes = rest;
            self.decode(&joined[..n + 1]);
        }
        self.decode(bytes);
        Ok(self.give())
    }

    /// Gives what was held back: nothing can follow it. The stream is then as new, unless it has stopped.
    ///
    /// Fails with `OutOfMemory`, and is as it was.
    pub fn finish(&mut self) -> Result<StreamOutput<'_>> {
        self.forget_given();
        let most = self.most(0);
        grow(&mut self.text, most)?;
        if std::mem::take(&mut self.partial).1 > 0 {
            self.append("\u{fffd}");
        }
        for stop in &mut self.stops {
            stop.matched = 0;
        }
        Ok(self.give())
    }

    /// Whether a stop string has ended the output, and which.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Makes room where what was given out is the larger part: what is held back, as long as a stop string, is not moved
    /// for each byte.
    fn forget_given(&mut self) {
        if self.given >= self.text.len() - self.given {
            self.text.drain(..self.given);
            self.given = 0;
        }
    }

    /// All text but the longest end of it that begins a stop string.
    fn give(&mut self) -> StreamOutput<'_> {
        let held = self.stops.iter().map(|s| s.matched).max().unwrap_or(0);
        let from = self.given;
        self.given = self.text.len() - if self.stopped.is_some() { 0 } else { held };
        StreamOutput { text: &self.text[from..self.given], stopped: self.stopped }
    }

    /// Appends the complete characters of `bytes` and keeps the beginning of one at its end.
    fn decode(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match std::str::from_utf8(bytes) {
                Ok(text) => return self.append(text),
                Err(e) => {
                    let (valid, rest) = bytes.split_at(e.valid_up_to());
                    self.append(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(len) = e.error_len() else {
                        let n = rest.len().min(4);
                        self.partial.0[..n].copy_from_slice(&rest[..n]);
                        self.partial.1 = n;
                        return;
                    };
                    self.append("\u{fffd}");
                    bytes = &rest[len..];
                }
            }
        }
    }

    /// Appends text up to the first stop string.
    fn append(&mut self, text: &str) {
        if self.stopped.is_some() {
            return;
        }
        if self.stops.is_empty() {
            return self.text.push_str(text);
        }
        let before = self.text.len();
        self.text.push_str(text);
        for (i, byte) in text.bytes().enumerate() {
            let mut longest: Option<(usize, usize)> = None;
            for (s, stop) in self.stops.iter_mut().enumerate() {
                if stop.step(byte) && longest.is_none_or(|(_, len)| len < stop.text.len()) {
                    longest = Some((s, stop.text.len()));
                }
            }
            if let Some((s, len)) = longest {
                self.text.truncate(before + i + 1 - len);
                self.stopped = Some(s);
                return;
            }
        }
    }
}
