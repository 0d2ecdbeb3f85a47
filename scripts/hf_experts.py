"""Feed-forward parts of experts between GGUF and transformers, for hf_gguf.py: names, layouts and keys.

transformers stacks the experts of a layer as a file does, but has the rows of gate and up in one tensor: one behind the other, or, of
gpt-oss, in turn and transposed.
"""

import re

import gguf
import numpy as np

LAYER_NAMES = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
    "block_sparse_moe.router": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "shared_mlp.output_linear": "ffn_down_shexp",
} | {f"mlp.shared_expert{s}.{part}_proj": f"ffn_{part}_shexp" for s in ("", "s") for part in ("gate", "up", "down")}
WHOLE_NAMES = {
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "feed_forward.expert_bias": "exp_probs_b.bias",
    "mlp.gate.moe_statics.e_score_correction_bias": "exp_probs_b.bias",
    "self_attn.sinks": "attn_sinks.weight",
}
# What has the rows of gate and up, or stacks the rows of down, and the names of its parts.
STACKS = re.compile(r"(?:mlp|block_sparse_moe|feed_forward)\.experts\.(gate_up|down)_proj(_bias)?|shared_mlp\.(input)_linear\.weight")


def parts(arch: str, hf_name: str) -> list:
    """The names in the file of what is otherwise cut there; none where it is one tensor with a name of `kind`."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", hf_name)
    if match is None:
        return []
    layer, name = match.groups()
    if name in WHOLE_NAMES:
        return [f"blk.{layer}.{WHOLE_NAMES[name]}"]
    stack = STACKS.fullmatch(name)
    if stack is None:
        return []
    what, bias, shared = stack.groups()
    kind, suffix = ("shexp", "weight") if shared else ("exps", "bias" if bias else "weight")
    return [f"blk.{layer}.ffn_{part}_{kind}.{suffix}" for part in (["down"] if what == "down" else ["gate", "up"])]


def cut(arch: str, names: list, w: np.ndarray) -> list:
    """The parts of a tensor of transformers."""
    if names[0].endswith(("exp_probs_b.bias", "attn_sinks.weight")):
        return [w.reshape(-1)]
    if arch == "gpt-oss":
        rows = w.swapaxes(1, 2) if w.ndim == 3 else w
        return [rows] if len(names) == 1 else [rows[:, 0::2], rows[:, 1::2]]
    return np.split(w, len(names), axis=-2)


def joined(arch: str, cuts: list, shape: tuple) -> np.ndarray:
    """The inverse of `cut`."""
    if len(cuts) == 2 and arch == "gpt-oss":
        cuts = [np.stack(cuts, axis=2).reshape(cuts[0].shape[0], -1, *cuts[0].shape[2:])]
    w = cuts[0] if len(cuts) == 1 else np.concatenate(cuts, axis=-2)
    return w.swapaxes(1, 2) if arch == "gpt-oss" and w.ndim == 3 else w.reshape(shape)


def add_keys(w: gguf.GGUFWriter, arch: str, c) -> None:
    """The keys of a configuration's experts, if it has some."""
    n = next((getattr(c, k) for k in ("num_local_experts", "num_experts", "moe_num_experts") if hasattr(c, k)), None)
    # Of Nemotron-H without experts it is what its configuration has all the same.
    if n is None or arch == "nemotron_h":
        return
    w.add_expert_count(n)
    w.add_expert_used_count(getattr(c, "top_k_experts", None) or c.num_experts_per_tok)
    width = getattr(c, "moe_intermediate_size", None) or (c.intermediate_size if arch == "gpt-oss" else None)
    if width is not None:
        w.add_expert_feed_forward_length(width)
    shared = getattr(c, "shared_expert_intermediate_size", None) or getattr(c, "shared_intermediate_size", None)
    if arch == "ernie4_5-moe":
        w.add_interleave_moe_layer_step(c.moe_layer_interval)
        w.add_leading_dense_block_count(c.moe_layer_start_index)
        w.add_expert_shared_count(c.moe_num_shared_experts)
        shared = width * c.moe_num_shared_experts
    if shared:
        w.add_expert_shared_feed_forward_length(shared)
    if arch == "lfm2moe":
        w.add_leading_dense_block_count(c.num_dense_layers)
        w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        w.add_expert_weights_scale(c.routed_scaling_factor)
        w.add_expert_weights_norm(c.norm_topk_prob)
    if arch == "glm4moe":
        w.add_expert_shared_count(c.n_shared_experts)
        w.add_leading_dense_block_count(c.first_k_dense_replace)
        w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        w.add_expert_weights_scale(c.routed_scaling_factor)
        w.add_expert_weights_norm(c.norm_topk_prob)
        w.add_expert_group_count(c.n_group)
        w.add_expert_group_used_count(c.topk_group)
