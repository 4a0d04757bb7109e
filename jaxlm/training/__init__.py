"""Training: the job, the state, the step, the loop, and what a finished run gets."""

from jaxlm.training.run import train

__all__ = ["train"]
