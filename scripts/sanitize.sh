#!/usr/bin/env bash
# What the compilers' sanitizers see: `scripts/sanitize.sh [address|kernels|thread]`, without an argument all three.
#
#   address   the C and C++ programs of tests/c and examples-c/ under AddressSanitizer (with its search for leaks) and
#             UndefinedBehaviorSanitizer, against a library built under AddressSanitizer, with overflow checks and debug
#             assertions; ten minutes on two cores, most of them to build
#   kernels   the CUDA kernels, compiled for the processor, under AddressSanitizer and UndefinedBehaviorSanitizer: what a block
#             asked for of shared memory, and a buffer's bytes, are all that they may touch: each kernel by itself, in every shape
#             that its test has, and models of every feature
#   thread    programs with threads under ThreadSanitizer, which needs a standard library that is built with it
#             (cargo -Zbuild-std), and so the toolchain's rust-src: `rustup component add rust-src`
#
# RUSTC_BOOTSTRAP=1 unlocks the stable toolchain's sanitizers. `thread` builds for half an hour on two busy cores.
set -euo pipefail
cd "$(dirname "$0")/.."
HOST=$(rustc -vV | sed -n 's/^host: //p')
TARGETS=${CARGO_TARGET_DIR:-target}

address() {
    export KIGO_CUDA=0
    KIGO_LIBRARY=$(fuzz/run.sh --library)
    export KIGO_LIBRARY KIGO_SANITIZE=address,undefined
    # A host catches what a library is not asked for: allocations that are too large fail as they do without a sanitizer.
    export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    cargo test --no-fail-fast --test c -- calls:: examples:: trust::
}

kernels() {
    local runner="CARGO_TARGET_$(echo "$HOST" | tr a-z- A-Z_)_RUNNER"
    export "$runner=env LD_PRELOAD=$(cc -print-file-name=libasan.so)"
    # The kernels' threads have stacks of their own, of which AddressSanitizer is not told when it looks for leaks.
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
    KIGO_CUDA=emulate KIGO_EMULATE_SANITIZE=address,undefined KIGO_REQUIRE_CUDA=1 KIGO_FEW=1 \
        cargo test --no-fail-fast --target-dir "$TARGETS/kernels" --test gpu -- operations:: features:: forward::mixed forward::pages
}

thread() {
    local libraries source racy
    libraries=$(rustc --print sysroot)/lib/rustlib
    source=$libraries/src/rust/library
    if [ ! -d "$source" ]; then
        echo "skipped: ThreadSanitizer needs rust-src, which is not installed ($source)"
        return 0
    fi
    export KIGO_CUDA=0
    RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=thread -Cforce-frame-pointers=yes' \
        cargo build -Zbuild-std --lib --target "$HOST" --target-dir "$TARGETS/thread"
    # A C compiler's own run time may lack functions that rustc's code calls.
    KIGO_SANITIZER_RUNTIME=$(echo "$libraries/$HOST"/lib/librustc-*_rt.tsan.a)
    export KIGO_SANITIZER_RUNTIME KIGO_SANITIZE=thread KIGO_LIBRARY=$TARGETS/thread/$HOST/debug/libkigo.so
    export KIGO_SOAK_SECONDS=${KIGO_SOAK_SECONDS:-30} TSAN_OPTIONS=halt_on_error=1:history_size=4
    KIGO_LIBRARY=$(realpath "$KIGO_LIBRARY")
    # A race that is planted is seen.
    racy=$(mktemp -d)
    printf '%s\n' '#include <pthread.h>' 'static int n; static void *add(void *p) { for (int i = 0; i < 1000; i++) n++; return p; }' \
        'int main(void) { pthread_t t; pthread_create(&t, 0, add, 0); add(0); pthread_join(t, 0); return n == 0; }' >"$racy/racy.c"
    cc -fsanitize=thread -g -c "$racy/racy.c" -o "$racy/racy.o"
    cc -pthread "$racy/racy.o" -Wl,--whole-archive "$KIGO_SANITIZER_RUNTIME" -Wl,--no-whole-archive -Wl,--export-dynamic \
        -lm -ldl -lrt -o "$racy/racy"
    ! "$racy/racy" 2>"$racy/said" && grep -q 'data race' "$racy/said"
    rm -r "$racy"
    # Not forks.c: the run time itself does not live on in children of a process with threads.
    cargo test --no-fail-fast --test c -- calls::every_function_works calls::handles_are calls::a_session_is calls::batches_have \
        calls::a_tap hosting::a_soak hosting::signals hosting::without_threads hosting::the_host_s_floating
}

case ${1:-all} in
all) (address) && (kernels) && (thread) ;;
address | kernels | thread) $1 ;;
*) sed -n '2,13s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
