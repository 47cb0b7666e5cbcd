"""Every recipe sets, on the algorithm's and on the data's side, what its source used."""

import importlib.util
import sys
from pathlib import Path

import pytest

from embodied_rl.offline import cql, iql, td3_bc
from rl_core import config

ROOT = Path(__file__).resolve().parents[2]

# What the sources did to the data; a difference from these is written out per recipe.
PLAIN = {"normalize_obs": False, "reward": "none", "reward_scale": 1.0, "reward_bias": 0.0, "gamma": 0.99}
CORL_CQL = {
    "critic_lr": 3e-4,
    "num_actions": 10,
    "hidden": (256, 256, 256),
    "log_std_multiplier": 1.0,
    "log_std_offset": -1.0,
    "learn_log_std": True,
    "actor_init": "torch",
    "critic_init": "orthogonal",
    "out_gain": 0.01,
    "importance_sampling": True,
    "backup_entropy": False,
}
RECIPES = {
    "iql_locomotion_paper": (
        iql,
        {"expectile": 0.7, "temperature": 3.0, "dropout": 0.0, "init": "orthogonal"},
        {**PLAIN, "reward": "return_scale", "action_clip": 1 - 1e-5},
    ),
    "iql_antmaze_paper": (
        iql,
        {"expectile": 0.9, "temperature": 10.0, "dropout": 0.0, "init": "orthogonal"},
        {**PLAIN, "reward": "antmaze_shift", "action_clip": 1 - 1e-5},
    ),
    "iql_adroit_paper": (
        iql,
        {"expectile": 0.7, "temperature": 0.5, "dropout": 0.1, "init": "orthogonal"},
        {**PLAIN, "action_clip": 1 - 1e-5},
    ),
    "iql_locomotion_corl": (
        iql,
        {"expectile": 0.7, "temperature": 3.0, "tau": 0.005, "init": "torch"},
        {**PLAIN, "normalize_obs": True, "action_clip": 1.0},
    ),
    "iql_antmaze_corl": (
        iql,
        {"expectile": 0.9, "temperature": 10.0, "tau": 0.005, "init": "torch"},
        {**PLAIN, "normalize_obs": True, "reward": "antmaze_shift", "action_clip": 1.0},
    ),
    "iql_adroit_corl": (
        iql,
        {"expectile": 0.8, "temperature": 3.0, "dropout": 0.0, "init": "torch"},
        {**PLAIN, "normalize_obs": True, "action_clip": 1.0},
    ),
    "cql_locomotion_corl": (
        cql,
        {**CORL_CQL, "policy_lr": 3e-5, "conservative_weight": 10.0, "target_gap": None, "critic_hidden": ()},
        {**PLAIN, "normalize_obs": True, "action_clip": 1.0},
    ),
    "cql_antmaze_corl": (
        cql,
        {
            **CORL_CQL,
            "policy_lr": 1e-4,
            "conservative_weight": 5.0,
            "target_gap": 0.8,
            "log_lagrange_init": 1.0,
            "max_backup": True,
            "clip_diff_min": -200.0,
            "critic_hidden": (256,) * 5,
        },
        {**PLAIN, "reward_scale": 10.0, "reward_bias": -5.0, "action_clip": 1.0},
    ),
    "cql_simple_sac": (
        cql,
        {
            **CORL_CQL,
            "policy_lr": 3e-4,
            "conservative_weight": 5.0,
            "hidden": (256, 256),
            "critic_init": "torch",
        },
        {**PLAIN, "action_clip": 0.999},
    ),
    "td3_bc_paper": (
        td3_bc,
        {"alpha": 2.5, "policy_noise": 0.2, "noise_clip": 0.5, "policy_delay": 2, "hidden": (256, 256)},
        {**PLAIN, "normalize_obs": True, "action_clip": 1.0},
    ),
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_offline", ROOT / "scripts" / "train_offline.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_recipe_of_a_source_is_tested(script):
    chosen = [f"override /algo: {word}" for word in script.ALGORITHMS]
    files = (ROOT / "configs" / "experiment").glob("*.yaml")
    names = {path.stem for path in files if any(line in path.read_text() for line in chosen)}
    assert names == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_that_of_its_source(name, script):
    groups = {"algo": {word: module.Config for word, module in script.ALGORITHMS.items()}}
    arguments = [f"+experiment={name}", "data.id=x/y-v0"]
    composed = config.parse("train_offline", script.Config, groups, arguments)
    algorithm, algo, data = RECIPES[name]
    assert isinstance(composed.algo, algorithm.Config)
    assert {key: getattr(composed.algo, key) for key in algo} == algo
    assert {key: getattr(composed.data, key) for key in data} == data
