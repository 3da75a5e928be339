import pytest
from audit_scenes import OneTimePad, PixelEdge, scene
from facemix.audit.attacks.look import Look


def look(edge):
    return Look().run(scene(edge), lambda done: None)


def test_rows_that_are_sent_as_they_are_show_everything():
    outcome = look(PixelEdge(1))
    assert outcome.result == pytest.approx(1)
    assert outcome.recovered == pytest.approx(1)
    assert outcome.floor < 0.2  # the other photograph of the same person, which is in the request too, is no stranger


def test_mixed_rows_show_something():
    outcome = look(PixelEdge(4))
    assert 0.4 < outcome.result < 0.9
    assert outcome.interval[0] < outcome.result < outcome.interval[1]


def test_a_one_time_pad_shows_nothing():
    assert look(OneTimePad(4)).recovered < 0.05


def test_the_picture_has_the_photographs_the_features_and_the_rows():
    lines = look(PixelEdge(4)).pictures
    sent = "the most similar\nrow that was sent"
    assert [line.caption for line in lines] == ["photographs", "their features", sent, f"{sent},\nas a photograph"]
    assert {len(line.pictures) for line in lines} == {8}
