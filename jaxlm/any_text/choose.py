"""The rules by which the recipe for any text chooses a model and its training."""

import dataclasses
import math

from jaxlm.config import GptConfig, MixtureConfig, OptimConfig, RunConfig

LADDER = ((1, 32), (2, 48), (2, 64), (3, 96), (4, 128), (4, 192), (6, 256), (6, 384), (8, 512), (12, 768))
"""Layers and widths of the models that can be chosen."""
HEAD = 32
"""Width of an attention head, about."""
TRAINING_SHARE = 0.7
"""Share of the time that goes into steps; the rest is compilation, evaluation, samples and pictures."""
TOKENS_PER_PARAMETER = 20
"""A model is chosen only if the time is enough for so many predictions for each of its parameters (Hoffmann et al.
2022, "Training compute-optimal large language models")."""
MANY_PASSES = 40
"""No training has more passes."""
PARAMETERS_PER_TOKEN = 3
"""A model has at most so many parameters for each token of train."""
SEQUENCE, LONG_TEXT = 128, 50_000
"""Tokens of a sequence of running text, half of them in a text of fewer tokens than LONG_TEXT."""
LONGEST_LINE = 256
"""Tokens of a sequence of lines or dialogues, at most."""
STEPS = 4000
"""Steps that a training has, about: more make larger batches, fewer smaller ones."""
BATCH_TOKENS = (512, 16_384)
"""Fewest and most predictions in a batch."""
DROPOUT = 0.05
"""Dropout for each doubling of passes x parameters / tokens beyond 4."""
MUON_LR = 0.02
"""Learning rate of Muon, for the matrices."""
PATIENCE = 8
"""Evaluations without a lower dev loss after which a training stops."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A chosen run, its network, and the reasons in words."""

    config: RunConfig
    network: GptConfig
    operations_a_step: float
    """Operations of a step, those of padding included."""
    reason: str


def choose(
    asked: RunConfig,
    *,
    tokens: int,
    examples: int,
    longest: int,
    vocab_size: int,
    order: int,
    minutes: float,
    speed: float,
    has_dev: bool = True,
) -> Choice:
    """Choose the model and its training for a text.

    Train has `tokens` predictions in `examples` lines or dialogues (1 of running text), the longest of `longest`.
    `order` is that of the best counts, `minutes` the time that is left, `speed` the operations a second that training
    reaches here. Everything that the rules do not decide is taken from `asked`, how the text is read among it. Without
    a dev split, training goes on to its last step.
    """
    length = min(longest, LONGEST_LINE)
    if asked.data.kind == "stream":
        length = min(longest, SEQUENCE if tokens >= LONG_TEXT else SEQUENCE // 2)
    filled = min(1.0, tokens / (examples * length))

    def affordable(layers: int, width: int) -> float:
        """Predictions that the time is enough for."""
        work = operations_a_token(layers, width, vocab_size, length)
        return speed * 60 * minutes * TRAINING_SHARE / work * filled

    fitting = [
        (layers, width)
        for layers, width in LADDER
        for size in [parameters(layers, width, vocab_size)]
        if TOKENS_PER_PARAMETER * size <= affordable(layers, width) and size <= PARAMETERS_PER_TOKEN * tokens
    ]
    layers, width = fitting[-1] if fitting else LADDER[0]
    size = parameters(layers, width, vocab_size)
    trained = min(affordable(layers, width), MANY_PASSES * tokens)
    passes = trained / tokens
    least, most = BATCH_TOKENS
    batch_size = max(1, round(min(max(trained / STEPS, least), most) / (length * filled)))
    steps = max(1, math.ceil(trained / (batch_size * length * filled)))
    dropout = round(min(0.4, max(0.0, DROPOUT * math.log2(max(1.0, passes * size / tokens / 4)))), 2)
    heads = max(1, width // HEAD)
    network = GptConfig.modern(n_layers=layers, n_heads=heads, d_model=width, dropout=dropout, value_embeds=False)
    config = dataclasses.replace(
        asked,
        model=MixtureConfig(network=network, order=order),
        data=dataclasses.replace(
            asked.data,
            example="sequence",
            max_length=length,
            overlap=longest > length,
        ),
        optim=OptimConfig(
            name="muon",
            lr=3e-3,
            muon_lr=MUON_LR,
            schedule="linear",
            warmup=0.01,
            betas=(0.9, 0.95),
        ),
        eval=dataclasses.replace(asked.eval, patience=asked.eval.patience or (PATIENCE if has_dev else None)),
        steps=steps,
        batch_size=batch_size,
    )
    took = trained / affordable(layers, width) * minutes * TRAINING_SHARE
    reason = (
        f"{order}-gram counts mixed with a GPT, {layers} x {width} wide: {size:,} parameters ({size / tokens:.2g} for "
        f"each token of train), dropout {dropout:g}; {steps:,} steps of {batch_size} x {length} tokens, {passes:.2g} "
        f"passes over train, in about {took:.2g} minutes"
    )
    work = operations_a_token(layers, width, vocab_size, length) * batch_size * length
    return Choice(config, network, work, reason)


def parameters(layers: int, width: int, vocab_size: int) -> int:
    """Parameters of a GPT, about: 12 width^2 in each layer, embedding and unembedding."""
    return 12 * layers * width**2 + 2 * vocab_size * width


def operations_a_token(layers: int, width: int, vocab_size: int, length: int) -> float:
    """Operations of a training step for each token: 6 for each number of a product, attention's among them."""
    return 6.0 * (12 * layers * width**2 + vocab_size * width + 2 * layers * width * length)
