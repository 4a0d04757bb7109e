"""Measure the worth of each ingredient of a GPT at nanoGPT's CPU setting of tinyshakespeare, by dev loss over seeds.

    python benchmarks/ingredients.py tinyshakespeare.txt --seeds 3 [--only rotary muon]

Each variant changes one thing of GPT-2's form with AdamW (`configs/gpt_shakespeare_nanogpt.py`: 4 layers, 128 wide,
context 64, 2,000 steps of 12 rows); the last two are the whole modern form. Runs lie in runs/ingredients and are not
trained twice, so that the command can be stopped and called again, with more seeds too.
"""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for configs/, which is not installed

import jaxlm
from configs.gpt_shakespeare_nanogpt import config as BASE
from jaxlm.training import train

MUON: dict[str, Any] = {
    "name": "muon",
    "muon_lr": 0.02,
    "lr": 3e-3,
    "schedule": "linear",
    "warmup": 0.01,
    "end_factor": 0.0,
    "weight_decay": 0.0,
    "decay": "all",
}
MODERN: dict[str, Any] = {"context": 64, "n_layers": 4, "n_heads": 4, "d_model": 128}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GPT-2's form, AdamW": ({}, {}),
    "RMSNorm": ({"norm": "rms"}, {}),
    "rotary positions": ({"positions": "rotary"}, {}),
    "squared ReLU": ({"activation": "relu2"}, {}),
    "SwiGLU": ({"activation": "swiglu"}, {}),
    "QK-norm": ({"qk_norm": True}, {}),
    "untied": ({"tied": False}, {}),
    "zero-initialised outputs": ({"zero_init": True}, {}),
    "normed embeddings, residual scalars": ({"embed_norm": True, "residual_scalars": True}, {}),
    "value embeddings": ({"value_embeds": True}, {}),
    "logits capped at 15": ({"logit_softcap": 15.0}, {}),
    "2 heads of keys and values": ({"n_kv_heads": 2}, {}),
    "windows of 32 in every other layer": ({"window_pattern": "SL"}, {}),
    "biases": ({"bias": True}, {}),
    "rate 3e-3": ({}, {"lr": 3e-3}),
    "linear to zero": ({}, {"schedule": "linear", "end_factor": 0.0}),
    "warm-up, stable, decay": ({}, {"schedule": "wsd", "end_factor": 0.0}),
    "average of parameters, 0.99": ({}, {"ema": 0.99}),
    "z-loss 1e-4": ({}, {"z_loss": 1e-4}),
    "Muon": ({}, MUON),
}
"""Settings of the model and of the optimiser that a variant changes."""


def variants() -> dict[str, jaxlm.RunConfig]:
    """The run of each variant, without a text and a seed."""
    made = {
        name: dataclasses.replace(
            BASE, model=dataclasses.replace(BASE.model, **model), optim=dataclasses.replace(BASE.optim, **optim)
        )
        for name, (model, optim) in VARIANTS.items()
    }
    modern = dataclasses.replace(BASE, model=jaxlm.GptConfig.modern(**MODERN, value_embeds=False))
    made["the modern form, AdamW"] = modern
    made["the modern form, Muon"] = dataclasses.replace(modern, optim=dataclasses.replace(BASE.optim, **MUON))
    return made


def dev_loss(config: jaxlm.RunConfig, place: Path) -> tuple[float, int]:
    """The dev loss of a run in nats per token, and its number of parameters; it is trained if it has not been."""
    quiet = jaxlm.SampleConfig(n=0)
    run = dataclasses.replace(config, run_dir=str(place), sample=quiet, plots=False)
    train(run, log=lambda line: None)
    result = json.loads((place / "eval.json").read_text())
    return result["dev"]["nats_per_token"], result["params"]


def mean_and_error(numbers: list[float]) -> tuple[float, float]:
    """The mean, and the standard error of it; NaN for a single number."""
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) < 2:
        return mean, math.nan
    variance = math.fsum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)
    return mean, math.sqrt(variance / len(numbers))


def main() -> None:
    """Train every variant with every seed, seed by seed; print the table at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=BASE.steps)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="variants whose name has one of the words")
    parser.add_argument("--out", type=Path, default=Path("runs/ingredients"))
    args = parser.parse_args()
    chosen = variants()
    if args.only:
        chosen = {name: run for name, run in chosen.items() if any(word in name for word in args.only)}
    losses: dict[str, list[float]] = {name: [] for name in chosen}
    sizes: dict[str, int] = {}
    for seed in range(args.seeds):
        for number, (name, config) in enumerate(chosen.items()):
            data = dataclasses.replace(config.data, path=args.text, name=jaxlm.DataConfig.name)
            run = dataclasses.replace(config, data=data, seed=seed, steps=args.steps)
            place = args.out / f"{number}-{'-'.join(name.replace(',', '').split())}-{seed}"
            loss, sizes[name] = dev_loss(run, place)
            losses[name].append(loss)
            print(f"seed {seed}, {name}: {loss:.4f}", file=sys.stderr, flush=True)
    base = next(iter(losses.values()))
    print("| | parameters | dev loss | against the first line |\n|---|---|---|---|")
    for name, found in losses.items():
        mean, error = mean_and_error(found)
        gain, spread = mean_and_error([one - other for one, other in zip(found, base, strict=True)])
        print(f"| {name} | {sizes[name]:,} | {mean:.4f} ± {error:.4f} | {gain:+.4f} ± {spread:.4f} |")


if __name__ == "__main__":
    main()
