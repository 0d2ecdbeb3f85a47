"""Makes tests/fixtures/truth_STEM.json from kl_truth.py's reference: what tests/api/truth.rs compares a device with.

    python scripts/kl_fixture.py --model FILE.gguf --truth DIR [--peer FILE.npy]

Takes the first 50 tokens of five prompts and every second position of them, hence 125 positions in all, and keeps of
each the reference's most likely tokens with their log probabilities. `--peer` is another program's logits over all
positions (compare_llama_cpp.py --save), whose agreement and divergence over the kept positions are stored beside.
"""

import argparse
import json
import os

import numpy as np

import kl

N_TOKENS = 50
STEP = 2
N_TOP = 16
PROMPTS = [0, 2, 4, 8, 16]  # prose, code, chat, Chinese, arithmetic


def coarse_kl(top: list, x: np.ndarray) -> float:
    """KL over the kept tokens and one more class for all the others: at most the full one."""
    ids, p = np.array([i for i, _ in top]), np.exp(np.array([lp for _, lp in top]))
    q = np.exp(kl.log_softmax(x)[ids])
    rest = max(1 - p.sum(), 0.0)
    tail = rest * np.log(rest / (1 - q.sum())) if rest > 0 else 0.0
    return float((p * np.log(p / q)).sum() + tail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--peer")
    args = parser.parse_args()
    stem = os.path.splitext(os.path.basename(args.model))[0]
    with open(os.path.join(args.truth, f"{stem}.tokens.json")) as f:
        source = json.load(f)
    truth = np.load(os.path.join(args.truth, f"{stem}.npy"), mmap_mode="r")
    peer = np.load(args.peer, mmap_mode="r") if args.peer else None

    starts = np.cumsum([0] + [len(p) for p in source["prompts"]])
    prompts, peer_same, peer_kl = [], [], []
    for i in PROMPTS:
        rows = []
        for position in range(STEP - 1, N_TOKENS, STEP):
            t = truth[starts[i] + position]
            order = np.lexsort((np.arange(len(t)), -t))[:N_TOP]  # ties: the lowest id first
            log_p = kl.log_softmax(t)
            top = [[int(k), round(float(log_p[k]), 7)] for k in order]
            rows.append({"position": position, "gap": round(float(t[order[0]]) - float(t[order[1]]), 6), "top": top})
            if peer is not None:
                x = peer[starts[i] + position]
                peer_same.append(int(x.argmax()) == top[0][0])
                peer_kl.append(coarse_kl(top, x))
        prompts.append({"tokens": source["prompts"][i][:N_TOKENS], "rows": rows})
    fixture = {
        "model": source["model"],
        "file_bytes": os.path.getsize(args.model),
        "versions": source["versions"],
        "step": STEP,
        "prompts": prompts,
    }
    if peer is not None:
        fixture["peer"] = {"name": "llama.cpp", "agree": float(np.mean(peer_same)), "kl": float(np.mean(peer_kl))}
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(here, "..", "tests", "fixtures", f"truth_{stem}.json")
    with open(path, "w") as f:
        json.dump(fixture, f, separators=(",", ":"))
        f.write("\n")
    print(f"{path}: {os.path.getsize(path)} bytes, peer {fixture.get('peer')}")


if __name__ == "__main__":
    main()
