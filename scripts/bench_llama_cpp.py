"""Kigo beside llama.cpp on the same files and threads: runs both in turn and prints a table of medians and ratios.

    python scripts/bench_llama_cpp.py --llama-bench PATH [--bench build/bench] [-t 2] [--rounds 5] FILE.gguf...

Each round runs llama-bench and Kigo's bench once each on every file (512 tokens of prompt, 128 tokens of decode), one
after the other, so that what else the machine does falls on both. llama-bench is asked for one repetition a round.
"""

import argparse
import json
import os
import statistics
import subprocess


def llama(program: str, file: str, threads: int) -> dict:
    command = [program, "-m", file, "-t", str(threads), "-p", "512", "-n", "128", "-r", "1", "-o", "json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"pp512" if row["n_prompt"] else "tg128": row["avg_ts"] for row in rows}


def kigo(program: str, file: str, threads: int) -> dict:
    command = [program, "-m", file, "-t", str(threads), "-p", "512", "-n", "128", "-r", "1", "--device", "cpu", "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {row["test"]: row["tokens_per_s"] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--bench", default="build/bench")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()

    print("| file | decode, tok/s | llama.cpp | ratio | prefill 512, tok/s | llama.cpp | ratio |")
    print("|---|---|---|---|---|---|---|")
    for file in args.files:
        both = []
        for _ in range(args.rounds):
            ours = kigo(args.bench, file, args.threads)
            both.append((ours, llama(args.llama_bench, file, args.threads)))
        cells = []
        for test in ("tg128", "pp512"):
            a = statistics.median(ours[test] for ours, _ in both)
            b = statistics.median(theirs[test] for _, theirs in both)
            cells += [f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}"]
        name = os.path.basename(file).removesuffix(".gguf")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
