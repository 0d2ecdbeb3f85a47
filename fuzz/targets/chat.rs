//! libFuzzer on [`kigo_fuzz::chat`].
#![no_main]

use kigo_fuzz::{chat, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    chat::run(data);
});
