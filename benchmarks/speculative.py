"""Benchmark speculative decoding against plain decoding of the same run, by the number of draft tokens.

    python benchmarks/speculative.py RUN DRAFT [--draft-tokens 1 2 4 8] [--tokens 500] [--batch 1] [--rounds 5]

Times alternate: in each round all ways draw the same number of tokens. Printed are the medians of tokens per second,
the median of the ratios of the rounds, the share of proposed tokens that stayed and the tokens for each pass of RUN.
The run's texts have to be long enough, as running text is.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxlm
from jaxlm.inference.generate import decode, prompt_tokens
from jaxlm.inference.sampling import Strategy
from jaxlm.inference.speculative_loop import Tally


def main() -> None:
    """Print a line for plain decoding and one for each number of draft tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("draft", type=Path)
    parser.add_argument("--draft-tokens", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    run, draft = jaxlm.load_run(args.run), jaxlm.load_run(args.draft)
    strategy, rows = Strategy(args.temperature), [prompt_tokens(run, "")] * args.batch
    tallies: dict[int, list[Tally]] = {count: [] for count in (0, *args.draft_tokens)}
    rates: dict[int, list[float]] = {count: [] for count in tallies}

    def drawn(count: int, seed: int) -> float:
        """Tokens per second with so many draft tokens, none for 0."""
        began, made = time.perf_counter(), 0
        options: dict[str, Any] = (
            {"draft": draft, "draft_tokens": count, "report": tallies[count].append} if count else {}
        )
        key = jax.random.key(seed)
        for new in decode(run, rows, range(args.batch), strategy, args.tokens, key, **options):
            made += sum(map(len, new))
        return made / (time.perf_counter() - began)

    for count in tallies:
        drawn(count, 0)  # compiles
        tallies[count].clear()
    for seed in range(1, args.rounds + 1):
        for count in tallies:
            rates[count].append(drawn(count, seed))
    print(f"plain: {statistics.median(rates[0]):,.0f} tokens/s", flush=True)
    for count in args.draft_tokens:
        total = sum(tallies[count][1:], tallies[count][0])
        ratio = statistics.median(np.array(rates[count]) / np.array(rates[0]))
        print(
            f"{count} draft tokens: {statistics.median(rates[count]):,.0f} tokens/s, {ratio:.2f} times; "
            f"{total.acceptance:.1%} of proposed tokens stayed, {total.tokens_per_pass:.2f} tokens a pass",
            flush=True,
        )


if __name__ == "__main__":
    main()
