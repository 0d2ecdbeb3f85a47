"""Gemma 4 and models with latent attention between GGUF and transformers, for hf_gguf.py: names, layouts and keys.

Gemma 4's layers are of two kinds with heads of their own; a file has the matrices of latents' keys and values apart (`split`), the
former transposed, or both in one, as older files have.
"""

import re

import gguf
import numpy as np

LAYER_NAMES = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "router.proj": "ffn_gate_inp",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
}
MODEL_NAMES = {
    "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj",
    "model.per_layer_projection_norm": "per_layer_proj_norm",
}
# Names that have no kind behind a point, or another one.
WHOLE_NAMES = {
    "layer_scalar": "layer_output_scale.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
}
# Those whose lengths of heads are written here.
OWN_HEADS = ("gemma4", "deepseek2")


def parts(arch: str, hf_name: str, split: bool) -> list:
    """The names in the file of a parameter that is cut there or has a name of its own; none of others."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", hf_name)
    if match is None or arch not in OWN_HEADS:
        return []
    layer, name = match.groups()
    if name in WHOLE_NAMES:
        return [f"blk.{layer}.{WHOLE_NAMES[name]}"]
    if name == "self_attn.kv_b_proj.weight":
        return [f"blk.{layer}.attn_{part}.weight" for part in (("k_b", "v_b") if split else ("kv_b",))]
    return []


def cut(names: list, c, w: np.ndarray) -> list:
    """The parts of a tensor of transformers."""
    if len(names) == 1:
        return [w]
    heads = w.reshape(c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim, -1)
    return [heads[:, : c.qk_nope_head_dim].swapaxes(1, 2), heads[:, c.qk_nope_head_dim :]]


def joined(names: list, c, cuts: list, shape: tuple) -> np.ndarray:
    """The inverse of `cut`."""
    w = cuts[0] if len(names) == 1 else np.concatenate([cuts[0].swapaxes(1, 2), cuts[1]], axis=1)
    return w.reshape(shape)


def widths(arch: str, c):
    """The feed-forward lengths, where they differ."""
    if arch != "gemma4" or not c.use_double_wide_mlp:
        return None
    own = c.num_hidden_layers - c.num_kv_shared_layers
    return [c.intermediate_size * (1 if layer < own else 2) for layer in range(c.num_hidden_layers)]


def add_keys(w: gguf.GGUFWriter, arch: str, c, split: bool) -> None:
    """Keys of heads, and what else only these architectures have."""
    if arch == "gemma4":
        add_gemma4(w, c)
        return
    w.add_head_count_kv(1 if split else c.num_attention_heads)
    if c.q_lora_rank is not None:
        w.add_q_lora_rank(c.q_lora_rank)
    w.add_kv_lora_rank(c.kv_lora_rank)
    q_dim = c.qk_nope_head_dim + c.qk_rope_head_dim
    if split:
        w.add_key_length(c.kv_lora_rank + c.qk_rope_head_dim)
        w.add_value_length(c.kv_lora_rank)
        w.add_key_length_mla(q_dim)
        w.add_value_length_mla(c.v_head_dim)
    else:
        w.add_key_length(q_dim)
        w.add_value_length(c.v_head_dim)
    layers = getattr(c, "mlp_layer_types", None)
    w.add_leading_dense_block_count(layers.index("sparse") if layers else c.first_k_dense_replace)
    w.add_expert_shared_count(c.n_shared_experts)
    w.add_expert_weights_scale(c.routed_scaling_factor)
    if layers:
        w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        w.add_expert_weights_norm(c.norm_topk_prob)
        w.add_expert_group_count(c.n_group)
        w.add_expert_group_used_count(c.topk_group)


def add_gemma4(w: gguf.GGUFWriter, c) -> None:
    """The keys of Gemma 4, those of its ropes too."""
    windowed = [kind == "sliding_attention" for kind in c.layer_types]
    sizes = [c.per_layer_config[layer] for layer in range(c.num_hidden_layers)]
    full, local = sizes[windowed.index(False)], sizes[windowed.index(True)]
    w.add_key_length(full.head_dim)
    w.add_value_length(full.head_dim)
    w.add_key_length_swa(local.head_dim)
    w.add_value_length_swa(local.head_dim)
    kv_heads = [size.num_key_value_heads for size in sizes]
    w.add_head_count_kv(kv_heads if len(set(kv_heads)) > 1 else kv_heads[0])
    w.add_sliding_window_pattern(windowed)
    w.add_shared_kv_layers(c.num_kv_shared_layers)
    w.add_embedding_length_per_layer_input(c.hidden_size_per_layer_input or 0)
    if c.final_logit_softcapping:
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    w.add_rope_freq_base(c.rope_parameters["full_attention"]["rope_theta"])
    w.add_rope_freq_base_swa(c.rope_parameters["sliding_attention"]["rope_theta"])
    w.add_rope_dimension_count(full.head_dim)
    w.add_rope_dimension_count_swa(local.head_dim)


def more_tensors(arch: str, c) -> list:
    """`(name, tensor)` of what is no parameter."""
    if arch != "gemma4":
        return []
    full = c.per_layer_config["full_attention"].head_dim // 2
    turned = int(c.rope_parameters["full_attention"]["partial_rotary_factor"] * full)
    # What is not turned is divided until nothing is left.
    return [("rope_freqs.weight", np.array([1.0] * turned + [1e30] * (full - turned), dtype=np.float32))]
