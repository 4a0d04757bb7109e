"""README.md of an exported folder: what the model is, how it was trained, and its figures."""

from typing import Any

from jaxlm.data.corpus import SPLITS
from jaxlm.errors import UserError
from jaxlm.runs.directory import RunDir
from jaxlm.runs.loading import Run

CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- jaxlm
---

# {name}

A language model that was trained with jaxlm and exported for transformers.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

| | |
|---|---|
{rows}

{figures}
"""


def model_card(run: Run, directory: RunDir, name: str) -> str:
    """The text of README.md for a folder of that name."""
    data = run.config.data
    source = data.name if data.path is None else data.path
    rows = {
        "parameters": f"{sum(leaf.size for leaf in run.params.values()):,}",
        "context": f"{run.model.max_length:,} tokens",
        "vocabulary": f"{run.tokenizer.vocab_size:,} tokens",
        "data": f"{source.rpartition('/')[2]} ({data.kind})",
        "steps": f"{run.step:,}",
        "type": "float32",
    }
    listed = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return CARD.format(name=name, rows=listed, figures=_figures(directory))


def _figures(directory: RunDir) -> str:
    """The losses of eval.json as a table, or a sentence where there are none."""
    try:
        results: dict[str, Any] = directory.read_eval()
    except UserError:
        results = {}
    rows = [f"| {split} | {_numbers(results[split])} |" for split in SPLITS if results.get(split)]
    if not rows:
        return "The run has no evaluation."
    return "\n".join(["| split | nats per token | bits per byte | perplexity |", "|---|---|---|---|", *rows])


def _numbers(entry: dict[str, Any]) -> str:
    keys = ("nats_per_token", "bits_per_byte", "perplexity")
    return " | ".join("-" if entry.get(key) is None else f"{entry[key]:.4f}" for key in keys)
