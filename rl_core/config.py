"""Typed configurations, composed by Hydra from `configs/`, with errors that say what to write instead."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"


def require(ok: bool, field: str, value: object, accepted: str) -> None:
    """Raise `ValueError("<field>=<value>: must be <accepted>")` unless `ok`; for `__post_init__`."""
    if not ok:
        raise ValueError(f"{field}={value!r}: must be {accepted}")


def choice(field: str, value: str, accepted: Iterable[str]) -> None:
    """Raise a ValueError with the nearest accepted word unless `value` is one of `accepted`."""
    words = list(accepted)
    if value not in words:
        raise ValueError(f"{field}={value!r}: must be one of {', '.join(words)}{did_you_mean(value, words)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of `known`, or an empty string when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def parse(
    script: str, root: type[T], groups: Mapping[str, Mapping[str, type]], overrides: Sequence[str]
) -> T:
    """Compose `configs/<script>.yaml` with command-line `overrides` into an instance of the dataclass `root`.

    `groups` gives the choices of each configuration group, `{"algo": {"iql": iql.Config, ...}}`. Raises
    ValueError naming the key for an unknown key, option, type or range.
    """
    store = ConfigStore.instance()
    store.store(name=f"{script}_schema", node=root)
    for group, options in groups.items():
        for name, node in options.items():
            store.store(group=group, name=name, node=node)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            composed = compose(script, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_explain(error, script, overrides)) from error
    try:
        result = _with_tuples(OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ValueError(_first_line(error)) from error
    assert isinstance(result, root)
    return result


def to_yaml(config: Any) -> str:
    """Write a configuration dataclass as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def main(
    script: str,
    root: type[T],
    groups: Mapping[str, Mapping[str, type]],
    run: Callable[[T], None],
    argv: Sequence[str] | None = None,
) -> None:
    """Run a script: parse the command line, call `run` once per combination, turn mistakes into one sentence.

    `key=a,b,c` with `--multirun` runs every combination in turn; `--help` prints the whole configuration;
    `--traceback` shows where a ValueError came from. Exits with status 2 after a mistake of the user's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = {word for word in arguments if word.startswith("-")}
    overrides = [word for word in arguments if word not in flags]
    try:
        for flag in flags:
            choice("option", flag, ["--help", "--multirun", "--traceback"])
        if "--help" in flags:
            sys.stdout.write(_help(script, groups, parse(script, root, groups, overrides)))
            return
        for combination in _sweep(overrides) if "--multirun" in flags else [overrides]:
            run(parse(script, root, groups, combination))
    except ValueError as error:
        if "--traceback" in flags:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error


def _sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of comma-separated values, in the order of the command line."""
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [text]
        for text, o in zip(overrides, OverridesParser.create().parse_overrides(list(overrides)), strict=True)
    ]
    return [list(combination) for combination in itertools.product(*choices)]


def _help(script: str, groups: Mapping[str, Mapping[str, type]], config: Any) -> str:
    lines = [f"python scripts/{script}.py [key=value ...] [--multirun] [--traceback]", ""]
    lines += [f"{group}=<{' | '.join(options)}>" for group, options in groups.items()]
    experiments = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))
    lines += [f"+experiment=<{' | '.join(experiments)}>", "", to_yaml(config)]
    return "\n".join(lines)


def _explain(error: Exception, script: str, overrides: Sequence[str]) -> str:
    """Say which override is wrong, and which known key or option is nearest to it."""
    message = str(error)
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown:
        groups = [word for word in overrides if "." not in word.split("=")[0]]
        known = _keys(compose(script, overrides=[word for word in groups if not word.startswith(unknown[1])]))
        return f"unknown configuration key {unknown[1]!r}{did_you_mean(unknown[1], known)}"
    option = re.search(r"Could not find '([^']+)/([^/']+)'", message)
    if option:
        options = re.findall(r"^\t(\S+)$", message, flags=re.MULTILINE)
        hint = did_you_mean(option[2], options)
        return f"{option[1]}={option[2]!r}: must be one of {', '.join(options)}{hint}"
    return f"{message}: {_first_line(error.__cause__)}" if error.__cause__ else message


def _first_line(error: BaseException) -> str:
    key = getattr(error, "full_key", None)
    text = str(error).splitlines()[0]
    return f"{key}: {text}" if key else text


def _with_tuples(config: Any) -> Any:
    """Give fields annotated as tuples the tuples that Hydra reads as lists, in place."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            _with_tuples(value)
        elif get_origin(hint) is tuple:
            setattr(config, name, tuple(value))
    return config


def _keys(config: Any, prefix: str = "") -> Iterable[str]:
    for key in config:
        path = f"{prefix}{key}"
        yield path
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _keys(child, f"{path}.")
