#!/usr/bin/env bash
# libFuzzer on Kigo.
#
#   fuzz/run.sh TARGET SECONDS [JOBS]   builds it, runs it and prints what it came to
#   fuzz/run.sh --build [FOLDER]        one self-contained program of all targets, seeds and go.sh for another machine (default: fuzz/bundle)
#   fuzz/run.sh --library               builds libkigo.so under AddressSanitizer and prints its path
#   fuzz/run.sh --list                  the targets
#
# What is found stands in fuzz/artifacts/TARGET: minimize it (-minimize_crash=1), and keep it in fuzz/cases/TARGET.
# The toolchain is the stable one: RUSTC_BOOTSTRAP=1 unlocks its sanitizer. No cargo-fuzz is needed, but it works too.
set -euo pipefail
cd "$(dirname "$0")"
. ./targets.sh

TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
HOST=$(rustc -vV | sed -n 's/^host: //p')
BUILT=$TARGET_DIR/$HOST/release

# As cargo-fuzz builds: AddressSanitizer, counters at each edge, comparisons reported to the fuzzer. With rustc.sh only
# where something is looked for.
build() {
    local flags="-Zsanitizer=address -Cpasses=sancov-module" llvm
    for llvm in level=3 inline-8bit-counters pc-table trace-compares; do
        flags+=" -Cllvm-args=-sanitizer-coverage-$llvm"
    done
    flags+=" -Ccodegen-units=8 ${CFG:---cfg fuzzing} -Cforce-frame-pointers=yes"
    RUSTC_BOOTSTRAP=1 KIGO_CUDA=0 RUSTFLAGS=$flags CARGO_TARGET_DIR=$TARGET_DIR \
        cargo build --release --target "$HOST" "$@"
}

case "${1:-}" in
--list)
    printf '%s\n' $TARGETS
    ;;
--library)
    # As it is in use: nothing of what a fuzzer keeps from one case to the next.
    CFG='--cfg sanitized' TARGET_DIR=$TARGET_DIR/library build --lib >&2
    echo "$TARGET_DIR/library/$HOST/release/deps/libkigo.so"
    ;;
--build)
    RUSTC_WRAPPER=$PWD/rustc.sh build --bin all
    out=${2:-$PWD/bundle}
    mkdir -p "$out"
    rm -rf "${out:?}/seeds" "$out/cases" "$out/dict"
    cp -r seeds cases dict targets.sh go.sh "$out/"
    # Functions' names stay, for what a crash prints.
    strip --strip-debug -o "$out/kigo-fuzz" "$BUILT/all"
    # 40 MB, which nothing but numbers of edges makes so large.
    gzip -9 -f -k "$out/kigo-fuzz" && ls -l "$out"
    ;;
'' | -*)
    sed -n '2,10s/^# \{0,1\}//p' run.sh
    exit 2
    ;;
*)
    target=$1
    RUSTC_WRAPPER=$PWD/rustc.sh build --bin all
    PROGRAM=$BUILT/all OUT=${OUT:-$PWD/artifacts} WORK=${WORK:-$PWD/corpus} bash ./go.sh "${2:-60}" "$target=${3:-1}"
    ;;
esac
