"""Faces: the ORL photographs, and a generator of synthetic ones for tests."""

from .faces import Faces
from .orl import load_orl, orl_folder
from .synthetic import synthetic_faces
from .transforms import MEAN, STD, augment, normalise

__all__ = ["MEAN", "STD", "Faces", "augment", "load_orl", "normalise", "orl_folder", "synthetic_faces"]
