#!/usr/bin/env bash
# The C and C++ programs of tests/c and examples-c/ under AddressSanitizer (with its search for leaks) and
# UndefinedBehaviorSanitizer, against a library that is built under AddressSanitizer, with overflow checks and debug
# assertions: `scripts/sanitize.sh`. Takes ten minutes on two cores, most of them to build.
#
# ThreadSanitizer needs a standard library that is built with it (cargo -Zbuild-std), and so the toolchain's rust-src; where
# that is missing this says so and ends with success. `scripts/sanitize.sh thread` runs it alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export KIGO_CUDA=0

address() {
    KIGO_LIBRARY=$(fuzz/run.sh --library)
    export KIGO_LIBRARY KIGO_SANITIZE=address,undefined
    # A host catches what a library is not asked for: allocations that are too large fail as they do without a sanitizer.
    export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    cargo test --no-fail-fast --test c -- calls:: examples:: trust::
}

thread() {
    local source
    source=$(rustc --print sysroot)/lib/rustlib/src/rust/library
    if [ ! -d "$source" ]; then
        echo "skipped: ThreadSanitizer needs rust-src, which is not installed ($source)"
        return 0
    fi
    RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=thread' TSAN_OPTIONS=halt_on_error=1 cargo test -Zbuild-std \
        --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir "${CARGO_TARGET_DIR:-target}/thread" \
        --test api --test gpu -- batch:: engine:: schedules:: fork::
}

case ${1:-address} in
address) address && thread ;;
thread) thread ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
