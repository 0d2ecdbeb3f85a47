#!/usr/bin/env bash
# cargo's RUSTC_WRAPPER in fuzz/run.sh: what is instrumented, and what is compiled as in a library in use.
#
# A search is as fast as what it runs, and most of that was counters and comparisons of regex, serde and the standard
# library's generics in them, which are not looked at here. So: AddressSanitizer and counters in Kigo; counters in the
# dependencies that read texts from anywhere; nothing in the rest. Every allocation is the sanitizer's whoever makes it,
# and generics are instrumented where they are instantiated. cargo does not see when this changes: remove fuzz/target.
set -euo pipefail
crate=
previous=
for arg in "$@"; do
    [ "$previous" != --crate-name ] || crate=$arg
    previous=$arg
done
args=()
for arg in "$@"; do
    case $crate:$arg in
    # Comparisons cost a fifth of a case, and files and blobs are made by mutations that know what stands where; those of
    # texts come through memcmp, which the sanitizer reports anyway.
    kigo:*-trace-compares | all:*-trace-compares) continue ;;
    kigo:* | all:* | ___:*) ;;
    # Bodies of targets: their accesses to what the library gave are checked; their own edges are of no interest.
    kigo_fuzz:-Cpasses=sancov-module | kigo_fuzz:-Cllvm-args=-sanitizer-coverage-*) continue ;;
    kigo_fuzz:*) ;;
    llguidance:-Zsanitizer=* | derivre:-Zsanitizer=* | toktrie:-Zsanitizer=*) continue ;;
    llguidance:*-trace-compares | derivre:*-trace-compares | toktrie:*-trace-compares) continue ;;
    llguidance:* | derivre:* | toktrie:*) ;;
    *:-Zsanitizer=* | *:-Cpasses=sancov-module | *:-Cllvm-args=-sanitizer-coverage-*) continue ;;
    esac
    args+=("$arg")
done
exec "${args[@]}"
