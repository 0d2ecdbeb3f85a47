#!/usr/bin/env bash
# Runs fuzz targets at the same time, each in jobs of its own, for so many seconds; needs glibc and bash, no toolchain.
#
#   ./go.sh SECONDS [TARGET=JOBS ...]      default: reader=4 restore=2 stream=1 parser=1 chat=3 schema=2 regex=1 lark=1 gbnf=1 calls=1 tokenize=1
#
# Prints a line for each target: executions, edges covered, files of the corpus, what was found. $OUT (default: ./artifacts)
# gets what was found, $WORK (default: ./corpus) is where inputs are collected; a second run goes on from there.
# A job that finds something begins anew, so that one fault does not end the search for others.
set -uo pipefail
cd "$(dirname "$0")"
. ./targets.sh

seconds=${1:-60}
shift || true
[ $# -gt 0 ] || set -- reader=4 restore=2 stream=1 parser=1 chat=3 schema=2 regex=1 lark=1 gbnf=1 calls=1 tokenize=1
PROGRAM=${PROGRAM:-$PWD/kigo-fuzz}
[ -x "$PROGRAM" ] || { gunzip -k "$PROGRAM.gz" && chmod +x "$PROGRAM"; } || exit 2
OUT=${OUT:-$PWD/artifacts}
WORK=${WORK:-$PWD/corpus}
# Two frames of where a block was allocated: who wants more runs the artifact again with malloc_context_size=30.
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=16:malloc_context_size=2:detect_stack_use_after_return=0:allocator_may_return_null=1:detect_leaks=1:symbolize=0:handle_abort=0}

# One job: the fuzzer again and again until the time is over. Executions are summed from its own statistics.
job() {
    local target=$1 number=$2 log=$3 end=$((SECONDS + seconds)) left round=0 asan=$ASAN_OPTIONS
    # Pointers to a caller's stack are the C calls' alone, and looking after them costs a tenth.
    [ "$target" != calls ] || asan+=:detect_stack_use_after_return=1
    while left=$((end - SECONDS)) && [ "$left" -gt 0 ]; do
        round=$((round + 1))
        # shellcheck disable=SC2046
        KIGO_FUZZ_TARGET=$target ASAN_OPTIONS=$asan nice -n "${NICE:-0}" "$PROGRAM" $(options "$target") -max_total_time="$left" -artifact_prefix="$OUT/$target/" \
            -seed=$((number * 1000 + round + $$ % 997)) "$WORK/$target" "seeds/$target" \
            </dev/null >"$log.$round" 2>&1 && break
        # What it was doing when it fell, and no more than that.
        grep -aE '^(==|SUMMARY|FOUND| *#[0-9]+ 0x|Test unit)|kigo' "$log.$round" | tail -n 40 >>"$OUT/$target.log"
        sleep 1
    done
}

mkdir -p "$OUT"
logs=$(mktemp -d)
for pair in "$@"; do
    target=${pair%%=*} jobs=${pair##*=}
    mkdir -p "$OUT/$target" "$WORK/$target" "cases/$target"
    for number in $(seq 1 "$jobs"); do
        job "$target" "$number" "$logs/$target.$number" &
    done
done
wait

printf '%-9s %5s %13s %9s %8s %8s %8s %7s\n' target jobs executions exec/s edges corpus found restarts
for pair in "$@"; do
    target=${pair%%=*} jobs=${pair##*=}
    # Where a job was ended by a crash, its last status line has the number.
    executions=0
    for log in "$logs/$target".*; do
        n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
        [ -n "$n" ] || n=$(grep -aoE '^#[0-9]+' "$log" | tail -n 1 | tr -d '#')
        executions=$((executions + ${n:-0}))
    done
    edges=$(grep -ahoE 'cov: [0-9]+' "$logs/$target".* | sort -k2n | tail -n 1 | cut -d' ' -f2)
    # Slow by the clock is what a busy machine makes of a case; each holds itself to its processor time.
    found=$(find "$OUT/$target" -type f ! -name 'slow-unit-*' | wc -l)
    restarts=$(($(ls "$logs/$target".* | wc -l) - jobs))
    printf '%-9s %5d %13d %9d %8d %8d %8d %7d\n' "$target" "$jobs" "$executions" $((executions / (seconds > 0 ? seconds : 1))) \
        "${edges:-0}" "$(find "$WORK/$target" -type f | wc -l)" "$found" "$restarts"
done
mkdir -p "$OUT/logs" && for log in "$logs"/*; do tail -c 20000 "$log" >"$OUT/logs/$(basename "$log")"; done
rm -rf "$logs"
[ -z "$(find "$OUT" -name 'crash-*' -o -name 'timeout-*' -o -name 'oom-*' -o -name 'leak-*')" ]
