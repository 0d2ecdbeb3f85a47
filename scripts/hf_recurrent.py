"""Layers with a state between GGUF and transformers, for hf_gguf.py: names, layouts and keys of LFM2, Qwen3-Next and Qwen3.5.

A file of Qwen3.5 has its value heads in another order than transformers: not by the key head that they go with, but in turn. One of
Qwen3-Next has them as transformers, whose first matrices it takes apart.
"""

import re

import numpy as np

LFM2 = ("lfm2", "lfm2moe")
DELTA = ("qwen35", "qwen35moe", "qwen3next")
LAYER_NAMES = {
    "conv.conv": "shortconv.conv",
    "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "feed_forward.gate": "ffn_gate_inp",
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_ba": "ssm_ba",
    "linear_attn.conv1d": "ssm_conv1d",
    "linear_attn.norm": "ssm_norm",
    "linear_attn.out_proj": "ssm_out",
}
WHOLE_NAMES = {"dt_bias": "ssm_dt.bias", "A_log": "ssm_a"}


def parts(hf_name: str) -> list:
    """The names in the file of what has another layout there; none where only its name differs."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.linear_attn\.(.+)", hf_name)
    if match is None:
        return []
    layer, name = match.groups()
    if name in WHOLE_NAMES:
        return [f"blk.{layer}.{WHOLE_NAMES[name]}"]
    if name == "in_proj_qkvz.weight":
        return [f"blk.{layer}.attn_qkv.weight", f"blk.{layer}.attn_gate.weight"]
    role = LAYER_NAMES["linear_attn." + name.rsplit(".", 1)[0]]
    return [f"blk.{layer}.{role}.weight"]


def tiled(arch: str, w: np.ndarray, axis: int, c, to_file: bool) -> np.ndarray:
    """Value heads along an axis, in the file's order or in transformers'."""
    if arch == "qwen3next":
        return w
    k, r = c.linear_num_key_heads, c.linear_num_value_heads // c.linear_num_key_heads
    w = np.moveaxis(w, axis, 0)
    heads = w.reshape(*((k, r) if to_file else (r, k)), w.shape[0] // (k * r), *w.shape[1:])
    return np.moveaxis(heads.swapaxes(0, 1).reshape(w.shape), 0, axis)


def split_qkvz(w: np.ndarray, c) -> list:
    """By key head queries, keys, values and gates, as the rows of all queries, keys and values, and those of the gates."""
    r = c.linear_num_value_heads // c.linear_num_key_heads
    ends = np.cumsum([c.linear_key_head_dim, c.linear_key_head_dim, r * c.linear_value_head_dim])
    cuts = np.split(w.reshape(c.linear_num_key_heads, -1, w.shape[-1]), ends, axis=1)
    q, k, v, z = (cut.reshape(-1, w.shape[-1]) for cut in cuts)
    return [np.concatenate([q, k, v]), z]


def join_qkvz(qkv: np.ndarray, z: np.ndarray, c) -> np.ndarray:
    """The inverse of `split_qkvz`."""
    keys, heads = c.linear_num_key_heads * c.linear_key_head_dim, c.linear_num_key_heads
    cuts = [part.reshape(heads, -1, z.shape[-1]) for part in (*np.split(qkv, [keys, 2 * keys]), z)]
    return np.concatenate(cuts, axis=1).reshape(-1, z.shape[-1])


def moved(arch: str, name: str, w: np.ndarray, c, to_file: bool) -> np.ndarray:
    """A tensor of a DeltaNet with the value heads of the file, or of transformers."""
    keys = 2 * c.linear_num_key_heads * c.linear_key_head_dim
    if "attn_qkv" in name or "ssm_conv1d" in name:
        return np.concatenate([w[:keys], tiled(arch, w[keys:], 0, c, to_file)])
    if "ssm_norm" in name:
        return w
    return tiled(arch, w, 1 if "ssm_out" in name else 0, c, to_file)


def cut(arch: str, names: list, w: np.ndarray, c) -> list:
    """The parts of a tensor of transformers."""
    if len(names) == 2:
        return split_qkvz(w, c)
    if names[0].endswith("ssm_a"):
        w = -np.exp(w)
    if names[0].endswith("ssm_conv1d.weight"):
        w = w[:, 0]
    return [w if "ssm_ba" in names[0] else moved(arch, names[0], w, c, to_file=True)]


def joined(arch: str, names: list, cuts: list, c, shape: tuple) -> np.ndarray:
    """The inverse of `cut`."""
    if len(names) == 2:
        return join_qkvz(*cuts, c)
    w = cuts[0] if "ssm_ba" in names[0] else moved(arch, names[0], cuts[0], c, to_file=False)
    return (np.log(-w) if names[0].endswith("ssm_a") else w).reshape(shape)


def add_keys(w, arch: str, c) -> None:
    """The keys of layers with a state."""
    if arch in LFM2:
        w.add_shortconv_l_cache(c.conv_L_cache)
    if arch in DELTA:
        w.add_ssm_conv_kernel(c.linear_conv_kernel_dim)
        w.add_ssm_state_size(c.linear_key_head_dim)
        w.add_ssm_group_count(c.linear_num_key_heads)
        w.add_ssm_time_step_rank(c.linear_num_value_heads)
        w.add_ssm_inner_size(c.linear_value_head_dim * c.linear_num_value_heads)
        w.add_array(f"{arch}.attention.recurrent_layers", [kind == "linear_attention" for kind in c.layer_types])
    if arch in ("qwen35", "qwen35moe"):
        w.add_rope_dimension_sections([11, 11, 10, 0])


def n_kv_heads(arch: str, c):
    """As many as a layer has, or one number for all."""
    if arch in LFM2:
        return [0 if kind == "conv" else c.num_key_value_heads for kind in c.layer_types]
    return getattr(c, "num_key_value_heads", c.num_attention_heads)
