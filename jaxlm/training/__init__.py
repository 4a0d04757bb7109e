"""Training: the state, the step, the loop, and the whole job from settings to a finished run."""

from jaxlm.training.job import train
from jaxlm.training.loop import Loop
from jaxlm.training.plan import Plan
from jaxlm.training.signals import Stopped
from jaxlm.training.state import TrainState, make_chunk, make_step

__all__ = ["Loop", "Plan", "Stopped", "TrainState", "make_chunk", "make_step", "train"]
