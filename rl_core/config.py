"""Typed configurations, composed by Hydra from `configs/`, with errors that say what to write instead."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

T = TypeVar("T")

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"


def require(ok: bool, field: str, value: object, accepted: str) -> None:
    """Raise `ValueError("<field>=<value>: must be <accepted>")` unless `ok`; for `__post_init__`."""
    if not ok:
        raise ValueError(f"{field}={value!r}: must be {accepted}")


def require_read(
    config: Any,
    kind: str,
    reads: Mapping[str, Collection[str]],
    needs: Mapping[str, object] | None = None,
    group: str = "algo",
) -> None:
    """Raise a ValueError for a field that the chosen kind would ignore, naming the kinds that read it.

    `reads` says for every choice of the field `kind` which fields of the dataclass `config` it reads. One
    that only others read must have its default, or its value in `needs`; one in no list is everyone's.
    """
    chosen = getattr(config, kind)
    wanted = _defaults(config) | dict(needs or {})
    for name in sorted(set().union(*reads.values()) - set(reads[chosen])):
        readers = ", ".join(other for other in reads if name in reads[other])
        accepted = f"{wanted[name]} with {group}.{kind}={chosen}; read by {readers}"
        require(getattr(config, name) == wanted[name], f"{group}.{name}", getattr(config, name), accepted)


def require_default(config: Any, names: Iterable[str], reader: str, group: str = "algo") -> None:
    """Raise a ValueError for one of the fields `names` that differs from its default without its `reader`.

    For fields that nothing reads as `config` stands; `reader` says in words what would.
    """
    for name in names:
        value, wanted = getattr(config, name), _defaults(config)[name]
        require(value == wanted, f"{group}.{name}", value, f"{wanted} without {reader}")


def _defaults(config: Any) -> dict[str, Any]:
    return {item.name: item.default for item in dataclasses.fields(config)}


def require_widths(field: str, value: Sequence[int]) -> None:
    """Raise a ValueError unless `value`, widths of hidden layers, holds at least one, and all are >= 1."""
    require(bool(value) and min(value) >= 1, field, value, "a list of positive widths")


def choice(field: str, value: str, accepted: Iterable[str]) -> None:
    """Raise a ValueError with the nearest accepted word unless `value` is one of `accepted`."""
    words = list(accepted)
    if value not in words:
        raise ValueError(f"{field}={value!r}: must be one of {', '.join(words)}{did_you_mean(value, words)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of `known`, or an empty string when none is near."""
    near = difflib.get_close_matches(word, [name for name in known if name != word], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def parse(
    script: str, root: type[T], groups: Mapping[str, Mapping[str, type]], overrides: Sequence[str]
) -> T:
    """Compose `configs/<script>.yaml` with command-line `overrides` into an instance of the dataclass `root`.

    `groups` gives the choices of each configuration group, `{"algo": {"iql": iql.Config, ...}}`. Raises
    ValueError naming the key for an unknown key, option, type or range.
    """
    try:
        result = _with_tuples(OmegaConf.to_object(_compose(script, root, groups, overrides)))
    except OmegaConfBaseException as error:
        raise ValueError(_first_line(error)) from error
    assert isinstance(result, root)
    return result


def _compose(
    script: str, root: type[T], groups: Mapping[str, Mapping[str, type]], overrides: Sequence[str]
) -> DictConfig:
    store = ConfigStore.instance()
    store.store(name=f"{script}_schema", node=root)
    for group, options in groups.items():
        store.repo.pop(group, None)  # the store is global: another script of this process may have been here
        for name, node in options.items():
            store.store(group=group, name=name, node=node)
    mappings = [word for word in overrides if _MAPPING.fullmatch(word)]
    files = [
        word for word in overrides if (found := _FILE.fullmatch(word)) and (CONFIG_DIR / found[1]).is_dir()
    ]
    words = [word for word in overrides if word not in (*mappings, *files)]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            composed = compose(script, overrides=words)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_explain(error, script, overrides)) from error
    for word in files:
        _read(composed, word)
    for word in mappings:
        _extend(composed, word)
    return composed


_MAPPING = re.compile(r"([\w.]+)=(\{.*\})")  # key={name: value}
_FILE = re.compile(r"(\w+)=(.+\.ya?ml)")  # group=file: an option of the user's own


def _read(composed: DictConfig, override: str) -> None:
    """Let a YAML file of the user's stand for an option of a group; what it does not name stays."""
    matched = _FILE.fullmatch(override)
    assert matched
    group, path = matched[1], Path(matched[2])
    require(
        group in composed, group, str(path), f"left out: this script has only {', '.join(map(str, composed))}"
    )
    require(path.is_file(), group, str(path), f"a YAML file that is there, or a name in configs/{group}")
    try:
        for key, value in OmegaConf.load(path).items():
            OmegaConf.update(composed, f"{group}.{key!s}", value, merge=False)
    except (OmegaConfBaseException, YAMLError, AttributeError) as error:
        raise ValueError(f"{group}={path}: is no option of it ({_first_line(error)})") from error


