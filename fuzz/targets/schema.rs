//! libFuzzer on [`kigo_fuzz::schema`].
#![no_main]

use kigo_fuzz::{schema, support};

libfuzzer_sys::fuzz_target!(init: support::quiet_hook(), |data: &[u8]| {
    schema::run(data);
});
