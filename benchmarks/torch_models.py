"""The models of benchmarks/makemore.py in PyTorch, in the eager style of a tutorial and with the benchmark's sizes.

Each maps tokens (B, T) to logits (B, T, V); the WaveNet maps windows (B, 8) to logits (B, V).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Bigram(nn.Module):
    """A bigram model: a table with a row of logits for each token."""

    def __init__(self, vocab: int, context: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocab, vocab))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Index the rows."""
        return self.logits[tokens]


class Mlp(nn.Module):
    """An MLP on the embeddings of the last `context` tokens, with one tanh layer."""

    def __init__(self, vocab: int, context: int, width: int = 64):
        super().__init__()
        self.context = context
        self.embed = nn.Embedding(vocab + 1, width)
        self.mlp = nn.Sequential(nn.Linear(context * width, width), nn.Tanh(), nn.Linear(width, vocab))
        self.blank = vocab

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Build windows by shifting the tokens once for each of their places."""
        parts = []
        for _ in range(self.context):
            parts.append(self.embed(tokens))
            tokens = torch.roll(tokens, 1, 1)
            tokens[:, 0] = self.blank
        return self.mlp(torch.cat(parts, -1))


class Bow(nn.Module):
    """A bag of words: the causal mean of the embeddings, then a tanh layer."""

    triangle: torch.Tensor

    def __init__(self, vocab: int, context: int, width: int = 64):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.register_buffer("triangle", torch.tril(torch.ones(context, context)))
        self.hidden, self.project = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, vocab)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Average by a softmax over a masked triangle, as tutorials do."""
        T = tokens.shape[1]
        x = self.embed(tokens) + self.position(torch.arange(T))
        scores = torch.zeros(T, T).masked_fill(self.triangle[:T, :T] == 0, float("-inf"))
        x = x + F.softmax(scores, -1) @ x
        x = x + self.project(torch.tanh(self.hidden(x)))
        return self.out(x)


class Recurrent(nn.Module):
    """An RNN, GRU or LSTM cell in a loop over time, with a learned initial state."""

    def __init__(self, vocab: int, context: int, cell: str, width: int = 64):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.start = nn.Parameter(torch.zeros(1, width))
        self.start_cell = nn.Parameter(torch.zeros(1, width))
        gates = {"rnn": 1, "gru": 2, "lstm": 4}[cell]
        self.cell, self.gates = cell, nn.Linear(2 * width, gates * width)
        if cell == "gru":
            self.candidate = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, vocab)

    def step(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the next state (h, c)."""
        z = self.gates(torch.cat([x, h], 1))
        if self.cell == "rnn":
            return torch.tanh(z), c
        if self.cell == "lstm":
            i, f, o, g = z.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c
        r, u = torch.sigmoid(z).chunk(2, 1)
        new = torch.tanh(self.candidate(torch.cat([x, r * h], 1)))
        return (1 - u) * h + u * new, c

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run one step for each position."""
        B, T = tokens.shape
        x = self.embed(tokens)
        h, c = self.start.expand(B, -1), self.start_cell.expand(B, -1)
        states = []
        for t in range(T):
            h, c = self.step(x[:, t], h, c)
            states.append(h)
        return self.out(torch.stack(states, 1))


class Block(nn.Module):
    """A Transformer block of GPT-2."""

    mask: torch.Tensor

    def __init__(self, context: int, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.attend = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("mask", torch.tril(torch.ones(context, context)).view(1, 1, context, context))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add attention and MLP, each of the normalised residual stream."""
        B, T, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(D, dim=2)
        q, k, v = (part.view(B, T, self.heads, D // self.heads).transpose(1, 2) for part in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(self.mask[:, :, :T, :T] == 0, float("-inf"))
        y = (F.softmax(scores, -1) @ v).transpose(1, 2).contiguous().view(B, T, D)
        x = x + self.attend(y)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """GPT-2 with an untied head."""

    def __init__(self, vocab: int, context: int, width: int = 64, heads: int = 4, layers: int = 4):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(context, width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits at all positions."""
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


class Wavenet(nn.Module):
    """The lecture's WaveNet: pairs merged level by level, with batch norm and tanh."""

    def __init__(self, vocab: int, embed: int = 24, hidden: int = 128, levels: int = 3):
        super().__init__()
        self.embed = nn.Embedding(vocab, embed)
        widths = [embed, *[hidden] * (levels - 1)]
        self.pairs = nn.ModuleList(nn.Linear(2 * width, hidden, bias=False) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in widths)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) after each window of 2 ** levels tokens."""
        x = self.embed(windows)
        for pair, norm in zip(self.pairs, self.norms, strict=True):
            B, T, D = x.shape
            x = pair(x.reshape(B, T // 2, 2 * D))
            x = torch.tanh(norm(x.transpose(1, 2)).transpose(1, 2))
        return self.out(x[:, -1])


def build(name: str, vocab: int, context: int) -> nn.Module:
    """Build a model by its name in the benchmark."""
    if name in ("rnn", "gru", "lstm"):
        return Recurrent(vocab, context, name)
    if name == "wavenet":
        return Wavenet(vocab)
    return {"bigram": Bigram, "mlp": Mlp, "bow": Bow, "transformer": Transformer}[name](vocab, context)


@torch.no_grad()
def generate(model: nn.Module, batch: int, context: int, tokens: int, window: int | None) -> torch.Tensor:
    """Sample tokens, reading the whole sequence again for each new one."""
    model.train(False)
    made = torch.zeros(batch, window or 1, dtype=torch.long)
    for _ in range(tokens):
        seen = made[:, -(window or context) :]
        logits = model(seen) if window else model(seen)[:, -1]
        new = torch.multinomial(F.softmax(logits, -1), 1)
        made = torch.cat([made, new], 1)
    return made
