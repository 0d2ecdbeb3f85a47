//! All targets in one program, which is small enough to be carried to another machine: `KIGO_FUZZ_TARGET` says which.
#![no_main]

use std::sync::OnceLock;

use kigo_fuzz::{calls, chat, gbnf, gguf_edit, lark, parser, reader, regex, restore, schema, stream, support, tokenize};

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| match std::env::var("KIGO_FUZZ_TARGET").as_deref() {
        Ok("calls") => calls::run,
        Ok("chat") => chat::run,
        Ok("gbnf") => gbnf::run,
        Ok("lark") => lark::run,
        Ok("reader") => reader::run,
        Ok("regex") => regex::run,
        Ok("restore") => restore::run,
        Ok("schema") => schema::run,
        Ok("stream") => stream::run,
        Ok("parser") => parser::run,
        Ok("tokenize") => tokenize::run,
        other => {
            eprintln!("KIGO_FUZZ_TARGET is {other:?}, which is no target");
            std::process::exit(2);
        }
    })
}

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    target()(data);
});

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if target() as *const () == reader::run as *const () {
        gguf_edit::mutate(data, size, max_size, seed, libfuzzer_sys::fuzzer_mutate)
    } else {
        libfuzzer_sys::fuzzer_mutate(data, size, max_size)
    }
});
