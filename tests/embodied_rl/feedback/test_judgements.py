"""What of an earlier run's comparisons is refused."""

import dataclasses

import pytest
import torch

from embodied_rl.feedback.judgements import Folder
from embodied_rl.feedback.segments import Segments
from envs.config import Config as EnvConfig
from envs.suites import DESK
from rl_core.comparisons import Comparison


def pairs(spec) -> Segments:
    """One pair of segments of two steps."""
    return Segments(
        obs=torch.zeros(1, 2, 2, spec.obs_dim), action=torch.zeros(1, 2, 2, spec.action_dim),
        reward=torch.zeros(1, 2, 2), place=torch.tensor([[[1, 0, 0], [1, 1, 0]]]),
    )  # fmt: skip


def test_comparisons_of_another_task_are_refused(world, tmp_path):
    def at(task: str) -> Folder:
        arguments = EnvConfig(task=task).arguments()
        return Folder(tmp_path, dataclasses.replace(spec, env_id=DESK, env_kwargs=arguments))

    spec = world().critic_spec
    at("lift_block").keep(pairs(spec), 1)
    at("lift_block").record(pairs(spec), torch.ones(1), judge="scripted")
    assert len(at("lift_block").load(2)[0]) == 1
    with pytest.raises(ValueError, match=r"comparisons.jsonl, line 1: answers '.*lift_block of .*', this run "
                                         r"asks '.*open_drawer of "):  # fmt: skip
        at("open_drawer").load(2)


@pytest.mark.parametrize("folder", [True, False])
def test_comparisons_without_what_they_compare_are_refused(world, tmp_path, folder):
    here = Folder(tmp_path, world().critic_spec)
    here.store.append(Comparison(question=here.question(), items=("a", "b"), rank=(0, 1), judge="anna"))
    if folder:
        (tmp_path / "segments").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path}/segments: holds no segments"):
        here.load(2)
