from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING

from rl_core import config
from rl_core.run import Config as RunConfig


@dataclass(kw_only=True, slots=True)
class Fast:
    lr: float = 1e-3
    hidden: tuple[int, ...] = (32, 32)

    def __post_init__(self) -> None:
        config.require(self.lr > 0, "algo.lr", self.lr, "> 0")


@dataclass(kw_only=True, slots=True)
class Slow:
    lr: float = 1e-4
    expectile: float = 0.7


@dataclass(kw_only=True, slots=True)
class Data:
    id: str = "none"
    n_step: int = 1
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Root:
    algo: Any = MISSING
    data: Data = field(default_factory=Data)


GROUPS = {"algo": {"fast": Fast, "slow": Slow}}


@pytest.fixture(autouse=True)
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script.yaml").write_text("defaults:\n  - script_schema\n  - algo: fast\n  - _self_\n")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "long.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /algo: slow\ndata:\n  n_step: 5\n"
    )
    monkeypatch.setattr(config, "CONFIG_DIR", tmp_path)


def parse(*overrides: str) -> Root:
    return config.parse("script", Root, GROUPS, overrides)


def test_defaults_are_the_dataclasses():
    assert parse() == Root(algo=Fast(), data=Data())


def test_overrides_pick_the_algorithm_and_its_fields():
    assert parse("algo=slow", "algo.lr=0.5", "data.id=x") == Root(algo=Slow(lr=0.5), data=Data(id="x"))


def test_an_experiment_is_a_thin_delta():
    assert parse("+experiment=long") == Root(algo=Slow(), data=Data(n_step=5))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algo.lrr=1", r"unknown configuration key 'algo.lrr'; did you mean 'algo.lr'\?"),
        ("dta.id=x", r"unknown configuration key 'dta.id'; did you mean 'data.id'\?"),
        ("algo=slwo", r"algo='slwo': must be one of fast, slow; did you mean 'slow'\?"),
        ("data.n_step=many", r"data.n_step=many: .*'many'.* could not be converted to Integer"),
        ("algo.lr=-1", r"algo.lr=-1.0: must be > 0"),
        ("+experiment=lon", r"experiment='lon': must be one of long; did you mean 'long'\?"),
        ("algo=3", "group override must be a string"),
        ("algo.hidden=64", r"algo.hidden=64: must be a list, for example \[64\]"),
        ("data.id=one, two", r"data.id: several values need --multirun, .* \"data.id='...'\""),
        ("data.id=now!", r"data.id: .* needs quotes inside quotes"),
        ("data.id", "missing EQUAL"),
        ("data.extra={a: [}", "is not a mapping"),
        ("data={n_stepp: 1}", r"data={n_stepp: 1}: .*n_stepp"),
    ],
)
def test_mistakes_are_named(override: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse(override)


def test_an_unknown_key_of_the_chosen_algorithm_is_compared_with_its_own_keys():
    with pytest.raises(ValueError, match=r"'algo.expctile'; did you mean 'algo.expectile'"):
        parse("algo=slow", "algo.expctile=0.9")


def test_another_scripts_options_are_not_offered():
    config.parse("script", Root, {"algo": {"fast": Fast, "slowly": Slow}}, [])
    with pytest.raises(ValueError, match=r"algo='slwo': must be one of fast, slow; did you mean 'slow'"):
        parse("algo=slwo")


def test_a_recipe_of_another_script_is_a_sentence():
    (config.CONFIG_DIR / "experiment" / "foreign.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: large\n"
    )
    with pytest.raises(ValueError, match="unknown configuration key 'model'"):
        parse("+experiment=foreign")


def test_yaml_round_trip():
    from omegaconf import OmegaConf

    text = config.to_yaml(parse("algo=slow"))
    assert OmegaConf.to_container(OmegaConf.create(text)) == {
        "algo": {"lr": 1e-4, "expectile": 0.7},
        "data": {"id": "none", "n_step": 1, "extra": {}},
    }


def test_a_dict_takes_new_entries():
    assert parse("data.extra={a: 1, b: [x, y], c: null}").data.extra == {"a": 1, "b": ["x", "y"], "c": None}


def test_a_mapping_sets_several_fields_at_once():
    assert parse("data={n_step:3,id: y}").data == Data(n_step=3, id="y")


def test_a_file_stands_for_an_option_of_a_group(tmp_path: Path):
    (tmp_path / "data").mkdir()
    file = tmp_path / "mine.yaml"
    file.write_text("id: mine\nextra: {a: 1}\n")
    assert parse(f"data={file}", "data.n_step=3").data == Data(id="mine", n_step=3, extra={"a": 1})
    assert parse(f"data={file}", "data.extra={b: 2}").data.extra == {"a": 1, "b": 2}
    for text, words in (("wrong: 1", "wrong"), ("[1]", "no option"), ("a: [", "no option")):
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            parse(f"data={file}")
    with pytest.raises(ValueError, match="data=.nowhere.yaml.: must be a YAML file that is there"):
        parse("data=nowhere.yaml")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="other=.nowhere.yaml.: must be left out"):
        parse("other=nowhere.yaml")


