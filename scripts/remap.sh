#!/bin/sh
# Prints the flags of rustc with which a library has no paths of the machine that built it: those of the crates, of the
# standard library and of this repository become relative. The Makefile and CI build with them.
case ${RUSTFLAGS-} in
*--remap-path-prefix*) printf '%s\n' "$RUSTFLAGS" ;;
*)
    cargo=${CARGO_HOME:-${HOME-/root}/.cargo}
    sysroot=$(rustc --print sysroot 2>/dev/null || true)
    root=$(cd "$(dirname "$0")/.." && pwd)
    set -- "--remap-path-prefix=$cargo/registry/src=crates" "--remap-path-prefix=$root=kigo"
    [ -z "$sysroot" ] || set -- "$@" "--remap-path-prefix=$sysroot/lib/rustlib/src=rustlib"
    printf '%s%s\n' "${RUSTFLAGS:+$RUSTFLAGS }" "$*"
    ;;
esac
