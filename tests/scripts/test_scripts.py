"""Every script as a user runs it: two steps on data made here, and the mistakes that users make."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied_rl.data.minari_io import load
from rl_core import config
from tests.command_line import ROOT, call, groups, interrupt
from tests.command_line import load as load_script

DATASET = "desk/lift_block/tiny-v0"
RECIPE_SCRIPTS = {  # what each must be given besides a recipe
    "train_offline": ["data.id=x/y-v0"],
    "align_offline": ["data.source=x"],
    "train_reward_model": ["data.source=x"],
    "align_online": [],
    "train_online": [],
    "transfer": [],
}
QUICK = ["run.steps=2", "run.threads=1", "eval.episodes=2", "eval.curve_episodes=1", "eval.videos=0"]


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=240)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    call("collect_demos", f"data.id={DATASET}", f"data.root={root}", "episodes=4", "noise=[0,0.3]")
    return root


def test_collect_demos_records_what_minari_reads(datasets: Path, monkeypatch: pytest.MonkeyPatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    dataset = minari.load_dataset(DATASET)
    assert dataset.total_episodes == 4
    assert dataset.recover_environment().spec.id == "embodied/Desk-v0"


PREFERENCES = ["algo.feedback.segment=2", "algo.feedback.num_comparisons=4"]


@pytest.mark.parametrize(("algo", "more"), [("ppo", []), ("sac", []), ("preference_ppo", PREFERENCES)])
def test_train_online_runs_every_algorithm(tmp_path: Path, algo: str, more: list[str]):
    rollout = ["rollout.num_envs=2", "rollout.horizon=4", "rollout.threads=1", *more]
    arguments = [
        f"algo={algo}",
        "env.task=lift_block",
        f"run.dir={tmp_path / 'run'}",
        "run.eval_every=1",
        *rollout,
    ]
    call("train_online", *arguments, *QUICK)
    run = tmp_path / "run"
    assert json.loads((run / "eval.json").read_text())["overall"]["n_episodes"] == 2
    assert (run / "policy" / "model.safetensors").exists()
    assert "eval/success" in (run / "report.html").read_text()
    with pytest.raises(SystemExit):
        call("train_online", *arguments, *QUICK)  # the directory holds this run already


@pytest.mark.parametrize("algo", ["iql", "td3_bc", "cql"])
def test_an_offline_run_goes_on_online_and_resumes(datasets: Path, tmp_path: Path, algo: str):
    data = [f"data.id={DATASET}", f"data.root={datasets}", "data.normalize_obs=true", "data.reward_scale=2"]
    small = [f"algo={algo}", "algo.hidden=[8]", "algo.batch_size=16"]
    call("train_offline", *small, *data, f"run.dir={tmp_path / 'offline'}", *QUICK)
    rollout = ["rollout.num_envs=2", "rollout.horizon=3", "rollout.threads=1", "run.checkpoint_every=2"]
    short = "env.kwargs={max_episode_steps: 6}"  # new episodes begin after 2 x 3 steps
    common = ["algo=finetune", f"algo.offline_run={tmp_path / 'offline'}", *rollout, short, *QUICK]
    call("train_online", *common, f"run.dir={tmp_path / 'whole'}", "run.steps=4")
    call("train_online", *common, f"run.dir={tmp_path / 'halves'}")
    call("train_online", *common, f"run.dir={tmp_path / 'halves'}", "run.steps=4", "run.resume=true")
    whole, halves = (
        (tmp_path / name / "policy/model.safetensors").read_bytes() for name in ("whole", "halves")
    )
    assert whole == halves
    assert whole != (tmp_path / "offline" / "policy/model.safetensors").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/success" in row] == [0, 1, 2, 4]  # before the first step too
    again = [*common, f"run.dir={tmp_path / 'halves'}", "run.resume=true"]
    with pytest.raises(SystemExit):  # it decides when episodes begin
        call("train_online", *again, "run.checkpoint_every=4")
    with pytest.raises(SystemExit):  # a word that its algorithm does not know
        call("train_online", *common, f"run.dir={tmp_path / 'no'}", "algo.change={expectle: 0.9}")


def test_an_offline_run_goes_on_in_the_task_of_its_dataset(tmp_path: Path):
    data = ["data.id=desk/other/tiny-v0", f"data.root={tmp_path}"]
    call("collect_demos", *data, "env.task=open_drawer", "episodes=2")
    small = ["algo.hidden=[8]", "algo.batch_size=16"]
    call("train_offline", "algo=iql", *small, *data, f"run.dir={tmp_path / 'offline'}", *QUICK)
    common = ["algo=finetune", f"algo.offline_run={tmp_path / 'offline'}", "rollout.num_envs=2", *QUICK]
    for name, typed, task in [("own", [], "open_drawer"), ("other", ["task=close_drawer"], "close_drawer")]:
        short = ["rollout.horizon=2", "run.steps=1", "rollout.threads=1", f"run.dir={tmp_path / name}"]
        call("train_online", *common, *typed, *short)
        assert OmegaConf.load(tmp_path / name / "config.yaml").env.task == task
        content = json.loads((tmp_path / name / "eval.json").read_text())
        assert content["settings"]["env_kwargs"] == {"task": task}


@pytest.mark.parametrize("algo", ["bc", "td3_bc", "iql", "cql"])
def test_train_offline_runs_every_algorithm(datasets: Path, tmp_path: Path, algo: str):
    arguments = [f"algo={algo}", f"data.id={DATASET}", f"data.root={datasets}", f"run.dir={tmp_path / 'run'}"]
    call("train_offline", *arguments, *QUICK)
    run = tmp_path / "run"
    assert (run / "policy" / "model.safetensors").exists()
    assert json.loads((run / "eval.json").read_text())["overall"]["n_episodes"] == 2
    assert "data:" in (run / "config.yaml").read_text()
    assert (run / "report.html").stat().st_size > 1000
    call("evaluate", f"policy={run}", f"out={tmp_path / 'again'}", *QUICK[2:])
    assert (tmp_path / "again" / "eval.json").exists()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (["env.task=place_block"], {"task": "place_block"}),
        (["env.kwargs={max_episode_steps: 20}"], {"max_episode_steps": 20}),
    ],
)
def test_training_evaluates_in_the_datasets_own_environment(
    tmp_path: Path, env: list[str], expected: dict[str, Any]
):
    data = ["data.id=desk/other/tiny-v0", f"data.root={tmp_path}"]
    call("collect_demos", *data, *env, "episodes=2")
    arguments = ["algo=bc", *data, f"data.cache_root={tmp_path / 'cache'}", f"run.dir={tmp_path / 'run'}"]
    call("train_offline", *arguments, *QUICK)
    assert (tmp_path / "cache" / "desk").is_dir()
    content = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert content["settings"]["env_kwargs"] == expected
    assert all(row["length"] <= expected.get("max_episode_steps", 60) for row in content["episodes"])


@pytest.fixture(scope="module")
def sac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny SB3 model.zip and its replay buffer.pkl."""
    from stable_baselines3 import SAC

    folder = tmp_path_factory.mktemp("sac")
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, buffer_size=300, device="cpu")
    model.learn(10)
    model.save(folder / "model.zip")
    model.save_replay_buffer(folder / "buffer.pkl")
    return folder


