#!/usr/bin/env python3
"""Puts the vocabularies with expected ids of llama-cpp-python's source distribution into models/vocabularies/.

    fetch_vocabularies.py

They are files of GGUF without weights, each with texts (.inp) and the ids that its reference tokenizer gives (.out), by the
llama.cpp authors, MIT. pip downloads the archive by name at a pinned version; its hash is checked and its members are read as
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
PLACE = ROOT / "models" / "vocabularies"
DONE = PLACE / ".version"


def wanted(name):
    """The file name of a member that is a vocabulary, its texts or its ids, else None."""
    path = Path(name)
    return path.name if path.match("vendor/llama.cpp/models/ggml-vocab-*") else None


def main():
    if DONE.exists() and DONE.read_text() == SHA256:
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE.parent, prefix=".fetch-") as scratch:
        scratch = Path(scratch)
        say(f"fetching {NAME} {VERSION}: 77 MB, licence: MIT")
        requirement = scratch / "requirement.txt"
        requirement.write_text(f"{NAME}=={VERSION} --hash=sha256:{SHA256}\n")
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            find_pip(scratch) + ["download", *options, f"--no-binary={NAME}", "--dest", str(scratch), "--requirement", str(requirement)],
            stdout=sys.stderr,
        )
        archives = list(scratch.glob("*.tar.gz"))
        if done.returncode != 0 or len(archives) != 1:
            raise Failure(f"pip could not download {NAME} {VERSION} (exit status {done.returncode})")
        found = sha256(archives[0])
        if found != SHA256:
            raise Failure(f"{archives[0].name}: SHA-256 is {found}, {SHA256} was expected")
        n = 0
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                if member.isfile() and (name := wanted(member.name)):
                    with archive.extractfile(member) as file, open(scratch / name, "wb") as out:
                        shutil.copyfileobj(file, out)
                    os.replace(scratch / name, PLACE / name)
                    n += 1
    say(f"{PLACE}: {n} files")
    DONE.write_text(SHA256)


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        sys.exit(f"fetch_vocabularies: {error}")
