#!/bin/sh
# Makes the library of a release again: `abi/rebuild.sh REF [FOLDER]` builds the tree of a commit or tag without CUDA and puts
# libkigo.so, libkigo.a and kigo.h into FOLDER (/tmp/kigo-REF). A shared library is 10 MB, so the repository keeps what was
# made with it and not the library; what is kept of 0.1.0 was made of a8d0d6a this way.
set -eu
[ $# -ge 1 ] || { echo "usage: abi/rebuild.sh REF [FOLDER]" >&2; exit 2; }
cd "$(dirname "$0")/.."
ref=$(git rev-parse --verify --short "$1^{commit}")
folder=${2:-/tmp/kigo-$ref}
mkdir -p "$folder/source"
git archive "$ref" | tar -x -C "$folder/source"
export KIGO_CUDA=0 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$folder/target}"
(cd "$folder/source" && ${CARGO:-cargo} build --release --lib --locked)
cp "$CARGO_TARGET_DIR/release/libkigo.so" "$CARGO_TARGET_DIR/release/libkigo.a" "$folder/source/include/kigo.h" "$folder/"
echo "$folder/libkigo.so: $ref, $(readelf -d "$folder/libkigo.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')"
