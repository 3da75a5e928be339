"""The test faces through the cloud and back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facemix.data import Labelled, channels_last
from facemix.edge import Answer, Client
from facemix.training.stages import Trained
from facemix_ops.edge import EdgeModel

from .cloud_process import cloud_process
from .halves import write_halves
from .recorder import Mixed, Recorder
from .settings import DemoSettings

__all__ = ["Passage", "through_cloud"]


@dataclass(frozen=True)
class Passage:
    """What came of sending the test faces through the cloud.

    Attributes:
        accuracies: of each round, 0 to 1.
        bytes_up, bytes_down, edge_ms, cloud_ms, network_ms: mean per image, over all rounds.
        requests: how many were sent.
        faces: the images of one of the requests, uint8 [n, C, H, W].
        identity: int64 [n], who they are.
        predicted: int64 [n], what the edge made of the answer.
        received: [rows, channels, h, w], what the cloud received for them.
        cloud, edge: files of the two halves.
    """

    accuracies: list[float]
    bytes_up: float
    bytes_down: float
    edge_ms: float
    cloud_ms: float
    network_ms: float
    requests: int
    faces: NDArray[np.uint8]
    identity: Tensor
    predicted: Tensor
    received: NDArray[np.floating]
    cloud: Path
    edge: Path


def through_cloud(
    trained: Trained, name: str, settings: DemoSettings, test: Labelled, decoys: NDArray[np.uint8], folder: Path
) -> Passage:
    """Serve the middle of `trained` from a process of its own and send `test` through it, `settings.rounds`
    times, from the edge's bundle that lies beside the cloud's file.

    Args:
        trained: the network.
        name: what the cloud calls it is this and "-cloud".
        test: whom to recognise.
        decoys: public images, uint8 [D, C, H, W].
        folder: where to put the files.
    """
    identity = test.labels("identity")
    channels, height, width = test.images.shape[1:]
    path, bundle = write_halves(trained, name, settings, (channels, height, width), decoys, folder)
    half, images = Recorder(EdgeModel.load(bundle)), channels_last(test.images)
    mixed = deque[Mixed](maxlen=1)
    half.listen = mixed.append
    with (
        cloud_process(path) as address,
        Client(half, address, request_groups=settings.request_groups) as client,
    ):
        # Warm up: the first request pays for allocations.
        client.classify(images[: settings.group_size])
        answers: list[Answer] = []
        accuracies = []
        for _ in range(settings.rounds):
            rows = torch.randperm(len(test))
            hits = 0
            for chunk in rows.split(settings.request_groups * settings.group_size):
                answers.append(client.classify(images[chunk.numpy()]))
                hits += int((answers[-1].labels == identity[chunk].numpy()).sum())
            accuracies.append(hits / len(test))
    total = settings.rounds * len(test)
    return Passage(
        accuracies=accuracies,
        bytes_up=sum(answer.cost.bytes_up for answer in answers) / total,
        bytes_down=sum(answer.cost.bytes_down for answer in answers) / total,
        edge_ms=1e3 * sum(answer.cost.edge_seconds for answer in answers) / total,
        cloud_ms=1e3 * sum(answer.cost.cloud_seconds for answer in answers) / total,
        network_ms=1e3 * sum(answer.cost.network_seconds for answer in answers) / total,
        requests=sum(answer.cost.requests for answer in answers),
        faces=test.images[chunk.numpy()],
        identity=identity[chunk],
        predicted=torch.from_numpy(answers[-1].labels),
        received=mixed[0].rows(),
        cloud=path,
        edge=bundle,
    )
