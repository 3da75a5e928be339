import torch
from audit_scenes import linear, textures
from facemix.audit.same_person import same_person


def test_the_same_person_is_told_whatever_the_signs_of_rows():
    faces = textures(6, 2, 1)
    rows = torch.from_numpy(faces.images).float()
    sign = torch.tensor([1.0, -1.0]).repeat(6).view(-1, 1, 1, 1)
    assert same_person(linear, rows * sign, faces.identity).tolist() == [1.0] * 12


def test_noise_is_of_nobody():
    rows = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert abs(same_person(linear, rows, torch.arange(200) // 4).mean() - 0.5) < 0.05


def test_whoever_is_there_once_does_not_count_and_equal_outputs_tell_half():
    found = same_person(lambda rows: torch.zeros(len(rows), 3), torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 0, 2, 0]))
    assert found.tolist() == [0.5] * 3
