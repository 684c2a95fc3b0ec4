"""toml_file: a TOML file as an instance of a frozen dataclass, whose fields are its keys."""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from slm2c.errors import CompileError, Problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

Fault = tuple[str, str]
"""What is wrong with a value, after its key, and what helps."""

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def load(path: Path) -> dict[str, Any]:
    """The table of a TOML file. Raises CompileError if it cannot be read, or is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CompileError(Problem(str(path), "", f"cannot be read: {error.strerror}", "name a TOML file")) from error
    except RecursionError as error:
        raise CompileError(Problem(str(path), "", "nests too deeply", "no key here holds a list of lists")) from error
    except ValueError as error:
        if "int_max_str_digits" in str(error):  # Python's own limit, and its own remedy
            raise CompileError(Problem(str(path), "", "holds a number of thousands of digits", "shorten it")) from error
        raise CompileError(Problem(str(path), "", f"not a TOML file: {error}", "correct it there")) from error


def record(kind: type[T], table: Mapping[str, Any], source: str, default: T | None = None) -> T:
    """An instance of the dataclass `kind` with the fields that `table` gives; what it leaves out is that of `default`,
    else the field's. None stands for an absent key.

    A value stands for a list of one, and a number for a pair of floats. Raises CompileError with all that is unknown,
    missing or of another type, each naming `source` and key.
    """
    found: list[Fault] = []
    made = _record(kind, table, "", default, found)
    refuse(source, found)
    assert isinstance(made, kind)
    return made


def refuse(source: str, faults: Iterable[Fault]) -> None:
    """Raises CompileError with the faults of a file; returns if there are none."""
    if problems := [Problem(source, "", fact, remedy) for fact, remedy in faults]:
        raise CompileError(problems)


def shown(value: object) -> str:
    """A value for a message: short, however long it is."""
    if isinstance(value, int) and value.bit_length() > 64:  # which `repr` may refuse
        return f"a number of {value.bit_length():,} bits"
    return _SHORT.repr(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remark for a word that is not one of those known: the nearest of them, if one is near."""
    close = difflib.get_close_matches(word[:60], list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _record(kind: Any, table: Mapping[str, Any], key: str, default: Any, found: list[Fault]) -> Any:
    prefix, types = f"{key}." if key else "", _types(kind)
    given = {name: value for name, value in table.items() if value is not None}
    for name in given:
        if name not in types:
            fact = f"{prefix}{shown(name)[1:-1]}: unknown key{did_you_mean(name, types)}"
            free = [x for x in types if x not in given]
            found.append((fact, f"known: {', '.join(free)}" if free else "remove it"))
    values = {}
    for field in fields(kind):
        name, of = field.name, types[field.name]
        inherited = getattr(default, name, None)
        if name in given:
            values[name] = _value(of, given[name], f"{prefix}{name}", inherited, found)
        elif default is not None:
            values[name] = inherited
        elif field.default is MISSING and field.default_factory is MISSING:
            found.append((f"{prefix}{name}: missing", f"give {_expected(of)}"))
    return None if found else kind(**values)


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, value: Any, key: str, default: Any, found: list[Fault]) -> Any:
    """`value`, as TOML gives it, as an instance of the type `kind`. What does not fit is added to `found`."""
    if get_origin(kind) is UnionType:
        return _either([arm for arm in get_args(kind) if arm is not NoneType], value, key, default, found)
    if is_dataclass(kind) and isinstance(value, Mapping):
        return _record(kind, value, key, default, found)
    if get_origin(kind) is tuple:
        items = _items(kind, value)
        if items is not None:
            return tuple(_value(of, item, f"{key}[{i}]", None, found) for i, (of, item) in enumerate(items))
    elif get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
    elif kind is float and type(value) in (int, float):
        if abs(value) < 1e300:  # which nan is not, either
            return float(value)
    elif type(value) is kind and (kind is not int or value.bit_length() <= 63):  # as TOML has them
        return value
    found.append(_misfit(key, value, kind))
    return value


def _either(kinds: list[Any], value: Any, key: str, default: Any, found: list[Fault]) -> Any:
    """`value` as the first of several types that it fits."""
    for kind in kinds:
        faults: list[Fault] = []
        made = _value(kind, value, key, default, faults)
        if not faults:
            return made
    if len(kinds) == 1 or any(is_dataclass(kind) and isinstance(value, Mapping) for kind in kinds):
        found += faults
    else:
        found.append(_misfit(key, value, *kinds))
    return value


def _items(kind: Any, value: Any) -> list[tuple[Any, Any]] | None:
    """The items of a tuple, each with its type; None of what is no such list."""
    of = get_args(kind)
    if of == (float, float) and type(value) in (int, float):
        value = [value, value]
    elif of[-1] is Ellipsis and type(value) is of[0]:
        value = [value]
    if not isinstance(value, list):
        return None
    if of[-1] is Ellipsis:
        return [(of[0], item) for item in value]
    return list(zip(of, value, strict=True)) if len(value) == len(of) else None


def _misfit(key: str, value: Any, *kinds: Any) -> Fault:
    return f"{key}: cannot be {shown(value)}", f"give {' or '.join(map(_expected, kinds))}"


def _expected(kind: Any) -> str:
    """What a value of type `kind` is called in a message."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        of = get_args(kind)
        if of == (float, float):
            return "a number or [start, end]"
        return "a list" if of[-1] is Ellipsis else f"a list of {len(of)}"
    return "a table" if is_dataclass(kind) else _WORDS[kind]
