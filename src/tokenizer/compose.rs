//! Unicode's canonical composition (NFC), in memory that can fail: at most 8 bytes a combining mark beside the result.
//!
//! Source: UAX #15. The characters' data is `unicode-normalization-alignments`, as in the models' reference tokenizers.

use unicode_normalization_alignments::char::{canonical_combining_class, compose, decompose_canonical};

use super::grow;
use crate::alloc::reserve;
use crate::error::Result;

/// The text, composed. Fails with `OutOfMemory`.
pub(super) fn nfc(text: &str) -> Result<String> {
    let mut composer = Composer { out: String::new(), starter: None, marks: Vec::new(), sorted: Vec::new() };
    grow(&mut composer.out, text.len())?;
    for c in text.chars() {
        let mut result = Ok(());
        decompose_canonical(c, |c| {
            if result.is_ok() {
                result = composer.take(c);
            }
        });
        result?;
    }
    composer.end_marks()?;
    composer.write_starter()?;
    Ok(composer.out)
}

struct Composer {
    out: String,
    /// A character that others may join; not yet in `out`.
    starter: Option<char>,
    /// The marks behind it: `class << 24 | character`.
    marks: Vec<u32>,
    sorted: Vec<u32>,
}

impl Composer {
    /// The next character of the decomposed text.
    fn take(&mut self, c: char) -> Result<()> {
        let class = canonical_combining_class(c);
        if class != 0 {
            reserve(&mut self.marks, 1)?;
            self.marks.push(u32::from(class) << 24 | u32::from(c));
            return Ok(());
        }
        self.end_marks()?;
        if let Some(joined) = self.starter.and_then(|starter| compose(starter, c)) {
            self.starter = Some(joined);
            return Ok(());
        }
        self.write_starter()?;
        self.starter = Some(c);
        Ok(())
    }

    /// All marks of the starter are known: puts them in order and joins those that join.
    fn end_marks(&mut self) -> Result<()> {
        if self.marks.is_empty() {
            return Ok(());
        }
        self.sort_marks()?;
        let mut last_class = 0;
        let mut n_left = 0;
        for i in 0..self.marks.len() {
            let (class, c) = (self.marks[i] >> 24, char::from_u32(self.marks[i] & 0xff_ffff).unwrap_or_default());
            // A mark of the class of one before it is blocked by that.
            let joined = self.starter.filter(|_| class > last_class).and_then(|starter| compose(starter, c));
            if joined.is_some() {
                self.starter = joined;
            } else {
                last_class = class;
                self.marks[n_left] = self.marks[i];
                n_left += 1;
            }
        }
        if n_left > 0 {
            self.write_starter()?;
            for i in 0..n_left {
                self.write(char::from_u32(self.marks[i] & 0xff_ffff).unwrap_or_default())?;
            }
        }
        self.marks.clear();
        Ok(())
    }

    /// Sorts the marks by class, those of one class in the order of the text.
    fn sort_marks(&mut self) -> Result<()> {
        if self.marks.is_sorted_by_key(|m| m >> 24) {
            return Ok(());
        }
        let mut starts = [0_usize; 257];
        self.marks.iter().for_each(|m| starts[(m >> 24) as usize + 1] += 1);
        (1..257).for_each(|class| starts[class] += starts[class - 1]);
        self.sorted.clear();
        reserve(&mut self.sorted, self.marks.len())?;
        self.sorted.resize(self.marks.len(), 0);
        for &mark in &self.marks {
            let at = &mut starts[(mark >> 24) as usize];
            self.sorted[*at] = mark;
            *at += 1;
        }
        std::mem::swap(&mut self.marks, &mut self.sorted);
        Ok(())
    }

    fn write_starter(&mut self) -> Result<()> {
        self.starter.take().map_or(Ok(()), |c| self.write(c))
    }

    fn write(&mut self, c: char) -> Result<()> {
        grow(&mut self.out, c.len_utf8())?;
        self.out.push(c);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization_alignments::UnicodeNormalization;

    use super::nfc;

    fn check(text: &str) {
        let expected: String = text.nfc().map(|(c, _)| c).collect();
        assert_eq!(nfc(text).unwrap(), expected, "{text:?}");
    }

    #[test]
    fn every_character_composes_as_the_reference() {
        for c in (0..=0x10ffff).filter_map(char::from_u32) {
            check(&c.to_string());
            check(&format!("a{c}\u{301}"));
        }
        let long = "\u{323}\u{301}\u{5b0}".repeat(50_000);
        check(&format!("{long}e{long}\u{1100}\u{1161}{long}\u{11a8}"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_composes_as_the_reference(
            text in "(\\PC|[aeoAEO]|[\u{300}-\u{36f}\u{5b0}-\u{5c7}\u{93c}\u{9be}\u{9c7}\u{3099}]|[\u{1100}-\u{11ff}]|[\u{ac00}-\u{ac20}]|[\u{1d157}-\u{1d165}]){0,30}"
        ) {
            check(&text);
        }
    }
}
