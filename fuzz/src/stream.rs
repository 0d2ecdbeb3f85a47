//! Bytes cut in any way, with any stop strings, against what the documentation says in a few lines.

use kigo::engine::TextStream;
use kigo::tokenizer::Utf8Stream;

use crate::support::{self, Input};

/// The definition: the whole text, decoded at once, up to the stop string that is complete first, of several the longest.
fn expected(bytes: &[u8], stops: &[&str]) -> (String, Option<usize>) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let ends = stops.iter().enumerate().filter_map(|(i, s)| Some((text.find(s)? + s.len(), s.len(), i)));
    match ends.min_by_key(|&(end, len, i)| (end, usize::MAX - len, i)) {
        Some((end, len, i)) => (text[..end - len].to_owned(), Some(i)),
        None => (text, None),
    }
}

/// One case: the number of stop strings, these, the sizes of the pushes, the bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let head = input.u8();
    let stops: Vec<String> = (0..head % 4)
        .map(|_| {
            let n = input.below(12);
            String::from_utf8_lossy(input.bytes(n)).into_owned()
        })
        .collect();
    let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
    let made = Utf8Stream::new(&stops);
    assert_eq!(made.is_err(), stops.contains(&""), "an empty stop string is refused, and nothing else");
    let Ok(mut stream) = made else { return };
    let (step, bytes) = (input.u8(), input.0);
    if head & 0x80 != 0 {
        return tokens(bytes, &stops, head & 0x40 != 0);
    }
    let (mut text, mut rest, mut size) = (String::new(), bytes, usize::from(step));
    while !rest.is_empty() {
        // Sizes that repeat no pattern of the text's.
        size = size.wrapping_mul(5).wrapping_add(usize::from(step)) % 13;
        let (part, after) = rest.split_at(size.min(rest.len()));
        let out = stream.push(part).expect("memory suffices");
        assert!(out.stopped.is_none() || stops.len() > out.stopped.unwrap_or(0));
        text.push_str(out.text);
        rest = after;
        if size == 0 {
            size = 1;
            let (part, after) = rest.split_at(1.min(rest.len()));
            text.push_str(stream.push(part).expect("memory suffices").text);
            rest = after;
        }
    }
    text.push_str(stream.finish().expect("memory suffices").text);
    let wanted = expected(bytes, &stops);
    assert_eq!((text, stream.stopped()), wanted, "{bytes:?} with stops {stops:?}");
    assert_eq!(stream.finish().expect("memory suffices").text, "", "all has been given");
}

/// The same through a model's tokens: each byte is one, and any other number is refused.
fn tokens(bytes: &[u8], stops: &[&str], special: bool) {
    let model = support::model();
    let stops_owned: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
    let mut stream = TextStream::new(model, &stops_owned, special).expect("none of them is empty");
    let (mut text, mut all) = (String::new(), Vec::new());
    for pair in bytes.chunks(2) {
        let token = u32::from(pair[0]) + u32::from(pair.get(1).copied().unwrap_or(0) & 1) * 256;
        let before = text.len();
        match stream.push(token, &mut text) {
            Ok(()) => {
                let flags = model.token_flags(token).expect("it was taken");
                if special || !flags.control {
                    all.extend_from_slice(&model.token_bytes(token).expect("it was taken"));
                }
            }
            Err(_) => assert!(token as usize >= model.facts().n_vocab && text.len() == before),
        }
    }
    stream.finish(&mut text).expect("memory suffices");
    assert_eq!((text, stream.stopped()), expected(&all, stops));
}
