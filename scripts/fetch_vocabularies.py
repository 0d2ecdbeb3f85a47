#!/usr/bin/env python3
"""Puts vocabularies, chat templates and grammars of llama-cpp-python's source distribution into models/vocabularies/, models/templates/
and models/grammars/.

    fetch_vocabularies.py

The vocabularies are files of GGUF without weights, each with texts (.inp) and the ids that its reference tokenizer gives (.out),
by the llama.cpp authors, MIT; the templates (.jinja) are those that models were published with, the grammars (.gbnf) are llama.cpp's examples. pip downloads the archive by name at a pinned version; its hash is checked and its members are read as
data. To know a source distribution's name pip asks its build backend, which runs; nothing is built or installed.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from fetch_model import ROOT, Failure, find_pip, say, sha256

NAME, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
MODELS = ROOT / "models"
PLACES = (MODELS / "vocabularies", MODELS / "templates", MODELS / "grammars")
MEMBERS = ("models/ggml-vocab-*", "models/templates/*.jinja", "grammars/*.gbnf")


def wanted(name):
    """The place of a member that is a vocabulary, its texts or its ids, a template or a grammar, else None."""
    path = Path(name)
    for place, pattern in zip(PLACES, MEMBERS):
        if path.match(f"vendor/llama.cpp/{pattern}"):
            return place / path.name
    return None


def main():
    done = [place / ".version" for place in PLACES]
    if all(file.exists() and file.read_text() == SHA256 for file in done):
        return
    for place in PLACES:
        place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MODELS, prefix=".fetch-") as scratch:
        scratch = Path(scratch)
        say(f"fetching {NAME} {VERSION}: 77 MB, licence: MIT")
        requirement = scratch / "requirement.txt"
        requirement.write_text(f"{NAME}=={VERSION} --hash=sha256:{SHA256}\n")
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--require-hashes"]
        pip = subprocess.run(
            find_pip(scratch) + ["download", *options, f"--no-binary={NAME}", "--dest", str(scratch), "--requirement", str(requirement)],
            stdout=sys.stderr,
        )
        archives = list(scratch.glob("*.tar.gz"))
        if pip.returncode != 0 or len(archives) != 1:
            raise Failure(f"pip could not download {NAME} {VERSION} (exit status {pip.returncode})")
        found = sha256(archives[0])
        if found != SHA256:
            raise Failure(f"{archives[0].name}: SHA-256 is {found}, {SHA256} was expected")
        n = 0
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                if member.isfile() and (place := wanted(member.name)):
                    with archive.extractfile(member) as file, open(scratch / place.name, "wb") as out:
                        shutil.copyfileobj(file, out)
                    os.replace(scratch / place.name, place)
                    n += 1
    say(f"{' and '.join(map(str, PLACES))}: {n} files")
    for file in done:
        file.write_text(SHA256)


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        sys.exit(f"fetch_vocabularies: {error}")
