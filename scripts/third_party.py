#!/usr/bin/env python3
"""Writes THIRD-PARTY: the notices and licences of the crates that are linked into the library, from their own sources.

`third_party.py` writes it anew, `third_party.py --check` ends with status 1 if it is not current. What is linked is what
cargo resolves for Linux without the crates of tests and build scripts; of a choice of licences MIT is taken where it is one.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
HEAD = """\
Kigo's libraries, libkigo.so and libkigo.a, contain compiled code of the crates below, each under the licence that stands
with it, and of Rust's standard library, which is Copyright (c) The Rust Project Contributors and others, under MIT or
Apache-2.0 (the text of the former is that of the crate `libc` below). Of ggml there are the tables of LICENSE-IQ-GRIDS.
scripts/third_party.py has written this file.
"""
# Files of a crate that are licences, and MIT's among them.
ANY = re.compile(r"(licen[cs]e|copying|unlicense)([-_.].*)?$", re.IGNORECASE)
MIT = re.compile(r"licen[cs]e.*mit", re.IGNORECASE)


def cargo_metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    for more in (["--offline"], []):
        done = subprocess.run(command + more, cwd=ROOT, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
    sys.exit(done.stderr)


def linked(metadata):
    """The packages that the library's code comes from, kigo itself apart."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    seen, left = set(), [root]
    while left:
        one = left.pop()
        # What a macro is made of runs in the compiler.
        if one in seen or any("proc-macro" in target["kind"] for target in packages[one]["targets"]):
            continue
        seen.add(one)
        for dependency in nodes[one]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    seen.discard(root)
    return sorted((packages[one] for one in seen), key=lambda package: (package["name"], package["version"]))


def licence_files(package):
    """The files of the licence that is taken: MIT's where there is a choice, else all that there are."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if path.is_file() and ANY.match(path.name))
    alternatives = re.split(r" OR |/", (package["license"] or "").replace("(", "").replace(")", ""))
    if "MIT" in alternatives and " AND " not in (package["license"] or ""):
        files = [path for path in files if MIT.search(path.name)] or files
    return files


def written():
    parts = [HEAD]
    for package in linked(cargo_metadata()):
        title = f"{package['name']} {package['version']}: {package['license']}"
        parts.append(f"{'=' * 100}\n{title}\n{package['repository'] or ''}\n")
        files = licence_files(package)
        if not files:
            parts.append("(its sources have no text of the licence; by " + ", ".join(package["authors"]) + ")\n")
        for path in files:
            text = "\n".join(line.rstrip() for line in path.read_text("utf-8").strip().splitlines())
            parts.append(text + "\n")
    return "\n".join(parts)


path = ROOT / "THIRD-PARTY"
text = written()
if sys.argv[1:] == ["--check"]:
    if not path.is_file() or path.read_text("utf-8") != text:
        sys.exit("THIRD-PARTY is not current: scripts/third_party.py writes it")
else:
    path.write_text(text, "utf-8")
