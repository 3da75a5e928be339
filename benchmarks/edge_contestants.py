"""One contestant of benchmarks/edge.py, in a process of its own: the edge half of a network, timed.

    python benchmarks/edge_contestants.py CONTESTANT FOLDER THREADS REPEATS

CONTESTANT is facemix, torch or onnxruntime; FOLDER holds what benchmarks/edge.py wrote. Prints one line of JSON. Each
imports nothing but what it needs: the time of that and the process's peak memory are part of the result.

facemix draws a fresh key and a fresh grouping for every request and checks all it is given. The others get both for
free: their coefficients and their order were drawn before, and they check nothing. Afterwards everybody scores the same
thing, whatever its key: its own mixture's first values, come back as they were sent.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

WARM_UP = 5


class Half(NamedTuple):
    """images -> what is sent, as an array or in something of the contestant's own; ``answer`` -> scores, likewise."""

    mix: Callable[[], Any]
    reply: Callable[[Any], Any]
    answer: Any  # an array [N, features], read by ``reply``
    payload: Callable[[Any], Any]
    scores: Callable[[Any], Any]


def facemix(folder: str, threads: int) -> tuple[Callable[[], Half], str]:
    import numpy as np

    from facemix_ops.edge import EdgeModel
    from facemix_ops.native import C

    def load() -> Half:
        model = EdgeModel.load(f"{folder}/edge.safetensors", threads=threads)
        images, answer = np.load(f"{folder}/images.npy"), np.load(f"{folder}/reply.npy")
        out = np.empty(model.payload_shape(len(images)), np.float32)
        return Half(
            lambda: model.mix(images, out=out),
            lambda request: request.classify(answer),
            answer,
            lambda request: request.payload,
            lambda result: result.scores,
        )

    return load, C.capability()


def torch(folder: str, threads: int) -> tuple[Callable[[], Half], str]:
    import numpy as np
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)

    def load() -> Half:
        with np.load(f"{folder}/network.npz") as file:
            n = {name: torch.from_numpy(value) for name, value in file.items()}
        images, answer = (torch.from_numpy(np.load(f"{folder}/{name}.npy")) for name in ("images", "reply"))
        weight, bias = n["weight"].contiguous(memory_format=torch.channels_last), n["bias"]
        groups, size = n["coeffs"].shape[:2]
        mixed, out = torch.empty(0), torch.empty(0)  # take their shapes with the first request, and are reused

        def mix() -> torch.Tensor:
            x = images.permute(0, 3, 1, 2).float().mul_(n["factor"]).add_(n["offset"])  # channels_last: the faster
            z = F.relu_(F.conv2d(x, weight, bias, stride=2, padding=3))
            if n["pooled"]:
                z = F.max_pool2d(z, 3, 2, 1)
            torch.matmul(n["coeffs"], z.contiguous().view(groups, size, -1), out=mixed)
            return torch.index_select(mixed.view(z.shape), 0, n["inverse"], out=out)

        def reply(_: Any) -> torch.Tensor:
            rows = answer.index_select(0, n["order"]).view(groups, size, -1)
            return F.linear(torch.matmul(n["coeffs"].mT, rows).flatten(0, 1), n["last_weight"], n["last_bias"])

        return Half(mix, reply, answer.numpy(), lambda sent: sent.numpy(), lambda scores: scores.numpy())

    return load, torch.backends.cpu.get_cpu_capability()


def onnxruntime(folder: str, threads: int) -> tuple[Callable[[], Half], str]:
    import numpy as np
    import onnxruntime

    def session(name: str, inputs: dict[str, Any]) -> Callable[[], Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        run = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options, ["CPUExecutionProvider"])
        binding = run.io_binding()
        held = {key: np.ascontiguousarray(value) for key, value in inputs.items()}
        for key, value in held.items():
            binding.bind_input(key, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        out = np.empty(run.get_outputs()[0].shape, np.float32)
        binding.bind_output(run.get_outputs()[0].name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)

        def call() -> Any:
            run.run_with_iobinding(binding)
            return held, out

        return call

    def load() -> Half:
        with np.load(f"{folder}/network.npz") as file:
            key = {name: file[name] for name in ("coeffs", "order", "inverse")}
        mix = session(
            "mix", {"images": np.load(f"{folder}/images.npy"), "coeffs": key["coeffs"], "inverse": key["inverse"]}
        )
        answer = np.load(f"{folder}/reply.npy")
        reply = session("reply", {"reply": answer, "coeffs": key["coeffs"].mT, "order": key["order"]})
        return Half(mix, lambda _: reply(), answer, lambda held: held[1], lambda held: held[1])

    return load, onnxruntime.__version__


def peak_bytes(process: str = "self") -> int:
    """Peak resident memory. Not ru_maxrss, which in a child process counts the parent's too."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def main() -> None:
    name, folder, threads, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    clock = time.perf_counter
    start = clock()
    load, capability = {"facemix": facemix, "torch": torch, "onnxruntime": onnxruntime}[name](folder, threads)
    imported = clock()
    half = load()
    loaded = clock()
    half.reply(half.mix())
    first = clock()
    mix, reply = [], []
    for repeat in range(WARM_UP + repeats):
        times = [clock()]
        request = half.mix()
        times.append(clock())
        half.reply(request)
        times.append(clock())
        if repeat >= WARM_UP:
            mix.append(times[1] - times[0])
            reply.append(times[2] - times[1])
    peak = peak_bytes()
    request = half.mix()
    half.answer[:] = half.payload(request).reshape(len(half.answer), -1)[:, : half.answer.shape[1]]
    result = {
        "import_s": imported - start,
        "load_s": loaded - imported,
        "first_s": first - loaded,
        "mix_s": mix,
        "reply_s": reply,
        "peak_bytes": peak,
        "scores": half.scores(half.reply(request)).tolist(),
        "capability": capability,
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # nobody waits for thread pools


if __name__ == "__main__":
    main()
