"""nanoGPT's setting of shakespeare_char for a CPU in PyTorch: python benchmarks/torch_gpt.py FILE STEPS THREADS [SEED].

The same sizes, schedule and split as configs/gpt_shakespeare_nanogpt.py. Prints the loss of the whole validation text,
in windows side by side as our eval.json has it, and the speed, as JSON.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

CONTEXT, BATCH, WARMUP, LR = 64, 12, 100, 1e-3
"""Tokens of context, rows of a batch, steps of the warm-up, and the learning rate after it."""


class Block(nn.Module):
    """A block of GPT-2 without biases, with PyTorch's fused attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.attend = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add attention and MLP, each of the normalised stream."""
        B, T, D = x.shape
        parts = self.qkv(self.norm1(x)).split(D, dim=2)
        q, k, v = (part.view(B, T, self.heads, D // self.heads).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attend(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """GPT-2's form with tied embeddings and without biases; returns the mean loss."""

    def __init__(self, vocab: int, context: int, width: int, heads: int, layers: int):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                writes = name.endswith(("attend.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * layers) if writes else 1))

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats."""
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.embed.weight.T
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW in one fused kernel, without decay on what has one axis."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.99), fused=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, tokens: torch.Tensor, targets: torch.Tensor) -> None:
    """Make one update, with the gradient's norm clipped to 1."""
    optimizer.zero_grad(set_to_none=True)
    model(tokens, targets).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def rate(at: int, steps: int) -> float:
    """Return the learning rate of a step: a linear rise, then a cosine down to a tenth."""
    if at < WARMUP:
        return LR * at / WARMUP
    done = (at - WARMUP) / (steps - WARMUP)
    return LR * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def main(path: str, steps: int, threads: int, seed: int) -> None:
    """Train, score the validation text, and print both."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    text = Path(path).read_text("utf-8")
    index = {char: i for i, char in enumerate(sorted(set(text)))}
    data = torch.tensor([index[char] for char in text])
    train, val = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]
    model = Gpt(len(index), CONTEXT, width=128, heads=4, layers=4)
    optimizer = optimizer_of(model)
    began = time.perf_counter()
    for at in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(at, steps)
        first = torch.randint(len(train) - CONTEXT, (BATCH, 1))
        rows = first + torch.arange(CONTEXT)
        step(model, optimizer, train[rows], train[rows + 1])
    seconds = time.perf_counter() - began
    total, count = 0.0, (len(val) - 1) // CONTEXT * CONTEXT
    with torch.no_grad():
        for first_row in range(0, count // CONTEXT, 256):
            at_token = first_row * CONTEXT
            n = min(256 * CONTEXT, count - at_token)
            x, y = val[at_token : at_token + n], val[at_token + 1 : at_token + n + 1]
            total += model(x.view(-1, CONTEXT), y.view(-1, CONTEXT)).item() * n
    print(json.dumps({"val": total / count, "ms_a_step": 1000 * seconds / steps}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
