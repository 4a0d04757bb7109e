"""Training: the job, the state, the step, the loop, and what a finished run gets."""

from jaxlm.training.train import train

__all__ = ["train"]
