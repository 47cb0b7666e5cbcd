import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rl_core import checkpoint


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)
        self.target = nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2, betas=(0.8, 0.9))
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=10)

    def train_step(self) -> None:
        self.optimizer.zero_grad()
        self.net(torch.ones(4, 3)).square().mean().backward()
        self.optimizer.step()
        self.schedule.step()


def trained(seed: int, steps: int) -> Agent:
    torch.manual_seed(seed)
    agent = Agent()
    for _ in range(steps):
        agent.train_step()
    return agent


def test_parts_finds_optimizers_and_schedules_but_not_submodules_twice():
    assert set(checkpoint.parts("agent", Agent())) == {"agent", "agent.optimizer", "agent.schedule"}


def test_parts_finds_what_is_in_lists_and_submodules():
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.member = Agent()
            self.optimizers = [torch.optim.SGD(self.member.parameters(), lr=0.1)]

    names = {"agent", "agent.member.optimizer", "agent.member.schedule", "agent.optimizers.0"}
    assert set(checkpoint.parts("agent", Ensemble())) == names


def test_a_restored_agent_continues_bit_for_bit(tmp_path: Path):
    agent = trained(0, 3)
    checkpoint.save(tmp_path, 3, checkpoint.parts("agent", agent))
    agent.train_step()
    other = trained(1, 0)
    assert checkpoint.load_latest(tmp_path, checkpoint.parts("agent", other)) == 3
    other.train_step()
    for ours, theirs in zip(agent.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert other.optimizer.param_groups[0]["betas"] == (0.8, 0.9)  # still a tuple
    assert other.schedule.last_epoch == 4


def test_tied_weights_are_saved(tmp_path: Path):
    agent = trained(0, 1)
    agent.target.weight = agent.net.weight
    checkpoint.save(tmp_path, 1, {"agent": agent})
    assert checkpoint.load_latest(tmp_path, {"agent": agent}) == 1


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"agent": nn.Linear(1, 1)}, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step_000000002", "step_000000003"]


def test_saving_a_step_again_replaces_it(tmp_path: Path):
    layer = nn.Linear(1, 1)
    checkpoint.save(tmp_path, 1, {"layer": layer})
    nn.init.constant_(layer.weight, 7.0)
    checkpoint.save(tmp_path, 1, {"layer": layer})
    other = nn.Linear(1, 1)
    checkpoint.load_latest(tmp_path, {"layer": other})
    assert other.weight.item() == 7.0


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path: Path, file: str, damage: str):
    layer = nn.Linear(2, 2)
    checkpoint.save(tmp_path, 1, {"layer": layer})
    path = checkpoint.save(tmp_path, 2, {"layer": layer}) / file
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[0 if file == "state.json" else -1] ^= 0xFF
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.warns(RuntimeWarning, match="step_000000002 is damaged"):
        assert checkpoint.load_latest(tmp_path, {"layer": layer}) == 1


def test_a_changed_number_in_the_json_is_noticed(tmp_path: Path):
    path = checkpoint.save(tmp_path, 1, {"agent": trained(0, 1).optimizer}) / "state.json"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    with pytest.warns(RuntimeWarning, match="damaged"), pytest.raises(ValueError, match="every checkpoint"):
        checkpoint.load_latest(tmp_path, {"agent": trained(0, 1).optimizer})


def test_when_all_are_damaged_nothing_starts_anew(tmp_path: Path):
    (checkpoint.save(tmp_path, 1, {"layer": nn.Linear(2, 2)}) / "state.json").unlink()
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="every checkpoint is damaged"):
        checkpoint.load_latest(tmp_path, {"layer": nn.Linear(2, 2)})


def test_a_damaged_later_checkpoint_does_not_push_out_a_new_one(tmp_path: Path):
    layer = nn.Linear(2, 2)
    checkpoint.save(tmp_path, 1, {"layer": layer}, keep=2)
    (checkpoint.save(tmp_path, 10, {"layer": layer}, keep=2) / "state.json").unlink()
    with pytest.warns(RuntimeWarning):
        checkpoint.load_latest(tmp_path, {"layer": layer})
    for step in (4, 5):
        checkpoint.save(tmp_path, step, {"layer": layer}, keep=1)
        assert checkpoint.load_latest(tmp_path, {"layer": layer}) == step


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    layer = nn.Linear(2, 2)
    checkpoint.save(tmp_path, 1, {"layer": layer})

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 2, {"layer": layer}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001"]
    assert checkpoint.load_latest(tmp_path, {"layer": layer}) == 1


def test_a_process_killed_while_writing_leaves_no_half_checkpoint(tmp_path: Path):
    checkpoint.save(tmp_path, 1, {"layer": nn.Linear(2, 2)})
    half = tmp_path / ".writing_step_000000002"
    half.mkdir()
    (half / "state.json").write_text(json.dumps({"step": 2}))
    assert checkpoint.load_latest(tmp_path, {"layer": nn.Linear(2, 2)}) == 1


def test_another_configurations_checkpoint_is_refused(tmp_path: Path):
    checkpoint.save(tmp_path, 1, {"policy": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="belongs to another configuration"):
        checkpoint.load_latest(tmp_path, {"critic": nn.Linear(2, 2)})


def test_no_checkpoint_is_none(tmp_path: Path):
    assert checkpoint.load_latest(tmp_path / "nothing", {}) is None


def test_state_that_json_cannot_hold_is_named(tmp_path: Path):
    class Odd:
        def state_dict(self) -> dict[str, object]:
            return {"when": object()}

        def load_state_dict(self, state_dict: dict[str, object]) -> None: ...

    with pytest.raises(TypeError, match="odd/when is a object"):
        checkpoint.save(tmp_path, 1, {"odd": Odd()})


def test_the_state_of_another_run_can_be_read(tmp_path: Path):
    agent = trained(0, 2)
    for step in (1, 2):
        checkpoint.save(tmp_path, step, checkpoint.parts("agent", agent))
        agent.train_step()
    state = checkpoint.read_latest(tmp_path)
    assert state.keys() == {"agent", "agent.optimizer", "agent.schedule"}
    other = trained(0, 3)  # the newest was saved after three steps
    assert torch.equal(state["agent"]["net.weight"], other.net.weight)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        checkpoint.read_latest(tmp_path / "nowhere")