def _extend(composed: DictConfig, override: str) -> None:
    """Merge a mapping into the configuration; a free dict takes new entries too, which Hydra would refuse."""
    matched = _MAPPING.fullmatch(override)
    assert matched
    try:
        entries = OverridesParser.create().parse_override(override).value()
    except HydraException as error:
        raise ValueError(f"{override}: is not a mapping such as {{name: value}}") from error
    node = OmegaConf.select(composed, matched[1])
    if not isinstance(node, DictConfig):
        raise ValueError(f"{override}: takes no mapping{did_you_mean(matched[1], _keys(composed))}")
    free = OmegaConf.get_type(node) is dict
    try:
        with open_dict(composed) if free else nullcontext():
            OmegaConf.update(composed, matched[1], entries, merge=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{override}: {_first_line(error)}") from error


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

    `key=a,b,c` with `--multirun` runs every combination in turn and goes on when one fails; `--help` prints
    the whole configuration; `--traceback` shows where an error came from. Exits with status 2 after a mistake
    of the user's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = {word for word in arguments if word.startswith("-")}
    overrides = [word for word in arguments if word not in flags]
    failed = 0
    try:
        for flag in flags:
            choice("option", flag, ["--help", "--multirun", "--traceback"])
        if "--help" in flags:
            sys.stdout.write(_help(script, groups, _compose(script, root, groups, overrides)))
            return
        combinations = _sweep(overrides, root) if "--multirun" in flags else [overrides]
    except ValueError as error:
        raise _mistake(error, "--traceback" in flags) from error
    for combination in combinations:
        try:
            run(parse(script, root, groups, combination))
        except (ValueError, OSError, FloatingPointError) as error:
            mistake = _mistake(error, "--traceback" in flags)
            failed += 1
            if failed == len(combinations) == 1:
                raise mistake from error
    if failed:
        raise SystemExit(f"error: {failed} of {len(combinations)} runs failed, see above")


def _mistake(error: Exception, with_traceback: bool) -> SystemExit:
    """Tell the user in a sentence what went wrong."""
    if with_traceback:
        traceback.print_exception(error)
    sys.stderr.write(f"error: {error}\n")
    return SystemExit(2)


def _sweep(overrides: Sequence[str], root: type) -> list[list[str]]:
    """Every combination of comma-separated values, each with a `run.name` that says what it varies."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(str(error)) from error
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [text]
        for text, o in zip(overrides, parsed, strict=True)
    ]
    named = any(field.name == "run" for field in dataclasses.fields(root))
    result = []
    for combination in itertools.product(*choices):
        varied = [word for word, o in zip(combination, parsed, strict=True) if o.is_sweep_override()]
        name = re.sub(r"[^\w.=+-]", "_", "-".join(varied))
        result.append([*combination, *([f"run.name='{name}'"] if named and varied else [])])
    return result


def _help(script: str, groups: Mapping[str, Mapping[str, type]], config: DictConfig) -> str:
    lines = [f"python scripts/{script}.py [key=value ...] [--multirun] [--traceback]", ""]
    lines += [f"{group}=<{' | '.join(options)}>" for group, options in groups.items()]
    experiments = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))
    lines += [f"+experiment=<{' | '.join(experiments)}>"] if groups else []
    lines += ["", "??? must be given.", "", OmegaConf.to_yaml(config)]
    return "\n".join(lines)


def _explain(error: Exception, script: str, overrides: Sequence[str]) -> str:
    """Say which override is wrong, and which known key or option is nearest to it."""
    message = str(error)
    unread = re.match(r"(?:Ambiguous value for argument '|\w+Exception: |)([\w.+]+)=", message)
    if unread and (isinstance(error, OverrideParseException) or message.startswith("Ambiguous")):
        example = f"\"{unread[1]}='...'\""
        return (
            f"{unread[1]}: several values need --multirun, one with commas or other signs needs quotes "
            f"inside quotes, {example}"
        )
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown:
        groups = [word for word in overrides if re.match(r"\w+=", word)]  # neither fields nor recipes
        known = _keys(compose(script, overrides=[word for word in groups if not word.startswith(unknown[1])]))
        return f"unknown configuration key {unknown[1]!r}{did_you_mean(unknown[1], known)}"
    option = re.search(r"Could not find '([^']+)/([^/']+)'", message)
    if option:
        options = re.findall(r"^\t(\S+)$", message, flags=re.MULTILINE)
        hint = did_you_mean(option[2], options)
        return f"{option[1]}={option[2]!r}: must be one of {', '.join(options)}{hint}"
    if error.__cause__ and "is not a ListConfig" in str(error.__cause__):
        key, _, value = message.rpartition(" ")[2].partition("=")
        return f"{key}={value}: must be a list, for example [{value}]"
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
