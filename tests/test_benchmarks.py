"""The benchmarks' arithmetic, a tiny race, and that the README and docs/ say what the committed result files say."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import audit_table
import headline_table
import pytest
import race
import torch
from marked_pages import PAGES, rewrite
from peers import ConvMix
from processes import python
from race import Contestants, Race, check_agreement, with_variants
from report import COMMITTED, kernels, sections, text_table
from results import Result, quartiles
from roofline import draw
from torch import Tensor
from workloads import STEM, Convolution

import facemix_ops
from facemix_ops import MixKey

TINY = Convolution("tiny", 16, 3, 20, 18, 5, kernel=3, stride=2, padding=1, pool=(2, 2, 0))


def entry(**changes: Any) -> dict[str, Any]:
    """A result of four made-up rounds, the third of which was not steady."""
    return {
        "op": "conv_mix",
        "workload": "made-up",
        "threads": 2,
        "flop": 100,
        "bytes_read": 10,
        "bytes_written": 40,
        "bandwidth": {"write": 20.0, "copy": 10.0},
        "peaks": {
            "avx512": {"1": [25.0] * 4, "2": [50.0, 50.0, 30.0, 100.0]},
            "avx2": {"1": [10.0] * 4, "2": [20.0] * 4},
        },
        "steady": [True, True, False, True],
        "repeated": 7,
        "seconds": {
            "facemix/channels_last": [4.0, 5.0, 1000.0, 2.0],
            "facemix/channels_last+avx2": [10.0, 10.0, 1000.0, 20.0],
            "eager/contiguous": [8.0, 20.0, 1.0, 6.0],
            "compile/contiguous": [80.0, 200.0, 1.0, 60.0],
        },
    } | changes


def test_quartiles() -> None:
    assert quartiles([5, 1, 4, 2, 3]) == (3, 2, 4)
    assert quartiles([7]) == (7, 7, 7)


def test_ratios_are_taken_within_steady_rounds() -> None:
    result = Result(entry())
    assert result.time("facemix/channels_last").median == 4
    assert result.ratio("eager/contiguous", "facemix/channels_last") == (3, 2.5, 3.5)  # of 2, 4 and 3; not 8 / 4
    assert result.best("eager", "compile") == "eager/contiguous"
    assert result.best("onnxruntime") == ""
    assert result.ours == ["facemix/channels_last"]


def test_fractions_are_of_the_peak_of_the_same_round_and_instructions() -> None:
    result = Result(entry())
    assert result.of_fma_peak("facemix/channels_last") == 0.5  # of 25/50, 20/50 and 50/100
    assert result.of_fma_peak("facemix/channels_last+avx2") == 0.5  # of 10/20, 10/20 and 5/20
    assert result.of_write_peak("facemix/channels_last") == 0.5


def test_variants_stand_beside_and_are_never_the_best() -> None:
    seconds = {"facemix": [4.0] * 4, "facemix+1-thread": [8.0] * 4, "facemix+bf16": [1.0] * 4}
    result = Result(entry(seconds=seconds))
    assert result.best("facemix") == "facemix"
    assert result.of_fma_peak("facemix+1-thread") == 0.5  # of what one thread can do
    assert result.of_write_peak("facemix+bf16") == 1  # half of the bytes


def test_unsteady_rounds_count_where_no_other_is_left() -> None:
    assert Result(entry(steady=[False] * 4)).time("facemix/channels_last").median == 4.5


def test_work_is_counted_as_by_hand() -> None:
    assert STEM.out_shape == (32, 64, 109, 89)
    assert STEM.flop == 2 * math.prod(STEM.out_shape) * (3 * 7 * 7 + 8)
    assert TINY.out_shape == (16, 5, 5, 4)
    assert TINY.flop == 2 * 16 * 5 * 10 * 9 * 27 + 2 * 8 * 16 * 5 * 5 * 4


def tiny_contestants() -> tuple[Contestants, Tensor]:
    """conv_mix and its peer in eager PyTorch, and what they compute."""
    x, weight, bias = torch.randn(16, 3, 20, 18), torch.randn(5, 3, 3, 3), torch.randn(5)
    key = MixKey.sample(16, 8)
    ours = partial(facemix_ops.conv_mix, x, weight, bias, key, stride=2, padding=1, activation="relu", pool=2)
    eager = ConvMix(TINY, weight, bias, torch.empty(TINY.out_shape))
    coeffs, index = key.coeffs.float(), key.order.argsort()
    return with_variants("facemix", ours) | {"eager": partial(eager, x, coeffs, index)}, ours()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_race(threads: int, tmp_path: Path) -> None:
    torch.set_num_threads(threads)
    with torch.no_grad():
        contestants, expected = tiny_contestants()
        check_agreement(contestants, expected)
        race = Race(contestants, threads)
        for _ in range(2):
            race.round()
    assert len(race.steady) == 2
    assert all(len(times) == 2 and min(times) > 0 for times in race.times.values())
    made = entry(threads=threads, peaks=race.peaks, steady=race.steady, seconds=race.times)
    for name in contestants:
        assert name in text_table([made])
        assert Result(made).of_fma_peak(name) > 0
    json.dumps(made)


def test_a_round_counts_where_threads_add_up_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the peaks of then, whose means are kept; else it is run again."""
    for pause in ("PAUSE_SECONDS", "WAIT_SECONDS", "MIN_SECONDS"):
        monkeypatch.setattr(race, pause, 0.0)
    together = iter((20.0, 30.0, 20.0, 18.9, 18.9, 19.0, 20.0))  # of two threads; one by itself reaches 10

    def peaks() -> dict[str, list[float]]:
        each = [10.0, next(together)]
        return dict.fromkeys(race.capabilities(), each)

    found = Race({"nobody": lambda: torch.empty(0)}, 2)
    monkeypatch.setattr(found, "_peaks_now", peaks)
    found.round()
    assert (found.steady, found.repeated) == ([True], 0)
    found.round()
    assert (found.steady, found.repeated) == ([True, True], 1)
    assert all(by_threads == {"1": [10, 10], "2": [25, 19.5]} for by_threads in found.peaks.values())
    assert len(found.times["nobody"]) == 2


