"""Compare two runs, or two directories of seeds, on one text: python -m jaxlm.compare A B."""

import json
from typing import Any

from jaxlm.cli.process import run_main, show
from jaxlm.cli.report_commands import CompareCommand, parse_compare
from jaxlm.compare import report
from jaxlm.compare.pairing import Pieces, paired, scored
from jaxlm.compare.sides import Side, check_pair, open_side, text_of
from jaxlm.compare.statistics import paired_bootstrap, paired_t, welch_t
from jaxlm.data.source import cache_dir
from jaxlm.devices import compilation, platform


def main(args: list[str]) -> int:
    """Compare the two sides that the arguments name, and print the result."""
    command = parse_compare(args)
    platform.choose_device(command.device)
    compilation.enable_cache(cache_dir())
    a, b = (open_side(path, command.trusted) for path in (command.a, command.b))
    check_pair(a, b)
    text, name = text_of(a, b, command.text)
    pieces = paired(scored(a.runs, text), scored(b.runs, text))
    result, lines = of_seeds(a, b, pieces) if a.is_group else of_runs(pieces, command)
    tokens = report.token_differences(pieces)
    if command.json:
        about = {"a": str(a.path), "b": str(b.path), "text": name, "unit": pieces.unit, "blocks": pieces.count}
        print(json.dumps({**about, **result, "tokens": report.as_json(tokens, command.tokens)}, indent=2))
        return 0
    loss_a, loss_b = pieces.losses
    about_sides = [
        report.side_line("A", a, loss_a.tolist(), pieces.unit),
        report.side_line("B", b, loss_b.tolist(), pieces.unit),
        f"text: {name}, {len(pieces.text):,} tokens in {pieces.count:,} {pieces.blocks}",
    ]
    show("\n".join([*about_sides, *lines, *report.tables(tokens, command.tokens)]))
    return 0


def of_runs(pieces: Pieces, command: CompareCommand) -> tuple[dict[str, Any], list[str]]:
    """Two single runs by the paired bootstrap: the result for --json, and the lines about it."""
    found = paired_bootstrap(*pieces.of_blocks(), resamples=command.resamples, seed=command.seed)
    loss_a, loss_b = pieces.losses
    result = {
        "losses_a": loss_a.tolist(),
        "losses_b": loss_b.tolist(),
        "difference": found.difference._asdict(),
        "probability_a_better": found.a_better,
        "resamples": command.resamples,
    }
    lines = [
        report.verdict(found.difference, pieces.unit),
        f"A is better in {found.a_better:.1%} of {command.resamples:,} paired resamples of the text; trainings with "
        "other seeds may differ by more",
    ]
    return result, lines


def of_seeds(a: Side, b: Side, pieces: Pieces) -> tuple[dict[str, Any], list[str]]:
    """Two directories of seeds, paired where the seeds are the same, and by Welch's test."""
    loss_a, loss_b = pieces.losses
    welch = welch_t(loss_a, loss_b)
    pairs = paired_t(loss_a, loss_b) if a.seeds == b.seeds else None
    best = welch if pairs is None else pairs
    tests = {"paired": pairs, "welch": welch}
    result: dict[str, Any] = {
        "losses_a": loss_a.tolist(),
        "losses_b": loss_b.tolist(),
        "difference": best.difference._asdict(),
        **{
            name: None if test is None else {**test._asdict(), "difference": test.difference._asdict()}
            for name, test in tests.items()
        },
    }
    lines = [
        report.verdict(best.difference, pieces.unit),
        *([] if pairs is None else [report.t_line("paired by seed", pairs)]),
        report.t_line("Welch", welch),
    ]
    return result, lines


if __name__ == "__main__":
    run_main(main)
