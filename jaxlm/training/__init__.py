"""Training: the state, the step, the loop, and the whole job from settings to a finished run."""

from jaxlm.training.job import train
from jaxlm.training.loop import Plan, Stopped, fit
from jaxlm.training.state import TrainState, make_chunk, make_step

__all__ = ["Plan", "Stopped", "TrainState", "fit", "make_chunk", "make_step", "train"]
