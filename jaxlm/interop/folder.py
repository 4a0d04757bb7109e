"""A folder of Hugging Face: its JSON files, and the files of its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.errors import UserError, near_path, reading

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""One file of weights, or the list of several, by tensor."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
"""Weights in other formats, of which most run code when they are opened."""
CONVERSION = (
    "convert it where you trust it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW), "
    "and the same of AutoTokenizer"
)


def check(folder: Path) -> None:
    """Raise UserError unless a path is a folder with config.json."""
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else f"does not exist{near_path(folder)}"
        raise UserError(f"import wants a local folder of Hugging Face, got {str(folder)!r}, which {what}")
    if not (folder / "config.json").exists():
        raise UserError(f"import wants a folder with config.json, got {str(folder)!r}, which has none")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError."""
    try:
        with reading(path, "import", "a JSON file"):
            found = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"import wants JSON in {str(path)!r}: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"import wants a JSON object in {str(path)!r}, got a {type(found).__name__}")
    return found


def read_if_there(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} where there is no such file."""
    return read_json(path) if path.exists() else {}


def token_ids(settings: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """The token numbers of a setting that is one, several or null. Raises UserError for anything else."""
    value = settings.get(name)
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in found):
        raise UserError(f"import wants a token's number, or several, as {name}, got {value!r}")
    return tuple(found)


def weight_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files of a folder's weights, and the index's file of each tensor ({} of a single file).

    Raises UserError where a file is missing, outside the folder, or the weights are in another format.
    """
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX).get("weight_map")
        if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
            raise UserError(f"import wants weight_map in {str(folder / INDEX)!r}: a file for each tensor")
        names = sorted(set(index.values()))
        if outside := [name for name in names if Path(name).name != name]:
            raise UserError(f"import wants weights in the folder itself, got {outside[0]!r} in {INDEX}")
        if lost := [name for name in names if not (folder / name).exists()]:
            raise UserError(f"import wants all files of {INDEX} in {str(folder)!r}, but lacks {', '.join(lost)}")
        return [folder / name for name in names], index
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS], {}
    others = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if others:
        raise UserError(f"import wants {WEIGHTS}, got {others[0]} in {str(folder)!r}, which may run code: {CONVERSION}")
    raise UserError(f"import wants {WEIGHTS} or {INDEX} in {str(folder)!r}, which has neither")