def test_collect_demos_and_evaluate_take_an_sb3_file(sac: Path, tmp_path: Path):
    model = [f"policy={sac / 'model.zip'}", "trust=true", "env.id=Pendulum-v1"]
    call("collect_demos", *model, "data.id=pendulum/sac-v0", f"data.root={tmp_path}", "episodes=2")
    assert (tmp_path / "pendulum" / "sac-v0" / "data").is_dir()
    call("evaluate", *model, f"out={tmp_path / 'out'}", "eval.episodes=2")
    assert (tmp_path / "out" / "eval.json").exists()


def robomimic_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("obs", "next_obs"):
            file[f"data/demo_0/{name}/position"] = np.random.default_rng(0).normal(size=(6, 3))
        file["data/demo_0/actions"] = np.zeros((6, 2))
        file["data/demo_0/rewards"] = np.eye(6)[-1]
        file["data/demo_0/dones"] = np.eye(6)[-1]


def d4rl_file(path: Path) -> None:
    """As recorded in Reacher-v5, which nothing in the file says."""
    with h5py.File(path, "w") as file:
        file["observations"] = np.random.default_rng(0).normal(size=(6, 10))
        file["actions"] = np.zeros((6, 2))
        file["rewards"] = np.ones(6)
        file["terminals"] = np.zeros(6, bool)
        file["timeouts"] = np.eye(6, dtype=bool)[-1]


