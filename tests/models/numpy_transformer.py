"""A transformer in plain NumPy loops, a row at a time in float64: what the package's blocks are compared with."""

import math
from typing import Any

import numpy as np


def rms(x, eps=1e-5):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)


def layer(x, p, name, l=None, eps=1e-5):
    """A LayerNorm whose parameters have that name, of layer l."""
    scale, bias = (p.get(f"{name}_{part}") for part in ("scale", "bias"))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    x = x * (scale if l is None else scale[l])
    return x if bias is None else x + (bias if l is None else bias[l])


def turned(x_H, position, base, rope=None):
    """Pairs (i, i + H / 2) as complex numbers, times e^(i angle); `rope` is a RopeConfig."""
    half = len(x_H) // 2
    rates = [scaled(base ** (-i / half), i, half, base, rope) for i in range(half)]
    z = (x_H[:half] + 1j * x_H[half:]) * np.exp(1j * position * np.array(rates))
    return np.concatenate([z.real, z.imag]) * (1 if rope is None else rope.amplitude)


def scaled(rate, i, half, base, rope):
    """The rate of pair i as the papers have it, by cases."""
    if rope is None:
        return rate
    if rope.scaling == "linear":
        return rate / rope.factor
    if rope.scaling == "llama3":
        turns = rope.original_context * rate / (2 * math.pi)
        if turns < rope.low:
            return rate / rope.factor
        if turns > rope.high:
            return rate
        smooth = (turns - rope.low) / (rope.high - rope.low)
        return (1 - smooth) * rate / rope.factor + smooth * rate
    ends = [half * math.log(rope.original_context / (b * 2 * math.pi), base) for b in (rope.beta_fast, rope.beta_slow)]
    first, last = max(math.floor(ends[0]), 0), min(math.ceil(ends[1]), 2 * half - 1)
    share = 0 if i <= first else 1 if i >= last else (i - first) / (last - first)
    return rate * (1 - share) + rate / rope.factor * share


def gpt_logits(settings: dict[str, Any], params: dict[str, Any], tok_T) -> np.ndarray:
    """logits_TV of one row of tokens; `settings` are those of a GptConfig that differ from its defaults."""
    get, p = settings.get, {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    T, L, N, D = len(tok_T), settings["n_layers"], settings["n_heads"], settings["d_model"]
    K, H, eps = get("n_kv_heads") or N, get("d_head") or D // N, get("norm_eps", 1e-5)
    pattern, short = get("window_pattern", "L"), get("window") or settings["context"] // 2

    def norm(x, name, l=None):
        if get("norm") == "rms":
            return rms(x, eps) * (p[f"{name}_scale"] if l is None else p[f"{name}_scale"][l])
        return layer(x, p, name, l, eps)

    def product(x, name, l):
        y = np.einsum("td,d...->t...", x, p[name][l])
        return y + p[f"{name}_bias"][l] if f"{name}_bias" in p else y

    x = p["embed"][tok_T]
    x = rms(x, eps) if get("embed_norm") else x
    x = x + p["position"][:T] if get("positions", "learned") == "learned" else x
    x0, valued = x, 0
    for l in range(L):
        if get("residual_scalars"):
            x = p["stream_scale"][l] * x + p["embed_scale"][l] * x0
        n = norm(x, "norm1", l)
        q, k, v = (product(n, name, l) for name in "qkv")
        if get("value_embeds") and (L - 1 - l) % 2 == 0:
            gate = 2 / (1 + np.exp(-n[:, :32] @ p["value_gate"][valued]))
            v = v + gate[:, :, None] * p["value_embed"][valued][tok_T].reshape(T, K, H)
            valued += 1
        y = np.zeros((T, N, H))
        for t in range(T):
            for head in range(N):
                seen = [s for s in range(t + 1) if l == L - 1 or pattern[l % len(pattern)] == "L" or s > t - short]
                if get("documents"):
                    seen = [s for s in seen if not any(tok_T[u] == 0 for u in range(s + 1, t + 1))]
                scores = []
                for s in seen:
                    a, b = q[t, head], k[s, head // (N // K)]
                    if get("positions") == "rotary":
                        a, b = (turned(z, u, get("rope_base", 10_000.0), get("rope")) for z, u in ((a, t), (b, s)))
                    a, b = (rms(a, eps), rms(b, eps)) if get("qk_norm") else (a, b)
                    scores.append(a @ b / math.sqrt(H))
                w = np.array(scores)
                if get("attention_softcap"):
                    w = get("attention_softcap") * np.tanh(w / get("attention_softcap"))
                w = np.exp(w - w.max())
                y[t, head] = (w / w.sum()) @ v[seen, head // (N // K)]
        x = x + np.einsum("tnh,nhd->td", y, p["attend"][l]) + (p["attend_bias"][l] if "attend_bias" in p else 0)
        n = norm(x, "norm2", l)
        up = product(n, "up", l)
        if get("activation") == "swiglu":
            gate = product(n, "gate", l)
            up = gate / (1 + np.exp(-gate)) * up
        elif get("activation") == "relu2":
            up = np.maximum(up, 0) ** 2
        else:
            up = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        x = x + product(up, "down", l)
    z = norm(x, "norm") @ p["embed" if get("tied") else "out"].T
    return get("logit_softcap") * np.tanh(z / get("logit_softcap")) if get("logit_softcap") else z
