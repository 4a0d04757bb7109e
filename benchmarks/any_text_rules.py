"""Fit the constants of the recipe for any text: what each is worth on several texts, at the same work of training.

    python benchmarks/any_text_rules.py names.txt verse.txt code.txt [--operations 2e12] [--out runs/any_text_rules]

Every constant of `jaxlm.any_text.choose` is tried at two other values, one at a time. The table has the dev loss of the
mixture and of its network alone, and what a value costs against the one that is the rule, on average over the texts.
Runs are not trained twice, so that the command can be stopped and called again.
"""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path

import jaxlm
from jaxlm.any_text import choose, run
from jaxlm.config import AnyTextConfig, MixtureConfig
from jaxlm.training import train

TRIALS: dict[str, tuple[float, ...]] = {
    "TOKENS_PER_PARAMETER": (5, 80),
    "STEPS": (1000, 16_000),
    "MUON_LR": (0.007, 0.06),
    "DROPOUT": (0.0, 0.1),
    "SEQUENCE": (32, 512),
}
"""Other values of each constant."""
MINUTES = 1.0
"""The time that the rules are told; the speed is what makes of it the number of operations."""
MOST_BYTES = 3_000_000
"""Of a text, at most."""


def chosen(path: Path, operations: float) -> jaxlm.RunConfig:
    """Return the run that the rules choose for a text and so many operations of training."""
    asked = jaxlm.RunConfig(model=AnyTextConfig(), data=jaxlm.DataConfig(path=str(path)))
    text = run.read_text(asked)
    corpus, (start, end) = text.corpus, text.corpus.bounds["train"]
    return choose.choose(
        dataclasses.replace(asked, data=run.data_of(asked, text.seen)),
        tokens=end - start,
        examples=int((corpus.age_N[start:end] == 0).sum()),
        longest=corpus.longest,
        vocab_size=corpus.tokenizer.vocab_size,
        order=text.counts.order,
        minutes=MINUTES,
        speed=operations / (60 * MINUTES * choose.TRAINING_SHARE),
    ).config


def losses(config: jaxlm.RunConfig, place: Path) -> tuple[float, float]:
    """Dev losses in bits per byte of the mixture and of its network alone, trained if they have not been."""
    assert isinstance(config.model, MixtureConfig), config.model
    found = []
    for name, model in (("mixture", config.model), ("network", config.model.network)):
        path = place / name
        quiet = dataclasses.replace(config, model=model, run_dir=str(path), sample=jaxlm.SampleConfig(n=0), plots=False)
        train(quiet, log=lambda line: None)
        found.append(json.loads((path / "eval.json").read_text())["dev"]["bits_per_byte"])
    return found[0], found[1]


def beginning(path: Path, folder: Path) -> Path:
    """Write the first MOST_BYTES bytes of a text, up to a line's end."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / path.name
    data = path.read_bytes()[:MOST_BYTES]
    kept.write_bytes(data[: data.rfind(b"\n") + 1])
    return kept


def main() -> None:
    """Train all trials of all texts, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--operations", type=float, default=2e12, help="of training, in each run")
    parser.add_argument("--out", type=Path, default=Path("runs/any_text_rules"))
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS))
    args = parser.parse_args()
    trials = [("the rules", 0.0)] + [(name, value) for name in args.only for value in TRIALS[name]]
    found: dict[tuple[str, float], list[tuple[float, float]]] = {trial: [] for trial in trials}
    for path in args.texts:
        text = beginning(path, args.out / "texts")
        for name, value in trials:
            rule = getattr(choose, name, None)
            if rule is not None:
                setattr(choose, name, value)
            config = chosen(text, args.operations)
            if rule is not None:
                setattr(choose, name, rule)
            pair = losses(config, args.out / f"{path.stem}-{name.replace(' ', '-')}-{value:g}")
            found[name, value].append(pair)
            print(f"{path.name}, {name} {value:g}: {pair[0]:.4f}, network {pair[1]:.4f}", file=sys.stderr, flush=True)
    rules = found["the rules", 0.0]
    for index, title in enumerate(("mixture", "network alone")):
        print(f"| {title} | {' | '.join(path.stem for path in args.texts)} | against the rules |")
        print("|---|" + "---|" * (len(args.texts) + 1))
        for (name, value), pairs in found.items():
            ratio = math.exp(
                math.fsum(math.log(pair[index] / rule[index]) for pair, rule in zip(pairs, rules, strict=True))
                / len(pairs)
            )
            numbers = " | ".join(f"{pair[index]:.4f}" for pair in pairs)
            print(f"| {name}{f' {value:g}' if name != 'the rules' else ''} | {numbers} | {ratio - 1:+.2%} |")
        print()


if __name__ == "__main__":
    main()
