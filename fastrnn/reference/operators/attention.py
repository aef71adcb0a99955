"""Attention, and the layers of transformers that torch runs as one operator in inference.

Formulas: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
"""

from __future__ import annotations

import math

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.activations import gelu, relu
from fastrnn.reference.operators.normalisation import layer_norm
from fastrnn.reference.operators.products import linear
from fastrnn.reference.operators.promotion import category, wide

# ---------------------------------------------------------------- of queries, keys and values


def _attend(
    query: Array, key: Array, value: Array, bias: Array, scale: float | None
) -> tuple[Array, Array, Array]:
    """Return the output, the weights, and the logarithms of the sums of powers, in wide floats.

    A query that may see no key has weights 0, and the logarithm 0.
    """
    dtypes = {str(array.dtype) for array in (query, key, value)}
    if len(dtypes) > 1 or category(query.dtype) != 2:
        raise TypeError("All must be floats of one dtype.")
    if min(query.ndim, key.ndim, value.ndim) < 2 or query.shape[-1] != key.shape[-1]:
        raise ValueError("Queries and keys must be rows of one size.")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("There must be a value for each key.")
    q, k, v = (array.astype(wide(array.dtype)) for array in (query, key, value))
    factor = 1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale
    scores = q @ k.swapaxes(-1, -2) * factor + bias
    most = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - np.where(np.isneginf(most), 0, most))
    sums = powers.sum(axis=-1, keepdims=True)
    weights = np.where(sums == 0, 0, powers / sums)
    logarithms = np.where(sums == 0, 0, np.log(sums) + most)[..., 0]
    return weights @ v, weights, logarithms


def _bias(query: Array, key: Array, attn_mask: Array | None, is_causal: bool) -> Array:
    """Return what is added to the scores: -inf where a query may not see a key."""
    bias = np.zeros((query.shape[-2], key.shape[-2]))
    if is_causal:
        if attn_mask is not None:
            raise ValueError("It takes a mask or is_causal.")
        bias[np.triu_indices_from(bias, 1)] = -np.inf
    if attn_mask is None:
        return bias
    if attn_mask.dtype == bool:
        return np.where(attn_mask, 0.0, -np.inf)
    if attn_mask.dtype != query.dtype:
        raise TypeError("The mask must be bool, or floats of the queries' dtype.")
    return attn_mask.astype(np.float64)


def _check_no_dropout(dropout_p: float) -> None:
    if dropout_p:
        raise ValueError("There is no training here: call eval() on the module.")


def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Array:
    """Return softmax(scale * query @ key.T + mask) @ value. A bool mask says which keys a query sees.

    With enable_gqa, heads of keys and values are repeated for groups of heads of queries.
    """
    _check_no_dropout(dropout_p)
    if enable_gqa:
        heads = query.shape[-3]
        if heads % key.shape[-3] or heads % value.shape[-3]:
            raise ValueError("The heads of queries must be a multiple of those of keys and values.")
        key, value = (np.repeat(array, heads // array.shape[-3], -3) for array in (key, value))
    bias = _bias(query, key, attn_mask, is_causal)
    return _attend(query, key, value, bias, scale)[0].astype(query.dtype)


def _scaled_dot_product_flash_attention_for_cpu(
    query: Array,
    key: Array,
    value: Array,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    attn_mask: Array | None = None,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """Return attention, and the logarithms of the sums of exp(scores)."""
    _check_no_dropout(dropout_p)
    bias = _bias(query, key, attn_mask, is_causal)
    output, _, logarithms = _attend(query, key, value, bias, scale)
    return output.astype(query.dtype), logarithms.astype(query.dtype)


# ---------------------------------------------------------------- whole modules


def _native_multi_head_attention(
    query: Array,
    key: Array,
    value: Array,
    embed_dim: int,
    num_head: int,
    qkv_weight: Array,
    qkv_bias: Array,
    proj_weight: Array,
    proj_bias: Array,
    mask: Array | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Array, Array | None]:
    """Return what torch.nn.MultiheadAttention does to (B, T, E), and its weights, of all heads or averaged.

    A query may not see a key where the mask is not 0, also if it holds floats. mask_type 0 is (T, T), 1 is
    (B, T), 2 is (B, heads, T, T). The results of a query that may see no key are NaN. Without need_weights
    the second result is None.
    """
    B, T, E = query.shape
    if E != embed_dim or E % num_head or key.shape != value.shape or key.shape[::2] != (B, E):
        raise ValueError("Queries, keys and values must be (B, T, embed_dim), which the heads divide.")
    weights, biases = np.split(qkv_weight, 3), np.split(qkv_bias, 3)
    q, k, v = (
        linear(x, w, b).reshape(B, x.shape[1], num_head, E // num_head).swapaxes(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    bias = _module_bias(mask, mask_type)
    blind = np.where(np.isneginf(bias).all(axis=-1, keepdims=True), np.nan, 0)
    output, found = (result + blind for result in _attend(q, k, v, bias, None)[:2])
    joined = output.swapaxes(1, 2).reshape(B, T, E).astype(query.dtype)
    result = linear(joined, proj_weight, proj_bias)
    if not need_weights:
        return result, None
    return result, (found.mean(axis=1) if average_attn_weights else found).astype(query.dtype)


def _module_bias(mask: Array | None, mask_type: int | None) -> Array:
    """Return what is added to scores (B, heads, T, T)."""
    if mask is None:
        return np.zeros(1)
    bias = np.where(mask, -np.inf, 0.0)
    axes = {0: 2, 1: 2, 2: 4}
    if mask_type not in axes or mask.ndim != axes[mask_type]:
        raise ValueError("mask_type must be 0 for (T, T), 1 for (B, T), 2 for (B, heads, T, T).")
    return bias[:, None, None] if mask_type == 1 else bias


def _transformer_encoder_layer_fwd(
    src: Array,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Array,
    qkv_bias: Array,
    proj_weight: Array,
    proj_bias: Array,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Array,
    norm_bias_1: Array,
    norm_weight_2: Array,
    norm_bias_2: Array,
    ffn_weight_1: Array,
    ffn_bias_1: Array,
    ffn_weight_2: Array,
    ffn_bias_2: Array,
    mask: Array | None = None,
    mask_type: int | None = None,
) -> Array:
    """Return what torch.nn.TransformerEncoderLayer does to (B, T, E)."""

    def attended(x: Array) -> Array:
        parameters = (qkv_weight, qkv_bias, proj_weight, proj_bias)
        sizes = (embed_dim, num_heads)
        return _native_multi_head_attention(x, x, x, *sizes, *parameters, mask, False, True, mask_type)[0]

    def fed_forward(x: Array) -> Array:
        hidden = linear(x, ffn_weight_1, ffn_bias_1)
        return linear(gelu(hidden) if use_gelu else relu(hidden), ffn_weight_2, ffn_bias_2)

    def first(x: Array) -> Array:
        return layer_norm(x, embed_dim, norm_weight_1, norm_bias_1, eps)

    def second(x: Array) -> Array:
        return layer_norm(x, embed_dim, norm_weight_2, norm_bias_2, eps)

    if norm_first:
        x = src + attended(first(src))
        return x + fed_forward(second(x))
    x = first(src + attended(src))
    return second(x + fed_forward(x))


ALIASES = {
    "_native_multi_head_attention": "_native_multi_head_attention",
    "_scaled_dot_product_flash_attention_for_cpu": "_scaled_dot_product_flash_attention_for_cpu",
    "_transformer_encoder_layer_fwd": "_transformer_encoder_layer_fwd",
}