@pytest.mark.parametrize(
    ("file_format", "write", "options", "env"),
    [
        ("robomimic", robomimic_file, [], None),
        ("d4rl", d4rl_file, [], "Reacher-v5"),
        ("sb3_replay", None, ["trust=true", "env_id=Pendulum-v1"], ""),
    ],
)
def test_import_dataset_reads_every_format_and_it_trains(
    sac: Path, tmp_path: Path, file_format: str, write: Any, options: list[str], env: str | None
):
    """Also without an environment to evaluate in (robomimic), and with one that the file does not name."""
    path = tmp_path / "file.hdf5" if write else sac / "buffer.pkl"
    if write:
        write(path)
    data = ["data.id=other/set-v0", f"data.root={tmp_path}"]
    call("import_dataset", f"format={file_format}", f"path={path}", *data, *options)
    place = [f"env.id={env}"] if env else []
    call("train_offline", "algo=bc", *data, *place, f"run.dir={tmp_path / 'run'}", *QUICK)
    assert (tmp_path / "run" / "policy" / "model.safetensors").exists()
    assert (tmp_path / "run" / "eval.json").exists() == (env is not None)


def test_export_dataset_and_back(datasets: Path, tmp_path: Path):
    there, root = f"path={tmp_path / 'lerobot'}", f"data.root={tmp_path}"
    call("export_dataset", f"data.id={DATASET}", f"data.root={datasets}", there)
    call("import_dataset", "format=lerobot", there, "data.id=again/tiny-v0", root)
    first, second = load(DATASET, datasets), load("again/tiny-v0", tmp_path)
    np.testing.assert_array_equal(first.actions, second.actions)
    one, other = (data.episode(3)["observations"]["observation"] for data in (first, second))
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_evaluate_runs_the_expert(tmp_path: Path):
    result = run_script(
        "evaluate",
        "policy=expert",
        "env.task=place_block",
        f"out={tmp_path}",
        "eval.episodes=2",
        "eval.videos=1",
    )
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1
    assert json.loads((tmp_path / "eval.json").read_text())["overall"]["pc_success"] == 100.0


def test_evaluations_of_two_policies_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    call("evaluate", "policy=expert", "eval.episodes=1", "eval.videos=0")
    assert (tmp_path / "runs" / "evaluate" / "expert" / "eval.json").exists()


def test_import_dataset_reads_the_door_demonstrations(tmp_path: Path):
    demos = ROOT.parent / "shared" / "data" / "adroit-door-human" / "demos.npz"
    if not demos.exists():
        pytest.skip(f"the door demonstrations are not at {demos}")
    call("import_dataset", "format=door", f"path={demos}", "data.id=door/human-v0", f"data.root={tmp_path}")
    arguments = ["algo=bc", "data.id=door/human-v0", f"data.root={tmp_path}", f"run.dir={tmp_path / 'run'}"]
    call("train_offline", *arguments, *QUICK)
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["overall"]["normalized_score"] is not None


def test_the_demo_runs_its_commands_and_says_when_the_policy_is_poor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    demo = load_script("demo")
    short = "env.kwargs={max_episode_steps: 3}"
    few = {"collect_demos": ["episodes=3", short], "train_offline": [*QUICK, "eval.videos=1", short]}
    monkeypatch.setattr(
        demo, "run", lambda path, *words: call(Path(path).stem, *words, *few[Path(path).stem])
    )
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert demo.main() == 1  # two updates are not enough
    out = capsys.readouterr().out
    assert "error: the policy should succeed in at least 90 %" in out
    for name in ("report.html", "policy", "videos"):
        assert list(tmp_path.glob(f"runs/demo-*/iql/{name}"))
    printed = [Path(line) for line in out.splitlines() if line.startswith(str(tmp_path))]
    assert len(printed) == 3
    assert all(path.exists() for path in printed)