def test_a_contestant_that_computes_something_else_is_named() -> None:
    with torch.no_grad():
        contestants, expected = tiny_contestants()
        contestants["liar"] = lambda: expected + 0.1 * expected.abs().max()
        with pytest.raises(AssertionError, match="liar disagrees"):
            check_agreement(contestants, expected)
        contestants["liar"] = lambda: expected * math.nan
        with pytest.raises(AssertionError, match="liar disagrees"):
            check_agreement(contestants, expected)


def test_the_pages_say_what_the_committed_results_say(tmp_path: Path) -> None:
    copies = [tmp_path / page.name for page in PAGES]
    for copy, page in zip(copies, PAGES, strict=True):
        copy.write_bytes(page.read_bytes())
    rewrite(copies, sections(json.loads(COMMITTED.read_text())))
    for copy, page in zip(copies, PAGES, strict=True):
        assert copy.read_bytes() == page.read_bytes()


@pytest.mark.parametrize(
    "texts",
    [
        ("nothing here\n", "nor here\n"),
        ("<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->\n"),
        ("<!-- benchmarks: end -->\n<!-- benchmarks: begin -->\n", ""),
        ("<!-- benchmarks: begin -->\n<!-- benchmarks: end -->\n",) * 2,
        ("<!-- benchmarks: begin -->\n<!-- benchmarks: end -->\n" * 2, ""),
    ],
)
def test_pages_without_the_markers_or_with_them_twice_stay_as_they_are(texts: tuple[str, str], tmp_path: Path) -> None:
    pages = [tmp_path / "one.md", tmp_path / "other.md"]
    for page, text in zip(pages, texts, strict=True):
        page.write_text(text)
    with pytest.raises(ValueError, match=r"one of one\.md, other\.md must have the lines"):
        rewrite(pages, {"benchmarks": "section"})
    assert tuple(page.read_text() for page in pages) == texts


def test_the_headlines_are_of_the_fastest_layout_and_of_all_kernels() -> None:
    where = {"machine": {"cpu": "a CPU", "cores": 2}, "commit": "0123456789"}
    kernel = entry(workload="resnet-stem-pool")  # of ours 2 to 5 s; the best of PyTorch takes 2, 4 and 3 times as long
    # One that wins on one thread is in the range too.
    alone = entry(op="other", threads=1, seconds={"facemix": [4.0] * 4, "eager": [2.0] * 4})
    text = headline_table.section(where | {"results": [kernel, alone]})
    assert "| 4e+03 ms | the best of PyTorch 3.00x as long | a CPU, 2 cores; 0123456 |" in text
    assert "the best of PyTorch takes 0.50 to 3.00 times as long as ours." in text
    assert "ResNet's first convolution" not in headline_table.section(where | {"results": [entry(op="other")]})


def test_pytorch_keeps_its_memory(tmp_path: Path) -> None:
    """A tensor that follows another one finds its pages: without, each call begins with 16384 page faults of 4 KiB."""
    code = f"""
import sys
sys.path.insert(0, {str(COMMITTED.parents[1])!r})
import resource, torch
from kept_memory import keep_memory

assert keep_memory()
torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000


def test_a_caption_tells_whether_pytorch_kept_its_memory() -> None:
    data = json.loads(COMMITTED.read_text())
    assert "PyTorch keeps its memory" in kernels(data | {"memory kept": True})
    assert "PyTorch took fresh memory" in headline_table.section(data | {"memory kept": False})


def test_every_attack_has_a_row() -> None:
    data = audit_table.committed()
    names = [attack["name"] for attack in data["attacks"]]
    assert sorted(names) == sorted(audit_table.ROWS)
    assert set(audit_table.README) <= set(names)
    lines = audit_table.section(data, ("look", "group_matching", "known_image")).splitlines()
    (look,) = (attack for attack in data["attacks"] if attack["name"] == "look")
    assert lines[2].endswith(f" | {look['floor']:.3f} | **{look['result']:.3f}** | 1.000 |")
    assert lines[3].endswith(" | 0.0 % | **100 %** | 100 % |")  # of a variant: groups found whole
    assert lines[5].endswith(" |  | **1.000** |  |")  # of a variant that has neither floor nor ceiling


def test_the_papers_network_and_our_read_out_have_a_row_each() -> None:
    data = audit_table.committed()
    for attack in data["attacks"]:
        if attack["name"] in ("identity", "attributes"):
            papers, ours = audit_table.section(data, (attack["name"],)).splitlines()[2:4]
            assert "The paper's attack and network" in papers
            assert f"**{100 * attack['variants'][0]['result']:.1f} %**" in papers
            assert f"**{100 * attack['result']:.1f} %**" in ours  # the read-out is what the attack went by


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    draw(json.loads(COMMITTED.read_text()), tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_seconds_are_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 16.0))
    monkeypatch.setattr(race.time, "perf_counter", lambda: next(clock))
    assert race._seconds(lambda: torch.empty(0), 3) == 2.0
