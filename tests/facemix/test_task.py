"""What a network is trained to tell: losses, decisions, distillation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from facemix.data import UNKNOWN
from facemix.training.task import AttributeTask, IdentityTask


def test_the_loss_of_attributes_leaves_out_what_is_unknown() -> None:
    task = AttributeTask(("a", "b", "c"))
    scores = torch.randn(5, task.outputs, dtype=torch.float64)
    labels = torch.randint(0, 2, (5, 3)).to(torch.int8)
    labels[0, 0] = labels[3, 2] = UNKNOWN
    total = sum(
        F.cross_entropy(scores[row, 2 * head : 2 * head + 2].float(), labels[row, head].long()).item()
        for row in range(5)
        for head in range(3)
        if labels[row, head] != UNKNOWN
    )
    assert task.loss(scores, labels).item() == pytest.approx(total / 15)
    decided = task.decide(scores)
    assert decided.tolist() == [[int(b > a) for a, b in row.view(3, 2)] for row in scores]
    assert task.words(torch.tensor([[1, 0, 1], [0, 0, 0]])) == ["a, c", "none"]


@pytest.mark.parametrize("task", [IdentityTask(6), AttributeTask(("a", "b", "c"))])
def test_distillation_is_least_where_the_teacher_is(task: IdentityTask | AttributeTask) -> None:
    teacher = torch.randn(4, 6)
    assert task.distillation(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert task.distillation(teacher + torch.randn(4, 6), teacher, 2.0).item() > 0.01