def test_bench_names_what_there_is():
    result = run_script("bench", "gea")
    assert result.returncode == 2
    assert "gae" in result.stderr


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def literal(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(literal(item) for item in value) + "]"
    if isinstance(value, str):
        return f"'{value}'"
    return "null" if value is None else str(value)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [(s, [f"algo={a}", "data.id=x/y-v0"]) for s in ["train_offline"] for a in ["bc", "td3_bc", "iql", "cql"]]
    + [
        ("collect_demos", ["data.id=x/y-v0"]),
        ("evaluate", ["policy=expert"]),
        ("import_dataset", ["format=d4rl", "path=x", "data.id=x/y-v0"]),
        ("export_dataset", ["format=lerobot", "path=x", "data.id=x/y-v0"]),
    ],
)
def test_every_key_round_trips(script: str, arguments: list[str]):
    """What `config.yaml` says, given back on the command line, is the same configuration."""
    module = load_script(script)
    first = config.parse(script, module.Config, groups(module), arguments)
    tree = OmegaConf.to_container(OmegaConf.create(config.to_yaml(first)))
    again = [f"{key}={literal(value)}" for key, value in leaves(tree)]
    assert config.parse(script, module.Config, groups(module), [*arguments[:1], *again]) == first


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "experiment").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_recipe_composes_with_a_script(path: Path):
    failures = []
    for script, arguments in RECIPE_SCRIPTS.items():
        module = load_script(script)
        try:
            config.parse(script, module.Config, groups(module), [f"+experiment={path.stem}", *arguments])
        except ValueError as error:
            failures.append(f"{script}: {error}")
    assert len(failures) < len(RECIPE_SCRIPTS), failures


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_offline", ["data.id=desk/lift_block/tny-v0"], "did you mean 'desk/lift_block/tiny-v0'"),
        ("train_offline", [f"data.id={DATASET}", "algo.expectle=0.9"], "did you mean 'algo.expectile'"),
        (
            "train_offline",
            [f"data.id={DATASET}", "algo.expectile=1.5"],
            "algo.expectile=1.5: must be in (0, 1)",
        ),
        ("train_offline", ["algo=iql"], "data.id"),
        ("train_online", ["env.task=lift_blok"], "lift_block"),
        ("train_online", ["algo.gama=0.9"], "did you mean 'algo.gamma'"),
        (
            "train_online",
            ["algo=preference_ppo", "algo.feedback.teacher.kind=persn"],
            "did you mean 'person'",
        ),
        ("judge_clips", ["run=nowhere", "judge=anna"], "no questions"),
        ("train_online", ["algo=finetune", "algo.offline_run=nowhere"], "holds no run"),
        (
            "train_online",
            ["algo=finetune", "algo.offline_run=nowhere", "rollout.obs_keys=[observation]"],
            "rollout.obs_keys=('observation',): must be empty with algo=finetune",
        ),
        ("train_online", ["algo=sac", "rollout.critic_keys=[desired_goal]"], "rollout.critic_keys"),
        ("train_online", ["algo=sac", "rollout.num_envs=1", "rollout.horizon=1"], "run.checkpoint_every=50"),
        ("collect_demos", ["data.id=nonsense"], "expected namespace/name-v0"),
        ("collect_demos", ["data.id=x/yy-v0", "policy=nowhere"], "policy='nowhere'"),
        ("collect_demos", ["data.id=x/yy-v0", "env.id=Hoper-v5", "policy=m.zip"], "m.zip"),
        ("evaluate", ["policy=expert", "env.task=lift_blok"], "lift_block"),
        ("import_dataset", ["format=dorr", "path=x", "data.id=x/yy-v0"], "did you mean 'door'"),
        ("export_dataset", ["format=lerobt", "path=x", "data.id=x/yy-v0"], "did you mean 'lerobot'"),
        ("export_dataset", ["path=x", "data.id=desk/nowhere-v0"], "desk/nowhere-v0"),
        (
            "import_dataset",
            ["format=door", "path=nowhere.npz", "data.id=x/yy-v0"],
            "must be an existing file",
        ),
    ],
)
def test_a_mistake_gets_a_sentence(
    datasets: Path, capsys: pytest.CaptureFixture[str], script: str, arguments: list[str], message: str
):
    if script == "train_offline":
        arguments = [*arguments, f"data.root={datasets}"]
    with pytest.raises(SystemExit) as exit_info:
        call(script, *arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_an_interrupted_training_resumes_to_the_same_policy(datasets: Path, tmp_path: Path):
    def command(directory: Path) -> list[str]:
        quick = [option for option in QUICK if not option.startswith("run.steps")]
        settings = ["run.steps=400", "run.log_every=1", "run.eval_every=400", f"run.dir={directory}", *quick]
        return [f"data.id={DATASET}", f"data.root={datasets}", "algo.hidden=[16]", *settings]

    call("train_offline", *command(tmp_path / "whole"))
    parts = tmp_path / "parts"
    interrupt("train_offline", parts, signal.SIGTERM, *command(parts))
    call("train_offline", *command(parts), "run.resume=true")
    first, second = (
        (tmp_path / name / "policy" / "model.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert first == second
