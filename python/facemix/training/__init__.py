"""Training with the mix in the loop, from a baseline trained first (paper, section 3.4)."""

from .evaluate import accuracy, predict
from .fit import TrainConfig, fit
from .mixing import mixing_aware

__all__ = ["TrainConfig", "accuracy", "fit", "mixing_aware", "predict"]
