import pytest
import torch
from audit_scenes import PixelEdge, scene
from facemix.audit.control import judged
from facemix.audit.grouping import groups_of_images


class HalvedEdge(PixelEdge):
    """Sends each image in two parts."""

    def clean(self, images):
        return torch.stack(super().clean(images).chunk(2, 2), 1).flatten(0, 1)


@pytest.mark.parametrize(
    ("floor", "result", "ceiling", "ended", "status", "reason"),
    [
        (0.5, 0.9, 1.0, 1.0, "done", ""),
        (0.5, 0.9, 1.0, 0.0, "done", ""),  # it succeeded before it ended
        (0.5, 0.6, 1.0, 1.0, "done", ""),
        (0.5, 0.6, 1.0, 0.5, "not converged", "ran out of steps in 50%"),
        (0.5, 0.5, 0.55, 1.0, "not converged", "gets 0.55 of unprotected rows"),
    ],
)
def test_a_low_result_counts_only_if_the_attack_works_and_ended(floor, result, ceiling, ended, status, reason):
    found = judged(floor, result, ceiling, ended)
    assert found[0] == status
    assert reason in found[1]


def test_images_that_are_sent_in_parts_make_more_groups_of_rows():
    assert groups_of_images(scene(PixelEdge(4)), 8) == 8
    assert groups_of_images(scene(HalvedEdge(4)), 8) == 4
    assert groups_of_images(scene(HalvedEdge(4)), 1) == 1
