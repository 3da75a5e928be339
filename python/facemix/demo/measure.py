"""The test faces through the cloud and back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facemix.data import MEAN, STD, Faces, normalise
from facemix.edge import Answer, CloudClient, Edge
from facemix.edge.transport import Reply
from facemix.export import export_cloud, export_edge
from facemix.partition import partition

from .cloud_process import cloud_process
from .models import BUILDER, Trained
from .settings import DemoSettings

__all__ = ["Passage", "through_cloud"]


@dataclass(frozen=True)
class Passage:
    """What came of sending the test faces through the cloud.

    Attributes:
        accuracies: of each round, 0 to 1.
        bytes_up, bytes_down, edge_ms, cloud_ms, network_ms: mean per image, over all rounds.
        requests: how many were sent.
        faces: the images [n, C, H, W] of one of the requests.
        identity: int64 [n], who they are.
        predicted: int64 [n], what the edge made of the answer.
        received: [rows, channels, h, w], what the cloud received for them.
    """

    accuracies: list[float]
    bytes_up: float
    bytes_down: float
    edge_ms: float
    cloud_ms: float
    network_ms: float
    requests: int
    faces: Tensor
    identity: Tensor
    predicted: Tensor
    received: NDArray[np.floating]


class _Recorder(CloudClient):
    """A client that remembers what it sent last, to show it."""

    sent: NDArray[np.floating]

    def infer(self, features: NDArray[np.floating]) -> Reply:
        self.sent = features.copy()
        return super().infer(features)


def through_cloud(
    trained: Trained, name: str, settings: DemoSettings, test: Faces, decoys: Tensor, folder: Path
) -> Passage:
    """Serve the middle of `trained` from a process of its own and send `test` through it, `settings.rounds`
    times. Beside the cloud's file lies the edge's, for a device without PyTorch (`facemix_ops.edge`).

    Args:
        trained: the network.
        name: what the cloud calls it is this and "-cloud".
        test: whom to recognise.
        decoys: public images [D, C, H, W], values 0 to 1.
        folder: where to put the files.
    """
    served = f"{name}-cloud"
    path = folder / f"{served}.safetensors"
    channels, height, width = test.images.shape[1:]
    export_cloud(path, trained.model, BUILDER, trained.options, (channels, height, width), name=served)
    pixels = (255 * decoys).round().byte().permute(0, 2, 3, 1)
    export_edge(
        folder / f"{name}-edge.safetensors",
        trained.model,
        (channels, height, width),
        name=served,
        group_size=settings.group_size,
        mean=[MEAN] * channels,
        std=[STD] * channels,
        max_coeff=settings.max_coeff,
        calibration=pixels,
        decoys=pixels,
    )
    with cloud_process(path) as address, contextlib.closing(_Recorder(address, served)) as client:
        edge = Edge(
            partition(trained.model),
            client,
            group_size=settings.group_size,
            decoys=normalise(decoys),
            max_coeff=settings.max_coeff,
        )
        # Warm up: the first request pays for allocations.
        edge.classify(normalise(test.images[: settings.group_size]))
        answers: list[Answer] = []
        accuracies = []
        for _ in range(settings.rounds):
            rows = torch.randperm(len(test))
            hits = 0
            for chunk in rows.split(settings.request_groups * settings.group_size):
                answers.append(edge.classify(normalise(test.images[chunk])))
                hits += int((answers[-1].scores.argmax(1) == test.identity[chunk]).sum())
            accuracies.append(hits / len(test))
        received = client.sent
    images = settings.rounds * len(test)
    return Passage(
        accuracies=accuracies,
        bytes_up=sum(answer.bytes_up for answer in answers) / images,
        bytes_down=sum(answer.bytes_down for answer in answers) / images,
        edge_ms=1e3 * sum(answer.edge_seconds for answer in answers) / images,
        cloud_ms=1e3 * sum(answer.cloud_seconds for answer in answers) / images,
        network_ms=1e3 * sum(answer.network_seconds for answer in answers) / images,
        requests=len(answers),
        faces=test.images[chunk],
        identity=test.identity[chunk],
        predicted=answers[-1].scores.argmax(1),
        received=received,
    )
