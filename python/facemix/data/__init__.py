"""Faces: the ORL photographs, large data sets and folders on disk, and synthetic ones, drawn by formulas."""

from .cache import decoded
from .celeba import load_celeba
from .folder import load_folder
from .labelled import UNKNOWN, Labelled
from .lfwa import load_lfwa
from .orl import load_orl, orl_folder
from .photos import DataError, Photos
from .source import Splits, open_data
from .synthetic import synthetic_faces
from .transforms import MEAN, STD, change, channels_last, normalise

__all__ = [
    "MEAN",
    "STD",
    "UNKNOWN",
    "DataError",
    "Labelled",
    "Photos",
    "Splits",
    "change",
    "channels_last",
    "decoded",
    "load_celeba",
    "load_folder",
    "load_lfwa",
    "load_orl",
    "normalise",
    "open_data",
    "orl_folder",
    "synthetic_faces",
]
