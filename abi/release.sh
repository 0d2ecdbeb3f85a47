#!/bin/sh
# Keeps what a release is held to: `abi/release.sh VERSION LIBRARY HEADER`, such as of what abi/rebuild.sh has made. Into
# abi/VERSION go the header, its dump, the symbols and structs with their sizes, and programs that were compiled against the header
# and linked with the library. tests/repo/abi.rs compares and runs all of it with today's library. Never run again for a version that is
# out: what is kept is what users have.
set -eu
[ $# -eq 3 ] || { echo "usage: abi/release.sh VERSION LIBRARY HEADER" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
version=$1 library=$(realpath "$2") header=$(realpath "$3") out=$here/$1
soname=$(readelf -d "$library" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
grep -q "^$version [0-9]* $soname " "$here/releases.txt" || {
    echo "abi/releases.txt has no release $version with $soname" >&2
    exit 1
}
mkdir -p "$out"
cp "$header" "$out/kigo.h"
"$here/dump.sh" "$out/kigo.h" "$soname" "$out/kigo.abi"
"$here/structs.sh" "$out/kigo.h" >"$out/structs.txt"
nm -D --defined-only "$library" | awk '$2 == "T" { print $3 }' | LC_ALL=C sort >"$out/symbols.txt"

links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
ln -s "$library" "$links/libkigo.so"
flags="-std=c99 -Wall -Wextra -Werror -Os -s -Wl,-z,norelro -Wl,--build-id=none"
${CC:-cc} $flags -I"$out" -o "$out/linked" "$here/programs/linked.c" -L"$links" -lkigo
if grep -q kigo_tap_options "$out/kigo.h"; then # from 0.2.0 on
    ${CC:-cc} $flags -I"$out" -o "$out/wide" "$here/programs/wide.c" -L"$links" -lkigo
fi
${CC:-cc} $flags -I"$out" -o "$out/dlopened" "$here/programs/dlopened.c" -ldl
ls -l "$out"
