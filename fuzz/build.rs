//! Relative relocations packed: the tables of edges are full of them, and the programs a quarter smaller without.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo::rustc-check-cfg=cfg(kigo_cuda, fuzzing)");
}
