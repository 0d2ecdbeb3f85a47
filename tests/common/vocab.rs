//! Vocabularies that really tokenize: any text splits into their tokens and comes back from them.
//!
//! The byte-level kind has the 256 bytes, then merges of two bytes, then of two and one; the SentencePiece kind has its
//! special tokens, the 256 bytes, then pieces of one, two and three printable characters. Both are cut to any size.

use kigo::gguf::{Value, ValueType, Writer};

/// Types of tokens in `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// The end-of-turn template that the random models come with.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const GEMMA: &str = "{{ bos_token }}{% for message in messages %}<start_of_turn>\
                     {{ 'model' if message['role'] == 'assistant' else message['role'] }}\n\
                     {{ message['content'] | trim }}<end_of_turn>\n\
                     {% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";

/// Writes a tokenizer section of `n` tokens, at least 300. `pre` is a byte-level pre-tokenizer, or "spm".
pub fn write(writer: &mut Writer, pre: &str, n: usize) {
    write_with(writer, pre, n, &[]);
}

/// [`write`] with these words in the place of those of some tokens.
pub fn write_with(writer: &mut Writer, pre: &str, n: usize, words: &[(usize, String)]) {
    assert!(n >= 300, "a vocabulary of {n} has no room for the bytes and the special tokens");
    if pre == "spm" { sentencepiece(writer, n, words) } else { byte_level(writer, pre, n, words) }
}

fn replace(tokens: &mut [String], words: &[(usize, String)]) {
    words.iter().for_each(|(i, word)| tokens[*i].clone_from(word));
}

/// The printable character that stands for a byte in a byte-level vocabulary (GPT-2's table): printable ASCII and
/// Latin-1 stand for themselves, the others take the characters from U+0100 on, in order.
pub fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + rank).unwrap_or(' ')
}

fn byte_level(writer: &mut Writer, pre: &str, n: usize, words: &[(usize, String)]) {
    const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let chars: Vec<char> = (0..=255).map(byte_char).collect();
    let n_merges = n - 256 - SPECIAL.len();
    // Letters first: they are what tests write.
    let mut order: Vec<usize> = (0..256).collect();
    order.sort_by_key(|&b| (!matches!(b as u8, b'a'..=b'z' | b' '), b));
    let letter = |i: usize| chars[order[i % 256]];
    let merges: Vec<(String, String)> = (0..n_merges)
        .map(|i| match i.checked_sub(65_536) {
            None => (letter(i / 256).to_string(), letter(i).to_string()),
            Some(i) => (format!("{}{}", letter(i / 65_536), letter(i / 256)), letter(i).to_string()),
        })
        .collect();

    let mut tokens: Vec<String> = chars.iter().map(char::to_string).collect();
    tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    let first_special = tokens.len() as u32;
    tokens.extend(SPECIAL.map(String::from));
    replace(&mut tokens, words);
    let types = (0..n).map(|i| if i < first_special as usize { NORMAL } else { CONTROL });

    writer.meta("tokenizer.ggml.model", Value::String("gpt2"));
    writer.meta("tokenizer.ggml.pre", Value::String(pre));
    strings(writer, "tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    writer.array("tokenizer.ggml.token_type", ValueType::I32, types.map(Value::I32));
    let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    strings(writer, "tokenizer.ggml.merges", merges.iter().map(String::as_str));
    writer.meta("tokenizer.ggml.bos_token_id", Value::U32(first_special));
    writer.meta("tokenizer.ggml.eos_token_id", Value::U32(first_special + 2));
    writer.meta("tokenizer.ggml.padding_token_id", Value::U32(first_special));
    writer.meta("tokenizer.ggml.add_bos_token", Value::Bool(false));
    writer.meta("tokenizer.chat_template", Value::String(CHATML));
}

fn sentencepiece(writer: &mut Writer, n: usize, words: &[(usize, String)]) {
    const SPECIAL: [&str; 6] = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];
    let mut alphabet: Vec<char> = ('a'..='z').collect();
    alphabet.insert(0, '\u{2581}');
    alphabet.extend((' '..='~').filter(|c| *c != ' ' && !c.is_ascii_lowercase()));
    let k = alphabet.len();
    let letter = |i: usize| alphabet[i % k];
    let piece = |i: usize| match (i.checked_sub(k), i.checked_sub(k + k * k)) {
        (None, _) => letter(i).to_string(),
        (Some(i), None) => [letter(i / k), letter(i)].iter().collect(),
        (_, Some(i)) => [letter(i / (k * k)), letter(i / k), letter(i)].iter().collect(),
    };
    let n_pieces = n - SPECIAL.len() - 256;
    let mut tokens: Vec<String> = SPECIAL.map(String::from).into();
    tokens.extend((0..=255u8).map(|b| format!("<0x{b:02X}>")));
    tokens.extend((0..n_pieces).map(piece));
    replace(&mut tokens, words);
    let kind = |i: usize| match i {
        3 => UNKNOWN,
        0..6 => CONTROL,
        6..262 => BYTE,
        _ => NORMAL,
    };
    let score = |i: usize| if i < 262 { 0.0 } else { -((i - 262) as f32) };

    writer.meta("tokenizer.ggml.model", Value::String("llama"));
    writer.meta("tokenizer.ggml.pre", Value::String("default"));
    strings(writer, "tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    writer.array("tokenizer.ggml.scores", ValueType::F32, (0..n).map(|i| Value::F32(score(i))));
    writer.array("tokenizer.ggml.token_type", ValueType::I32, (0..n).map(|i| Value::I32(kind(i))));
    writer.meta("tokenizer.ggml.bos_token_id", Value::U32(2));
    writer.meta("tokenizer.ggml.eos_token_id", Value::U32(1));
    writer.meta("tokenizer.ggml.unknown_token_id", Value::U32(3));
    writer.meta("tokenizer.ggml.padding_token_id", Value::U32(0));
    writer.meta("tokenizer.ggml.add_bos_token", Value::Bool(true));
    writer.meta("tokenizer.ggml.add_eos_token", Value::Bool(false));
    writer.meta("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    writer.meta("tokenizer.chat_template", Value::String(GEMMA));
}

fn strings<'s>(writer: &mut Writer, key: &str, strings: impl Iterator<Item = &'s str>) {
    writer.array(key, ValueType::String, strings.map(Value::String));
}
