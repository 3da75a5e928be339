"""What `facemix infer` writes: JSON, CSV and tables of any names, guesses, attributes and errors."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from facemix.infer.results import WRITERS, Attribute, Guess, Row

ODD = [
    "a,b.png",
    'quo"te.png',
    "new\nline.png",
    "[red]markup[/red].png",
    "\x1b[31mescape.png",
    "byte\udcff.png",
    "ä.png",
]


def written(format: str, rows: list[Row], complete: bool = True, model: dict[str, Any] | None = None) -> str:
    stream = io.StringIO()
    writer = WRITERS[format](stream, model or {"name": "middle"})
    for row in rows:
        writer.add(row)
    writer.finish({"images": len(rows)}, complete)
    return stream.getvalue()


def test_odd_names_and_long_ones() -> None:
    rows = [Row(name, [Guess(3, "dot", 1.5)]) for name in [*ODD, "x" * 300 + ".png"]]
    entries = json.loads(written("json", rows))["images"]
    lines = list(csv.DictReader(io.StringIO(written("csv", rows))))
    assert [entry["image"] for entry in entries] == [line["image"] for line in lines]
    expected = [*ODD[:5], "byte\\xff.png", "ä.png", "x" * 300 + ".png"]
    assert [line["image"] for line in lines] == expected
    table = written("table", rows)
    assert "[red]markup[/red].png" in table
    assert "\x1b" not in table
    assert "\\x1b[31mescape.png" in table
    assert "x" * 300 in table  # no terminal: nothing is cut off
    assert len(table.strip().splitlines()) == 2 + len(rows)


ROWS = [
    Row("a.png", [Guess(3, "dot", 12.25), Guess(1, "ben", -0.5)]),
    Row("b.png", error="must be an image, got an empty file"),
    Row("c.png", [Guess(2, None, 1e-7), Guess(0, None, 0.0)]),
]


def test_json() -> None:
    document = json.loads(written("json", ROWS, complete=False))
    assert document == {
        "model": {"name": "middle"},
        "images": [
            {"image": "a.png", "guesses": [{"label": 3, "name": "dot", "score": 12.25},
                                           {"label": 1, "name": "ben", "score": -0.5}]},
            {"image": "b.png", "error": "must be an image, got an empty file"},
            {"image": "c.png", "guesses": [{"label": 2, "name": None, "score": 1e-7},
                                           {"label": 0, "name": None, "score": 0.0}]},
        ],
        "cost": {"images": 3},
        "complete": False,
    }  # fmt: skip
    assert json.loads(written("json", []))["images"] == []


def test_csv() -> None:
    assert written("csv", ROWS).splitlines() == [
        "image,rank,label,name,score,error",
        "a.png,1,3,dot,12.25,",
        "a.png,2,1,ben,-0.5,",
        'b.png,,,,,"must be an image, got an empty file"',
        "c.png,1,2,,1e-07,",
        "c.png,2,0,,0,",
    ]


def test_table() -> None:
    lines = [line.split() for line in written("table", ROWS).splitlines()]
    assert lines[0] == ["image", "class", "score"]
    assert lines[2:4] == [["a.png", "dot", "12.25"], ["ben", "-0.50"]]
    assert lines[4] == ["b.png", "must", "be", "an", "image,", "got", "an", "empty", "file"]
    assert lines[5] == ["c.png", "2", "0.00"]


def test_attributes_in_all_formats() -> None:
    rows = [
        Row("a.png", attributes=[Attribute("[hat]", 0.98765432), Attribute("tie", 0.5)]),
        Row("b.png", error="must be an image, got an empty file"),
    ]
    model = {"name": "middle", "attributes": ["[hat]", "tie"]}
    document = json.loads(written("json", rows, model=model))
    assert document["images"] == [
        {
            "image": "a.png",
            "attributes": {"[hat]": {"yes": True, "probability": 0.987654}, "tie": {"yes": False, "probability": 0.5}},
        },
        {"image": "b.png", "error": "must be an image, got an empty file"},
    ]
    assert written("csv", rows, model=model).splitlines() == [
        "image,attribute,answer,probability,error",
        "a.png,[hat],yes,0.987654,",
        "a.png,tie,no,0.5,",
        'b.png,,,,"must be an image, got an empty file"',
    ]
    lines = [line.split() for line in written("table", rows, model=model).splitlines()]
    assert lines[0] == ["image", "attribute", "answer", "probability"]
    assert lines[2:4] == [["a.png", "[hat]", "yes", "0.988"], ["tie", "no", "0.500"]]
    assert lines[4][:4] == ["b.png", "must", "be", "an"]
