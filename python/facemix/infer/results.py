"""Results as they come out: a table to look at, JSON or CSV to go on with."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from facemix.console import Console

__all__ = ["WRITERS", "Attribute", "Guess", "Row", "Writer"]

# Columns of CSV, between the image and the error.
GUESS_COLUMNS, ATTRIBUTE_COLUMNS = ("rank", "label", "name", "score"), ("attribute", "answer", "probability")
WIDE = 10_000  # columns of what is no terminal: nothing is cut off or wrapped


@dataclass(frozen=True)
class Guess:
    """A class, its name where classes have names, and its score: the network's, no probability."""

    label: int
    name: str | None
    score: float


@dataclass(frozen=True)
class Attribute:
    """An attribute, and the network's probability that the image has it."""

    name: str
    probability: float

    @property
    def answer(self) -> str:
        """yes or no."""
        return "yes" if self.probability > 0.5 else "no"


@dataclass(frozen=True)
class Row:
    """What came of an image: guesses, the best one first, or all attributes, or the reason why there is neither."""

    image: str
    guesses: Sequence[Guess] = ()
    error: str | None = None
    attributes: Sequence[Attribute] = ()


class Writer(Protocol):
    """One format. Nothing is written before the first row, so that a run that fails at once leaves nothing. `model` has
    "attributes" where the rows have them, and not guesses.
    """

    def __init__(self, stream: TextIO, model: dict[str, Any]) -> None: ...

    def add(self, row: Row) -> None:
        """Write a row."""

    def finish(self, cost: dict[str, Any], complete: bool) -> None:
        """Write the end; `complete` says whether there are rows for all images."""


class TableWriter:
    """For people; written when all rows are there, because columns are as wide as their widest entry."""

    def __init__(self, stream: TextIO, model: dict[str, Any]) -> None:
        self._console = Console(file=stream, width=None if stream.isatty() else WIDE)
        self._table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        self._table.add_column("image", overflow="fold")
        kind, *numbers = ATTRIBUTE_COLUMNS if "attributes" in model else ("class", "score")
        self._table.add_column(kind, overflow="fold")
        for number in numbers:
            self._table.add_column(number, justify="right", no_wrap=True)

    def add(self, row: Row) -> None:
        image = Text(_printable(row.image))
        if row.error is not None:
            self._table.add_row(image, Text(_printable(row.error), style="red"))
        for guess in row.guesses:
            name = str(guess.label) if guess.name is None else guess.name
            self._table.add_row(image, Text(_printable(name)), f"{guess.score:.2f}")
            image = Text("")
        for of in row.attributes:
            self._table.add_row(image, Text(_printable(of.name)), of.answer, f"{of.probability:.3f}")
            image = Text("")

    def finish(self, cost: dict[str, Any], complete: bool) -> None:
        self._console.print(self._table)


class CsvWriter:
    """One line for each guess or attribute, or for the error; each image's lines are written at once."""

    def __init__(self, stream: TextIO, model: dict[str, Any]) -> None:
        self._stream, self._writer, self._begun = stream, csv.writer(stream, lineterminator="\n"), False
        self._columns = ATTRIBUTE_COLUMNS if "attributes" in model else GUESS_COLUMNS

    def add(self, row: Row) -> None:
        if not self._begun:
            self._writer.writerow(("image", *self._columns, "error"))
            self._begun = True
        image = _text(row.image)
        if row.error is not None:
            self._writer.writerow((image, *[""] * len(self._columns), row.error))
        for rank, guess in enumerate(row.guesses, 1):
            self._writer.writerow((image, rank, guess.label, guess.name or "", f"{guess.score:.6g}", ""))
        for of in row.attributes:
            self._writer.writerow((image, of.name, of.answer, f"{of.probability:.6g}", ""))
        self._stream.flush()

    def finish(self, cost: dict[str, Any], complete: bool) -> None:
        pass


class JsonWriter:
    """One document: the model, the images, a line each, what they cost, and whether they are all there."""

    def __init__(self, stream: TextIO, model: dict[str, Any]) -> None:
        self._stream, self._model, self._begun = stream, model, False

    def add(self, row: Row) -> None:
        entry: dict[str, Any] = {"image": _text(row.image)}
        if row.error is not None:
            entry["error"] = row.error
        elif row.attributes:
            entry["attributes"] = {
                of.name: {"yes": of.answer == "yes", "probability": float(f"{of.probability:.6g}")}
                for of in row.attributes
            }
        else:
            entry["guesses"] = [
                {"label": guess.label, "name": guess.name, "score": float(f"{guess.score:.6g}")}
                for guess in row.guesses
            ]
        self._write("\n  " + json.dumps(entry), separator=",")
        self._stream.flush()

    def finish(self, cost: dict[str, Any], complete: bool) -> None:
        self._write(f'\n ],\n "cost": {json.dumps(cost)},\n "complete": {json.dumps(complete)}}}\n')

    def _write(self, text: str, separator: str = "") -> None:
        start = separator if self._begun else f'{{"model": {json.dumps(self._model)},\n "images": ['
        self._begun = True
        self._stream.write(start + text)


WRITERS: dict[str, type[Writer]] = {"table": TableWriter, "json": JsonWriter, "csv": CsvWriter}


def _text(path: str) -> str:
    """A path as text; bytes in it that are no UTF-8 as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _printable(text: str) -> str:
    """Without characters that would steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in _text(text))
