"""Models with Mamba2 between GGUF and transformers, for hf_gguf.py: names, layouts and keys of Granite 4 (H), Falcon-H1 and Nemotron-H.

A file has the decays themselves in the place of their logarithms, a column of them, norms by group, and Falcon-H1's multipliers in the
weights: factors of two are exact there. llama.cpp's converter (of llama_cpp_python 0.3.36) writes the same tensors, but that it reorders
Nemotron-H's rows of q and k, which nothing turns.
"""

import re

import gguf
import numpy as np

NEMOTRON = ("nemotron_h", "nemotron_h_moe")
ARCHS = ("granitehybrid", "falcon-h1", *NEMOTRON)
MIXER = {
    "dt_bias": "ssm_dt.bias",
    "A_log": "ssm_a",
    "D": "ssm_d",
    "in_proj.weight": "ssm_in.weight",
    "conv1d.weight": "ssm_conv1d.weight",
    "conv1d.bias": "ssm_conv1d.bias",
    "norm.weight": "ssm_norm.weight",
    "out_proj.weight": "ssm_out.weight",
}
ATTENTION = {f"{part}_proj.weight": f"attn_{name}.weight" for part, name in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output"))}
# What one of a layer of Nemotron-H has; a layer is one of them.
ONE_OF = MIXER | ATTENTION | {
    "up_proj.weight": "ffn_up.weight",
    "down_proj.weight": "ffn_down.weight",
    "gate.weight": "ffn_gate_inp.weight",
    "gate.e_score_correction_bias": "exp_probs_b.bias",
    "experts.up_proj": "ffn_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
    "shared_experts.up_proj.weight": "ffn_up_shexp.weight",
    "shared_experts.down_proj.weight": "ffn_down_shexp.weight",
}
LAYER_NAMES = {
    "granitehybrid": {f"mamba.{name}": role for name, role in MIXER.items()},
    "falcon-h1": {f"mamba.{name}": role for name, role in MIXER.items()}
    | {f"self_attn.{name}": role for name, role in ATTENTION.items()}
    | {f"feed_forward.{part}_proj.weight": f"ffn_{part}.weight" for part in ("gate", "up", "down")}
    | {"pre_ff_layernorm.weight": "ffn_norm"},
} | {arch: {f"mixer.{name}": role for name, role in ONE_OF.items()} | {"norm.weight": "attn_norm.weight"} for arch in NEMOTRON}
MODEL_NAMES = {
    "falcon-h1": {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight"},
} | {arch: {"model.embeddings.weight": "token_embd.weight", "model.norm_f.weight": "output_norm.weight"} for arch in NEMOTRON}


def parts(arch: str, hf_name: str, c) -> list:
    """The names in the file of a parameter that has another name or layout there; none of others."""
    if hf_name in MODEL_NAMES.get(arch, {}):
        return [MODEL_NAMES[arch][hf_name]]
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", hf_name)
    if match is None or arch not in LAYER_NAMES:
        return []
    layer, name = match.groups()
    if arch == "granitehybrid" and not c.num_local_experts and name.startswith("shared_mlp."):
        return [f"blk.{layer}.ffn_{part}.weight" for part in (["gate", "up"] if "input" in name else ["down"])]
    return [f"blk.{layer}.{LAYER_NAMES[arch][name]}"] if name in LAYER_NAMES[arch] else []


def multiplier(arch: str, name: str, c):
    """What a tensor of the file has been multiplied with: a number, or a column of one a row."""
    if arch != "falcon-h1":
        return 1.0
    role = name.split(".", 2)[-1]
    if role == "ssm_in.weight":
        groups = c.mamba_n_groups * c.mamba_d_state
        of_part = [c.mamba_d_ssm, c.mamba_d_ssm, groups, groups, c.mamba_n_heads]
        return c.ssm_in_multiplier * np.repeat(np.array(c.ssm_multipliers, dtype=np.float32), of_part)[:, None]
    return {
        "token_embd.weight": c.embedding_multiplier,
        "output.weight": c.lm_head_multiplier,
        "attn_q.weight": c.attention_in_multiplier,
        "attn_k.weight": c.attention_in_multiplier * c.key_multiplier,
        "attn_v.weight": c.attention_in_multiplier,
        "attn_output.weight": c.attention_out_multiplier,
        "ffn_gate.weight": c.mlp_multipliers[0],
        "ffn_down.weight": c.mlp_multipliers[1],
        "ssm_out.weight": c.ssm_out_multiplier,
    }.get(name if role == "weight" else role, 1.0)


def cut(arch: str, names: list, w: np.ndarray, c) -> list:
    """The parts of a tensor of transformers."""
    if len(names) == 2:
        return np.split(w, 2)
    if names[0].endswith("ssm_a"):
        w = -np.exp(w)
    if names[0].endswith(("ssm_a", "ssm_d")):
        w = w[:, None]
    if names[0].endswith("ssm_conv1d.weight"):
        w = w[:, 0]
    if names[0].endswith("ssm_norm.weight"):
        w = w.reshape(c.n_groups if arch in NEMOTRON else c.mamba_n_groups, -1)
    return [(w * multiplier(arch, names[0], c)).astype(np.float32)]


def joined(arch: str, names: list, cuts: list, c, shape: tuple) -> np.ndarray:
    """The inverse of `cut`."""
    w = np.concatenate(cuts) if len(names) == 2 else cuts[0] / multiplier(arch, names[0], c)
    return (np.log(-w) if names[0].endswith("ssm_a") else w).reshape(shape).astype(np.float32)


def add_keys(w: gguf.GGUFWriter, arch: str, c) -> None:
    """The keys of Mamba2, and what else only these architectures have."""
    if arch not in ARCHS:
        return
    if arch in NEMOTRON:
        sizes = (c.conv_kernel, c.ssm_state_size, c.n_groups, c.mamba_num_heads, c.mamba_num_heads * c.mamba_head_dim)
    else:
        inner = c.mamba_d_ssm if arch == "falcon-h1" else c.mamba_expand * c.hidden_size
        sizes = (c.mamba_d_conv, c.mamba_d_state, c.mamba_n_groups, c.mamba_n_heads, inner)
    w.add_ssm_conv_kernel(sizes[0])
    w.add_ssm_state_size(sizes[1])
    w.add_ssm_group_count(sizes[2])
    w.add_ssm_time_step_rank(sizes[3])
    w.add_ssm_inner_size(sizes[4])
    if arch == "granitehybrid":
        w.add_rope_scaling_finetuned(c.position_embedding_type == "rope")
    if arch == "nemotron_h_moe":
        w.add_expert_shared_feed_forward_length(c.moe_shared_expert_intermediate_size)
        w.add_expert_shared_count(c.n_shared_experts)
        w.add_expert_weights_norm(c.norm_topk_prob)
        w.add_expert_weights_scale(c.routed_scaling_factor)
        w.add_expert_group_count(c.n_group)


def n_kv_heads(arch: str, c):
    """As many as each layer has, where not all have some; else nothing."""
    if arch not in ("granitehybrid", *NEMOTRON):
        return None
    return [c.num_key_value_heads if kind == "full_attention" else 0 for kind in c.layers_block_type]


def widths(arch: str, c):
    """The feed-forward lengths, where they differ."""
    if arch not in NEMOTRON:
        return None
    of_kind = {"mlp": c.intermediate_size, "moe": c.moe_intermediate_size}
    return [of_kind.get(kind, 0) for kind in c.layers_block_type]