def test_help_works_without_what_must_be_given(capsys: pytest.CaptureFixture[str]):
    @dataclass(kw_only=True, slots=True)
    class Demanding(Root):
        target: str = MISSING

    config.main("script", Demanding, GROUPS, lambda _: None, ["--help"])
    assert "target: ???" in capsys.readouterr().out


def test_a_failing_run_of_a_multirun_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]):
    seen: list[int] = []

    def run(root: Root) -> None:
        if root.data.n_step == 2:
            raise OSError("disk full")
        seen.append(root.data.n_step)

    with pytest.raises(SystemExit, match="1 of 3 runs failed"):
        config.main("script", Root, GROUPS, run, ["data.n_step=1,2,3", "--multirun"])
    assert seen == [1, 3]
    assert "error: disk full" in capsys.readouterr().err


def test_the_runs_of_a_multirun_have_names():
    @dataclass(kw_only=True, slots=True)
    class WithRun(Root):
        run: RunConfig = field(default_factory=RunConfig)

    names: list[str] = []
    config.main(
        "script",
        WithRun,
        GROUPS,
        lambda root: names.append(root.run.name),
        ["algo.lr=1e-3,0.1", "--multirun"],
    )
    assert names == ["algo.lr=0.001", "algo.lr=0.1"]


def test_main_runs_every_combination_of_a_multirun():
    seen: list[Root] = []
    config.main("script", Root, GROUPS, seen.append, ["algo=slow,fast", "data.n_step=1,2", "--multirun"])
    assert [(type(root.algo), root.data.n_step) for root in seen] == [
        (Slow, 1),
        (Slow, 2),
        (Fast, 1),
        (Fast, 2),
    ]


def test_main_turns_a_mistake_into_one_sentence(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_info:
        config.main("script", Root, GROUPS, lambda _: None, ["algo.lrr=1"])
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error: unknown configuration key 'algo.lrr'; did you mean 'algo.lr'?\n"


def test_main_help_shows_choices_and_defaults(capsys: pytest.CaptureFixture[str]):
    config.main("script", Root, GROUPS, lambda _: None, ["--help"])
    text = capsys.readouterr().out
    assert "algo=<fast | slow>" in text
    assert "+experiment=<long>" in text
    assert "n_step: 1" in text


def test_unknown_option_is_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        config.main("script", Root, GROUPS, lambda _: None, ["--multi-run"])
    assert "did you mean '--multirun'" in capsys.readouterr().err


def test_choice_suggests_the_nearest_word():
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        config.choice("schedule", "cosin", ["constant", "cosine"])


def test_fields_that_a_choice_ignores_are_refused():
    reads = {"none": (), "some": ("n_step",)}
    config.require_read(Data(id="some", n_step=3), "id", reads, group="data")
    config.require_read(Data(n_step=2), "id", reads, {"n_step": 2}, group="data")
    with pytest.raises(ValueError, match=r"^data\.n_step=3: must be 1 with data\.id=none; read by some$"):
        config.require_read(Data(n_step=3), "id", reads, group="data")


def test_fields_that_nothing_reads_are_refused():
    config.require_default(Data(id="some"), ["n_step"], "data.id=some", group="data")
    with pytest.raises(ValueError, match=r"^data\.n_step=3: must be 1 without data\.id=some$"):
        config.require_default(Data(n_step=3), ["n_step"], "data.id=some", group="data")
