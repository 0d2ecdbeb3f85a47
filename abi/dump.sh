#!/bin/sh
# What a header promises, as abidw (Debian's abigail-tools) writes it: `abi/dump.sh HEADER SONAME OUT`. The header's functions
# are compiled with empty bodies and debug information, so that types are those that C sees, whatever the library is built
# with; that the library has just these functions, and its structs these layouts, is what tests/repo/abi.rs and the assertions in
# src/c_api hold.
set -eu
[ $# -eq 3 ] || { echo "usage: abi/dump.sh HEADER SONAME OUT" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$1" "$work/kigo.h"
{
    echo '#include "kigo.h"'
    ${CC:-cc} -E -P "$work/kigo.h" | awk -v RS=';' '
        !/typedef|[{}]/ && /kigo_[a-z0-9_]+\(/ { gsub(/\n/, " "); print $0 " { __builtin_trap(); }" }'
} >"$work/stub.c"
cd "$work"
${CC:-cc} -std=c99 -g -O0 -fPIC -fno-eliminate-unused-debug-types -shared -Wl,-soname,"$2" -o stub.so stub.c
abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed --out-file dump.abi stub.so
cd "$OLDPWD"
mv "$work/dump.abi" "$3"
