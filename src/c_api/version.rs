//! A program compiled against this header asks the library that it found at run time:
//!
//!     if (kigo_abi_version() != KIGO_ABI_VERSION) { ... }
//!
//! Within one ABI version functions, constants and fields at the end of structs are added and nothing else changes, so
//! a program runs with any later library of it. Any other change raises the ABI version, also while the major version is
//! 0, and with it the library's soname, libkigo.so.KIGO_VERSION_MAJOR.KIGO_ABI_VERSION: a program that was linked with
//! another ABI's library does not find this one, and one that calls dlopen() finds out by the comparison above. Each
//! function also has the release that it came in as its symbol's version (KIGO_0.2): a program that was linked with a
//! later release and uses a function of that is refused by the loader, not in the middle of its work. docs/ABI.md has
//! the whole promise.

use std::ffi::{CStr, c_char};

/// Major version of this header.
pub const KIGO_VERSION_MAJOR: u32 = 0;
/// Minor version of this header.
pub const KIGO_VERSION_MINOR: u32 = 2;
/// Patch version of this header.
pub const KIGO_VERSION_PATCH: u32 = 0;
/// The ABI of this header; 0.1.0 had 0.
pub const KIGO_ABI_VERSION: u32 = 1;

const fn number(digits: &str) -> u32 {
    let digits = digits.as_bytes();
    let (mut n, mut i) = (0, 0);
    while i < digits.len() {
        n = n * 10 + (digits[i] - b'0') as u32;
        i += 1;
    }
    n
}

const _: () = assert!(
    number(env!("CARGO_PKG_VERSION_MAJOR")) == KIGO_VERSION_MAJOR
        && number(env!("CARGO_PKG_VERSION_MINOR")) == KIGO_VERSION_MINOR
        && number(env!("CARGO_PKG_VERSION_PATCH")) == KIGO_VERSION_PATCH
);

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => panic!("the version holds a NUL"),
};

/// The library's version, such as "0.2.0". A constant: never NULL, never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn kigo_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The library's ABI version, to be compared with KIGO_ABI_VERSION. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn kigo_abi_version() -> u32 {
    KIGO_ABI_VERSION
}
