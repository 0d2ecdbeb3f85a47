//! Bytes as text: GPT-2's alphabet, in which every byte is one printable character, and SentencePiece's names.
//!
//! Source: `bytes_to_unicode` of OpenAI's gpt-2 `encoder.py`. The printable bytes of Latin-1 stand for themselves,
//! the other 68 take the characters from U+0100 on, in order.

/// The character of each byte.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut next = 0x100u32;
    let mut b = 0;
    while b < 256 {
        let printable = matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable { b as u32 } else { next };
        if !printable {
            next += 1;
        }
        chars[b] = match char::from_u32(code) {
            Some(c) => c,
            None => panic!("below the surrogates"),
        };
        b += 1;
    }
    chars
};

/// The character that stands for a byte.
pub(super) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The byte of each character from U+0100 on.
const SHIFTED: [u8; 68] = {
    let mut bytes = [0; 68];
    let mut b = 0;
    while b < 256 {
        let code = CHARS[b] as usize;
        if code >= 0x100 {
            bytes[code - 0x100] = b as u8;
        }
        b += 1;
    }
    bytes
};

/// Appends the characters that stand for `bytes`, at most two bytes each.
pub(super) fn push_chars(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&b| CHARS[usize::from(b)]));
}

/// The byte a character stands for.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100.. => SHIFTED.get(code as usize - 0x100).copied(),
        _ => None,
    }
}

/// The bytes a text of the alphabet stands for; `None` if a character is not of it.
pub(super) fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte_of).collect()
}

/// The byte that `<0xNN>` stands for.
pub(super) fn named(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_is_a_bijection() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        push_chars(&all, &mut text);
        assert_eq!(bytes_of(&text), Some(all));
        let known: usize = (0..=0x10ffff).filter_map(char::from_u32).filter(|&c| byte_of(c).is_some()).count();
        assert_eq!(known, 256);
    }

    #[test]
    fn well_known_characters() {
        let mut text = String::new();
        push_chars(b" \n\x00\xad~", &mut text);
        assert_eq!(text, "\u{120}\u{10a}\u{100}\u{143}~");
        assert_eq!(byte_of('\u{120}'), Some(b' '));
        assert_eq!(bytes_of("a b"), None);
    }
}
