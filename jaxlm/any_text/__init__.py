"""The recipe for any text: look at the file, choose a model and its training, and never end above the counts."""

from jaxlm.any_text.run import train

__all__ = ["train"]
