"""Training: the job, the state, the step, the loop, and the evaluation, samples and plots at the end of a run."""

from jaxlm.training.run import train

__all__ = ["train"]
