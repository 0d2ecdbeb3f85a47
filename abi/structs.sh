#!/bin/sh
# The layout of a header's structs as this machine's compiler has it: `abi/structs.sh HEADER` prints a line `struct size` for each,
# and a line `struct.field offset size` for each field, in the order of the header.
set -eu
[ $# -eq 1 ] || { echo "usage: abi/structs.sh HEADER" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$1" "$work/kigo.h"
{
    printf '#include "kigo.h"\n#include <stddef.h>\n#include <stdio.h>\nint main(void)\n{\n'
    # Fields are `type name;`, `type *name;` or `type name[n];`.
    ${CC:-cc} -E -P "$work/kigo.h" | awk '
        /^typedef struct kigo_[a-z0-9_]* \{/ {
            name = $3; sub(/\{.*/, "", name)
            printf "    printf(\"%s %%zu\\n\", sizeof(%s));\n", name, name; next
        }
        name != "" && /^}/ { name = ""; next }
        name != "" && /;$/ {
            field = $NF; sub(/\[.*/, "", field); gsub(/[*;]/, "", field)
            printf "    printf(\"%s.%s %%zu %%zu\\n\", offsetof(%s, %s), sizeof(((%s *)0)->%s));\n", name, field, name, field, name, field
        }'
    printf '    return 0;\n}\n'
} >"$work/layout.c"
${CC:-cc} -std=c99 -o "$work/layout" "$work/layout.c"
"$work/layout"
