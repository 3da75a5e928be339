"""The fields of a bundle's config: each is there, has its type, and none is left over."""

from __future__ import annotations

from typing import Any, Literal, NoReturn, overload

from .errors import BundleError

MAX_INTEGER = 1 << 20
MAX_NUMBER = 1e6  # float32 arithmetic on such numbers stays finite

Pair = tuple[int, int]


class Fields:
    """Takes the values out of `config`, one field after another. Everything raises BundleError."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def finish(self) -> None:
        """There must be no other fields."""
        if self._config:
            raise BundleError(f"the config must have no other fields, got {sorted(self._config)}"[:200])

    def integer(self, field: str, low: int, high: int) -> int:
        value = self._take(field)
        if type(value) is not int or not low <= value <= high:
            _bad(field, f"be an integer from {low} to {high}", value)
        return value

    @overload
    def integers(self, field: str, count: Literal[2], low: int) -> Pair: ...
    @overload
    def integers(self, field: str, count: Literal[3], low: int) -> tuple[int, int, int]: ...
    def integers(self, field: str, count: int, low: int) -> Any:
        return _integers(field, self._take(field), count, low)

    def numbers(self, field: str, count: int) -> tuple[float, ...]:
        values = self._take(field)
        if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
            _bad(field, f"be {count} numbers of at most {MAX_NUMBER:g}", values)
        return tuple(map(float, values))

    def optional_number(self, field: str) -> float | None:
        value = self._take(field)
        if value is not None and not _is_number(value):
            _bad(field, f"be null or a number of at most {MAX_NUMBER:g}", value)
        return value

    def text(self, field: str, longest: int) -> str:
        value = self._take(field)
        if not _is_text(value, longest):
            _bad(field, f"be a text of 1 to {longest} printable characters", value)
        return value

    def texts(self, field: str, count: int, longest: int) -> tuple[str, ...] | None:
        values = self._take(field)
        if values is None:
            return None
        if not isinstance(values, list) or len(values) != count or not all(_is_text(v, longest) for v in values):
            _bad(field, f"be {count} texts of 1 to {longest} printable characters, or null", values)
        return tuple(values)

    def names(self, field: str, longest: int) -> tuple[str, ...] | None:
        values = self._take(field)
        if values is None:
            return None
        good = isinstance(values, list) and values and all(_is_text(v, longest) for v in values)
        if not good or len(set(values)) != len(values):
            _bad(field, f"be different texts of 1 to {longest} printable characters, or null", values)
        return tuple(values)

    def choice(self, field: str, choices: tuple[str, ...]) -> str:
        value = self._take(field)
        if value not in choices:
            _bad(field, f"be one of {', '.join(choices)}", value)
        return value

    def activation(self, field: str) -> str | tuple[str, float] | None:
        match self._take(field):
            case (None | "relu") as value:
                return value
            case ["leaky_relu", slope] if _is_number(slope):
                return "leaky_relu", float(slope)
            case value:
                _bad(field, 'be null, "relu" or ["leaky_relu", slope]', value)

    def pool(self, field: str) -> tuple[Pair, Pair, Pair] | None:
        value = self._take(field)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 3:
            _bad(field, "be null or [kernel, stride, padding]", value)
        kernel, stride, padding = value
        return _integers(field, kernel, 2, 1), _integers(field, stride, 2, 1), _integers(field, padding, 2, 0)

    def _take(self, field: str) -> Any:
        if field not in self._config:
            raise BundleError(f"the config must have {field!r}, got none")
        return self._config.pop(field)


def _integers(field: str, values: Any, count: int, low: int) -> Any:
    good = isinstance(values, list) and len(values) == count
    if not good or not all(type(v) is int and low <= v <= MAX_INTEGER for v in values):
        _bad(field, f"be {count} integers from {low} to {MAX_INTEGER}", values)
    return tuple(values)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER


def _is_text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= longest and value.isprintable()


def _bad(field: str, rule: str, got: Any) -> NoReturn:
    raise BundleError(f"{field} must {rule}, got {repr(got)[:80]}")
