"""The competition in ONNX Runtime: one graph (Conv, Relu, MaxPool, MatMul, Gather), bound to inputs and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor

TYPES = {torch.float32: (TensorProto.FLOAT, np.float32), torch.int64: (TensorProto.INT64, np.int64)}


class Graph:
    """A chain of nodes: each one's first input is the output of the one before it, "x" for the first."""

    def __init__(self) -> None:
        self.last = "x"
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: Tensor) -> str:
        """The name of a constant input."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.numpy(), name))
        return name

    def then(self, op: str, *inputs: str, first: str | None = None, **attributes: Any) -> Graph:
        """Appends a node that takes ``first`` (another tensor before the chain's), the chain's, and ``inputs``."""
        names = [*([first] if first else []), self.last, *inputs]
        self.last = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [self.last], **attributes))
        return self

    def reshape(self, *shape: int) -> Graph:
        return self.then("Reshape", self.constant(torch.tensor(shape)))

    def session(self, inputs: dict[str, Tensor], out: Tensor) -> Callable[[], Tensor]:
        """What runs the graph on ``inputs``, on as many threads as PyTorch has, and returns ``out``, filled."""
        described = [helper.make_tensor_value_info(name, TYPES[t.dtype][0], t.shape) for name, t in inputs.items()]
        result = helper.make_tensor_value_info(self.last, TYPES[out.dtype][0], out.shape)
        graph = helper.make_graph(self.nodes, "peer", described, [result], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        # Its threads spin within a run, but not into the measurement of the next contestant.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, t in inputs.items():
            binding.bind_input(name, "cpu", 0, TYPES[t.dtype][1], t.shape, t.data_ptr())
        binding.bind_output(self.last, "cpu", 0, TYPES[out.dtype][1], out.shape, out.data_ptr())

        def run() -> Tensor:
            session.run_with_iobinding(binding)
            return out

        return run
