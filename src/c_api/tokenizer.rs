//! Text to token ids and back, by the model's own vocabulary. Ids equal those of the model's reference tokenizer.
//!
//! Control tokens (such as "<|im_end|>") are atomic, and come from text only where KIGO_TOKENIZE_PARSE_SPECIAL asks for
//! them: text of a user's, tokenized without it, can never become one.

use super::model::kigo_model;
use super::prelude::*;

/// No token.
pub const KIGO_TOKEN_NONE: u32 = 0xFFFF_FFFF;

/// For kigo_tokenize(): puts the begin and end tokens around the text where the model wants them.
pub const KIGO_TOKENIZE_ADD_SPECIAL: u64 = 1;
/// For kigo_tokenize(): the text's control tokens become control tokens.
pub const KIGO_TOKENIZE_PARSE_SPECIAL: u64 = 2;

/// For kigo_detokenize(), generation and streams: control tokens are written out, not left out.
pub const KIGO_TEXT_SPECIAL: u64 = 1;

/// A token's flag: it is a control token.
pub const KIGO_TOKEN_IS_CONTROL: u64 = 1;
/// A token's flag: it ends a generation.
pub const KIGO_TOKEN_IS_END: u64 = 2;

/// The token ids of a text; `text_len` may be KIGO_STRLEN, `flags` are KIGO_TOKENIZE_*. Buffer out, counted in ids.
///
/// INVALID_ARGUMENT: not UTF-8 (the text has the byte), unknown flags. BUFFER_TOO_SMALL: 3 * text_len + 8 ids are always
/// enough (a model's own normalization can make a text three times as long), but for a "t5" vocabulary whose map of characters
/// makes single ones longer than that; text_len + 2 nearly always.
///
/// It cannot be cancelled. Its time grows with the text's length, times at most the logarithm of a word's: 16 MiB that are
/// one word are merged in 0.4 to 1.4 seconds of one core, by half a million merges in up to 3.2, finding words takes 0.1 to 1
/// second for most texts and up to 10 for characters picked at random from all of Unicode. It takes 14 bytes of memory for each
/// byte of the text at most, its ids included, but 26 of a word whose beginning depends on its end over thousands of bytes,
/// which a vocabulary must be made for, and more where a map of characters makes the text longer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_tokenize(
    model: *const kigo_model,
    text: *const c_char,
    text_len: usize,
    flags: u64,
    ids: *mut u32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(ids, capacity, needed, "ids")?;
        let model = borrow(model, "model")?;
        let text = super::args::text(text, text_len, "text")?;
        let flags = super::args::flags(flags, KIGO_TOKENIZE_ADD_SPECIAL | KIGO_TOKENIZE_PARSE_SPECIAL, "flags")?;
        let (add, parse) = (flags & KIGO_TOKENIZE_ADD_SPECIAL != 0, flags & KIGO_TOKENIZE_PARSE_SPECIAL != 0);
        out.store(&model.0.tokenize(text, add, parse)?)
    })
}

/// The text of token ids; `flags` are 0 or KIGO_TEXT_SPECIAL. Text out. Bytes that are not UTF-8, such as half a
/// character at the end, become U+FFFD. A text comes back from its tokens as it was where the vocabulary keeps it: most do, but
/// "bert" (WordPiece) drops capitals, accents and white space, and "t5" what its map of characters replaces.
///
/// INVALID_ARGUMENT: an id that is not below n_vocab (the text has its index), unknown flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_detokenize(
    model: *const kigo_model,
    ids: *const u32,
    n_ids: usize,
    flags: u64,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = borrow(model, "model")?;
        let special = super::args::flags(flags, KIGO_TEXT_SPECIAL, "flags")? != 0;
        out.store_text(model.0.detokenize(slice(ids, n_ids, "ids")?, special)?.as_bytes())
    })
}

/// The bytes that one token adds to a text; of a control token, its name. Text out, except that it need not be UTF-8
/// and may hold NULs: a character can be spread over several tokens (see "Stream").
///
/// INVALID_ARGUMENT: an id that is not below n_vocab.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_token_text(
    model: *const kigo_model,
    token: u32,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        out.store_text(&borrow(model, "model")?.0.token_bytes(token)?)
    })
}

/// What kind a token is: KIGO_TOKEN_IS_CONTROL, KIGO_TOKEN_IS_END, both or 0.
///
/// INVALID_ARGUMENT: an id that is not below n_vocab.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_token_flags(model: *const kigo_model, token: u32, flags: *mut u64) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(flags, "flags")?;
        let found = borrow(model, "model")?.0.token_flags(token)?;
        let bit = |on: bool, flag: u64| if on { flag } else { 0 };
        flags.write(bit(found.control, KIGO_TOKEN_IS_CONTROL) | bit(found.end, KIGO_TOKEN_IS_END));
        Ok(())
    })
}
