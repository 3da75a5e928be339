"""Parsers of the commands: options in full, and errors of a line or two instead of pages of usage."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["Parser", "settings_parser"]

LIKE = 0.75  # of an option that may have been meant, to what was written
UNKNOWN = re.compile(r"(?:unrecognized arguments: --|(?:Group '([\w.]+)' does not accept option|Option) ')([^\s=']+)")
STRAY = re.compile(r"unrecognized arguments: [^-]")
FIRST = re.compile(r"\[(\w+)\]$")  # in the name of a command: what may stand before its options
CONFIG = re.compile(r"Unexpected config: ?(.*)", re.DOTALL)
SETTING = re.compile(r'Parser key "([^"]+)":\s+(.*)', re.DOTALL)
TYPE = re.compile(r"Expected a (.*?)\. Got|Subtypes: \[(.*)\]\s+Errors:", re.DOTALL)
VALUE = re.compile(r"(?:Got|Given) value: (.*)", re.DOTALL)
#: Python's names of types, and what to write on a command line.
WORDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'tuple'>": "a list such as '[1,2]'",
    "tuple with 2 elements": "a list such as '[1,2]'",
    "list[str]": "a list such as '[one,two]'",
    "<class 'dict'>": "settings such as '{\"width\": 0.5}'",
    "<class 'NoneType'>": "null",
}


class Brief:
    """Mixed into a parser."""

    prog: str
    _option_string_actions: dict[str, Any]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong, and end with status 2."""
        command = self.prog.split(" [")[0]
        plain = " ".join(self._plain(message).split())
        print(f"{command}: error: {plain}\n{command} --help lists all options", file=sys.stderr)
        sys.exit(2)

    def _plain(self, message: str) -> str:
        if unknown := UNKNOWN.match(message):
            near = difflib.get_close_matches("--" + ".".join(filter(None, unknown.groups())), self._options(), 1, LIKE)
            return message + (f"; did you mean {near[0]}?" if near else "")
        if STRAY.match(message) and (first := FIRST.search(self.prog)):
            return f"{message}; one {first[1]} may be given, before all options"
        if config := CONFIG.fullmatch(message):
            return f"a file of settings must hold some by name, such as 'mix: {{group_size: 4}}', got {config[1]!r}"
        setting = SETTING.fullmatch(message)
        kind, value = (pattern.search(message) for pattern in (TYPE, VALUE))
        if setting is None:
            return message
        if kind is None or value is None:
            return f"{self._option(setting[1])}: {setting[2]}"
        types = [_words(name) for name in re.split(r", (?![^\[]*\])", kind[1] or kind[2])]
        return f"{self._option(setting[1])} must be {' or '.join(types)}, got {value[1]}"

    def _option(self, key: str) -> str:
        """As it is written: some have dashes where their keys have not."""
        return next((name for name in self._options() if self._option_string_actions[name].dest == key), f"--{key}")

    def _options(self) -> list[str]:
        return [option for option in self._option_string_actions if option.startswith("--")]


def _words(name: str) -> str:
    if name.startswith("typing.Literal["):
        return "one of " + name.removeprefix("typing.Literal[").removesuffix("]").replace("'", "")
    return WORDS.get(name, name)


class Parser(Brief, argparse.ArgumentParser):
    """argparse's, without abbreviations: one of `--seeds` must not be taken for it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})


def settings_parser(prog: str, description: str) -> ArgumentParser:
    """jsonargparse's, which knows dataclasses of settings; no abbreviations either."""
    from jsonargparse import ArgumentParser

    class SettingsParser(Brief, ArgumentParser):
        pass

    return SettingsParser(prog=prog, description=description, allow_abbrev=False)
