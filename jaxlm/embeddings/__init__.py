"""Tables of words and vectors: file formats, neighbours, analogies, evaluation. Depends on no model and no run."""

from jaxlm.embeddings.embeddings import Embeddings

__all__ = ["Embeddings"]
