# Reads what cargo and its test programs print, and counts every test once: failed if it failed in any run, passed if it passed in one
# without saying `skipped:`, else skipped. A GPU test that found no device in one run has passed if it did on the emulated device.
function short(line) { sub(/.*Running (unittests )?/, "", line); sub(/ \(.*/, "", line); sub(/^tests\//, "", line)
                       sub(/(\/main)?\.rs$/, "", line); return line }

/^ +Running / { program = short($0); run++; test = "" }
/^test .* \.\.\. (ok|FAILED|ignored)/ {
    name = program "::" $2
    verdict = $0; sub(/.* \.\.\. /, "", verdict)
    all[name]
    if (verdict ~ /^FAILED/) bad[name]
    else if (verdict ~ /^ignored/) why[name] = "ignored: runs only when it is asked for"
    else good[name, run]
    if (match($0, /<[0-9.]+s>$/)) {
        seconds = substr($0, RSTART + 1, RLENGTH - 3) + 0
        slow[sprintf("%8.2f s  %s%s", seconds, name, runs_of[name]++ ? " (again)" : "")] = seconds
    }
}
/^---- .* stdout ----$/ { test = program "::" $2 }
/^(successes|failures|test result):/ { test = "" }
/^skipped: / {
    if (test == "") elsewhere[$0]++
    else { partly[test, run]; why[test] = $0 }
}

END {
    for (key in good) if (!(key in partly)) { split(key, part, SUBSEP); passed[part[1]] }
    for (name in all) {
        if (name in bad) { n_failed++; print "failed: " name }
        else if (name in passed) n_passed++
        else { n_skipped++; reasons[why[name]]++ }
    }
    print "\nThe slowest tests:"
    for (line in slow) print line | "sort -rn | head -n 25"
    close("sort -rn | head -n 25")
    print ""
    for (reason in reasons) printf "%4d %s\n", reasons[reason], reason
    for (reason in elsewhere) { n_skipped += elsewhere[reason]; printf "%4d %s\n", elsewhere[reason], reason }
    printf "%d passed, %d failed, %d skipped\n", n_passed, n_failed, n_skipped
    exit n_passed == 0 || n_failed != 0
}
