"""The recipe of configs/names_mlp.py in eager PyTorch: python benchmarks/torch_mlp.py FILE STEPS THREADS.

A 3-token context, 10-d embeddings, 200 tanh units, N(0, 1) parameters, minibatches of 32 windows drawn by index, SGD at
0.1 and from half of the steps on 0.01, updates in place, the dev loss once at the end.
"""

import json
import random
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

CONTEXT, EMBED, HIDDEN, BATCH = 3, 10, 200, 32
"""Tokens of context, widths, and windows in a batch."""


def windows(words: list[str], index: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Build every context and its next token, (contexts, targets)."""
    contexts, targets = [], []
    for word in words:
        context = [0] * CONTEXT
        for token in [*(index[char] for char in word), 0]:
            contexts.append(context)
            targets.append(token)
            context = [*context[1:], token]
    return torch.tensor(contexts), torch.tensor(targets)


def main(path: str, steps: int, threads: int) -> None:
    """Train, and print the dev loss and the speed of the loop as JSON."""
    torch.set_num_threads(threads)
    words = Path(path).read_text("utf-8").split()
    index = {char: i + 1 for i, char in enumerate(sorted(set("".join(words))))}
    random.Random(42).shuffle(words)
    first, second = int(0.8 * len(words)), int(0.9 * len(words))
    x_train, y_train = windows(words[:first], index)
    x_dev, y_dev = windows(words[first:second], index)
    generator = torch.Generator().manual_seed(0)
    vocab = len(index) + 1
    shapes = [(vocab, EMBED), (CONTEXT * EMBED, HIDDEN), (HIDDEN,), (HIDDEN, vocab), (vocab,)]
    parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    embed, hidden, hidden_bias, out, out_bias = parameters

    def logits(x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(embed[x].view(-1, CONTEXT * EMBED) @ hidden + hidden_bias)
        return h @ out + out_bias

    began = time.perf_counter()
    for step in range(steps):
        rows = torch.randint(0, len(x_train), (BATCH,), generator=generator)
        loss = cross_entropy(logits(x_train[rows]), y_train[rows])
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        rate = 0.1 if step < steps // 2 else 0.01
        with torch.no_grad():
            for parameter in parameters:
                assert parameter.grad is not None
                parameter -= rate * parameter.grad
    seconds = time.perf_counter() - began
    with torch.no_grad():
        dev = cross_entropy(logits(x_dev), y_dev).item()
    print(json.dumps({"dev": dev, "steps_per_s": steps / seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
