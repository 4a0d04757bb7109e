"""E01 and E02: compare a trigram with the bigram, on the text they are fitted to and on held-out text."""

from typing import NamedTuple

from jaxlm.config import CheckpointConfig, CountsConfig, NgramConfig, OptimConfig, RunConfig, SampleConfig
from jaxlm.data.corpus import SPLITS
from jaxlm.exercises.lab import CountedModel, Lab
from jaxlm.plots import pictures
from jaxlm.runs.directory import RunDir
from jaxlm.training import train

NAMES = {2: "bigram", 3: "trigram"}
"""Name of the model of each order."""


class FittedLosses(NamedTuple):
    """Losses in nats per token on the text that the models are fitted to, by order."""

    counts: dict[int, float]
    """Losses of counts, without smoothing."""
    neural: dict[int, float]
    """Losses of tables trained by gradient descent."""


def beat_the_bigram(lab: Lab, *, steps: int = 3000) -> FittedLosses:
    """E01: fit both models to all of the text, by counting and by gradient descent."""
    whole = lab.whole()
    neural = {order: _descend(whole, order, steps) for order in (3, 2)}
    counted = {order: CountedModel.of(whole.setup(CountsConfig(order=order, add_k=0.0))) for order in NAMES}
    counts = {order: model.loss("train") for order, model in counted.items()}
    lab.log(f"nats per token on all {counted[2].setup.corpus.size('train'):,} tokens, which the models are fitted to:")
    for order, name in NAMES.items():
        lab.log(f"  {name:<8} counts {counts[order]:.4f}, neural net {neural[order]:.4f}")
    gain, gap = counts[2] - counts[3], neural[3] - counts[3]
    yes = neural[3] < neural[2] and gain > 0
    lab.log(
        f"answer: {'yes' if yes else 'no'}. By counts the trigram's loss is {counts[3]:.4f}, {gain:.4f} nats below the "
        f"bigram's {counts[2]:.4f}; the neural trigram came to {neural[3]:.4f}, {gap:+.4f} from its counts, which are "
        "the least that a table can reach on the text it is fitted to."
    )
    groups = {NAMES[order]: {"counts": counts[order], "neural net": neural[order]} for order in NAMES}
    pictures.bars(groups, lab.picture("E01"), title="Loss on the text that was fitted", ylabel="nats per token")
    return FittedLosses(counts, neural)


def _descend(lab: Lab, order: int, steps: int) -> float:
    """Train a table of logits for `steps` steps of Adam, the learning rate falling to 0; returns its loss on train."""
    config = RunConfig(
        model=NgramConfig(order=order, init_scale=0.0),
        data=lab.data,
        optim=OptimConfig(name="adamw", lr=0.05, betas=(0.9, 0.99), schedule="cosine"),
        checkpoint=CheckpointConfig(every=steps),
        sample=SampleConfig(n=0),
        steps=steps,
        batch_size=4096,
        plots=False,
        seed=lab.seed,
        device=lab.device,
        run_dir=str(lab.out / f"E01_{NAMES[order]}_neural"),
    )
    path = train(config, restart=True, log=lambda line: None)
    assert path is not None
    return float(RunDir(path).read_eval()["train"]["nats_per_token"])


class HeldOutLosses(NamedTuple):
    """Losses in nats per token by order and split, and the dev tokens that have probability 0 without smoothing."""

    losses: dict[int, dict[str, float]]
    """Losses with k = 1, by order and split."""
    impossible: dict[int, int]
    """Dev tokens of probability 0 with k = 0, by order."""


def held_out_losses(lab: Lab) -> HeldOutLosses:
    """E02: count both models on train, with k = 1, and evaluate them on every split."""
    losses, impossible = {}, {}
    for order in NAMES:
        counted = CountedModel.of(lab.setup(CountsConfig(order=order), "dev", "test"))
        losses[order] = {split: counted.with_k(1.0).loss(split) for split in SPLITS}
        impossible[order] = counted.with_k(0.0).score("dev").impossible
    sizes = ", ".join(f"{split} {counted.setup.corpus.size(split):,}" for split in SPLITS)
    lab.log(f"nats per token, counts of train with k = 1 ({sizes} tokens):")
    for order, name in NAMES.items():
        lab.log(f"  {name:<8} " + ", ".join(f"{split} {losses[order][split]:.4f}" for split in SPLITS))
    two, three = losses[2], losses[3]
    better = [split for split in ("dev", "test") if three[split] < two[split]]
    drift = {order: losses[order]["test"] - losses[order]["train"] for order in NAMES}
    more = ": with more cells to fill, more of its counts hold for train only" if drift[3] > drift[2] else ""
    lab.log(
        f"answer: on unseen lines the trigram is better on {' and '.join(better) or 'neither dev nor test'}: dev "
        f"{three['dev']:.4f} against {two['dev']:.4f}, test {three['test']:.4f} against {two['test']:.4f}. From train "
        f"to test the bigram's loss changes by {drift[2]:+.4f}, the trigram's by {drift[3]:+.4f}{more}. "
        f"Without smoothing {impossible[2]:,} of dev's {counted.setup.corpus.size('dev'):,} events would be impossible "
        f"to the bigram and {impossible[3]:,} to the trigram."
    )
    groups = {split: {NAMES[order]: losses[order][split] for order in NAMES} for split in SPLITS}
    pictures.bars(groups, lab.picture("E02"), title="Counts of train, k = 1", ylabel="nats per token")
    return HeldOutLosses(losses, impossible)
