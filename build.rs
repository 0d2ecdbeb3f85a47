//! Gives the shared library its soname, and its functions the versions that they came in.
//!
//! A cdylib of rustc's exports its `#[no_mangle]` functions and nothing else; `tests/repo/abi.rs` reads that back, and this.

#[path = "cuda/build.rs"]
mod cuda;

fn main() {
    cuda::build();
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        for file in ["src/c_api/version.rs", "abi/symbols.txt", "abi/link/real-ld"] {
            println!("cargo:rerun-if-changed={file}");
        }
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{}", soname());
        // Threads that have used it keep keys and destructors that lie in it: dlclose() leaves it where it is.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // A dependency has C functions of its own, which would be exported too.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
        // The script there says how symbols get their versions.
        println!("cargo:rustc-cdylib-link-arg=-B{}/abi/link", root());
    }
}

fn root() -> String {
    std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")
}

/// `libkigo.so.<major version>.<ABI version>`, from the one place that has the two.
fn soname() -> String {
    let source = std::fs::read_to_string(format!("{}/src/c_api/version.rs", root())).expect("src/c_api/version.rs");
    let number = |name: &str| {
        let found = source.split_once(&format!("pub const {name}: u32 = ")).and_then(|(_, rest)| rest.split_once(';'));
        found.and_then(|(n, _)| n.parse::<u32>().ok()).unwrap_or_else(|| panic!("src/c_api/version.rs: {name}"))
    };
    format!("libkigo.so.{}.{}", number("KIGO_VERSION_MAJOR"), number("KIGO_ABI_VERSION"))
}
