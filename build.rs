//! Gives the shared library its soname.
//!
//! A cdylib of rustc's exports its `#[no_mangle]` functions and nothing else; `tests/abi.rs` reads that back, and this.

#[path = "cuda/build.rs"]
mod cuda;

fn main() {
    cuda::build();
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The number is KIGO_ABI_VERSION.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libkigo.so.0");
        // Threads that have used it keep keys and destructors that lie in it: dlclose() leaves it where it is.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // A dependency has C functions of its own, which would be exported too.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}
