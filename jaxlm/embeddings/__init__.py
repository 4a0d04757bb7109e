"""Tables of words and vectors: files in and out, neighbours, analogies, scores. Knows no model and no run."""

from jaxlm.embeddings.embeddings import Embeddings

__all__ = ["Embeddings"]
