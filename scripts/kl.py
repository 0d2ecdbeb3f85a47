"""Compares logits with the reference's: agreement of the most likely token and KL divergence.

    python scripts/kl.py --model FILE.gguf --logits FILE.npy [--truth DIR] [--label NAME]

`--logits` is f32 [positions, n_vocab]: .npy (kl_kigo.py --save, compare_llama_cpp.py --save) or raw, little endian.
The reference is DIR/STEM.npy, STEM being the model's file name without .gguf, as kl_truth.py makes it. Prints one line:

    agree      share of positions whose most likely token is the reference's (ties: the lowest id)
    agree>1    the same over the positions where the reference's first two logits are more than 1.0 apart
    KL         mean and maximum over positions of KL(reference || x), in nats, computed in f64
"""

import argparse
import os
import sys

import numpy as np


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def load_logits(path: str, n_vocab: int) -> np.ndarray:
    if path.endswith(".npy"):
        return np.load(path, mmap_mode="r")
    return np.memmap(path, dtype="<f4", mode="r").reshape(-1, n_vocab)


def compare(truth, logits) -> dict:
    """Both [positions, n_vocab], as an array or a list of rows."""
    if len(truth) != len(logits) or truth[0].shape != logits[0].shape:
        raise SystemExit(f"shapes differ: reference {len(truth)} x {truth[0].shape}, logits {len(logits)} x {logits[0].shape}")
    same, gap, kl = [], [], []
    for t, x in zip(truth, logits):
        if not np.isfinite(x).all():
            raise SystemExit("logits that are not finite")
        second, first = np.partition(t, -2)[-2:]
        same.append(int(t.argmax()) == int(x.argmax()))
        gap.append(float(first) - float(second))
        p = log_softmax(t)
        kl.append(float(np.sum(np.exp(p) * (p - log_softmax(x)))))
    same, gap, kl = np.array(same), np.array(gap), np.array(kl)
    return {
        "positions": len(same),
        "agree": float(same.mean()),
        "wide": int((gap > 1).sum()),
        "agree_wide": float(same[gap > 1].mean()),
        "kl_mean": float(kl.mean()),
        "kl_max": float(kl.max()),
        "kl_max_at": int(kl.argmax()),
    }


def line(label: str, r: dict) -> str:
    return (
        f"{label}: {r['positions']} positions, agree {100 * r['agree']:.2f}%, "
        f"agree>1 {100 * r['agree_wide']:.2f}% of {r['wide']}, "
        f"KL mean {r['kl_mean']:.3e} max {r['kl_max']:.3e} (position {r['kl_max_at']})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--logits", required=True)
    parser.add_argument("--truth", default=os.environ.get("KIGO_TRUTH", "truth"), help="folder of kl_truth.py's output")
    parser.add_argument("--label")
    args = parser.parse_args()
    stem = os.path.splitext(os.path.basename(args.model))[0]
    truth = np.load(os.path.join(args.truth, f"{stem}.npy"), mmap_mode="r")
    result = compare(truth, load_logits(args.logits, truth.shape[1]))
    print(line(args.label or os.path.basename(args.logits), result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
