"""What every online run does around its update: telling rewards of itself, writing down what they say."""

from __future__ import annotations

import dataclasses
import json

import pytest

from llm_align.eval.held_out import held_out
from llm_align.feedback.rewards import Reward, Rewards
from llm_align.monitors.monitor import Config, Monitor
from llm_align.online import grpo, reinforce

CFG = grpo.Config(lr=1e-2)


def curriculum(steps):
    """A reward that changes with the run, and says what it saw: `steps` fills with every step it was told."""

    async def reward(completions, completion_ids, trainer_state, log_metric, log_extra):
        steps.append(trainer_state.global_step)
        log_metric("progress", trainer_state.global_step / trainer_state.max_steps)
        log_extra("shout", [text.upper() for text in completions])
        return [ids.count(2) / (1 + trainer_state.global_step) for ids in completion_ids]

    return reward


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_rewards_know_the_step_and_what_they_log_is_written(train, language, tmp_path):
    told = []
    task = language.task(curriculum(told))
    train(grpo, CFG, 3, name="run", task=task, evaluate=lambda agent: held_out(task, agent.policy, 0))
    assert told == [0, 1, 2, 3]  # three rollouts after as many finished steps, and the last evaluation
    metrics = rows(tmp_path / "run", "metrics")
    assert [row["train/rewards/progress"] for row in metrics] == pytest.approx([0.0, 1 / 3, 2 / 3])
    assert metrics[-1]["eval/rewards/progress"] == 1.0
    table = rows(tmp_path / "run", "completions")
    assert [row["step"] for row in table] == [1] * 8 + [2] * 8 + [3] * 8
    assert table[0].keys() == {"step", "prompt", "completion", "reward", "reward_share", "shout"}
    assert all(row["shout"] == row["completion"].upper() for row in table)
    assert {row["prompt"] for row in table[:8]} == {"a b", "b c", "d", "c"}
    counts = [row["completion"].split().count("a") for row in table]
    assert [row["reward"] * row["step"] for row in table] == pytest.approx(counts)


def test_an_interrupted_run_writes_the_same(train, language, same_weights, tmp_path):
    def run(name, steps, **options):
        return train(grpo, CFG, steps, name=name, task=language.task(curriculum([])), **options)

    whole = run("whole", 4)
    run("parts", 2)
    table = tmp_path / "parts" / "completions.jsonl"
    killed = json.dumps({"step": 3, "prompt": "d"})
    table.write_text(table.read_text() + killed + "\n" + killed[:9])  # after the checkpoint, and cut short
    parts = run("parts", 4, resume=True)
    assert same_weights(whole, parts)
    assert rows(tmp_path / "parts", "completions") == rows(tmp_path / "whole", "completions")


def test_the_table_has_as_many_rows_as_asked_for(train, tmp_path):
    train(reinforce, reinforce.Config(), 2, name="few", monitor=Monitor(Config(completions=3)))
    assert [row["step"] for row in rows(tmp_path / "few", "completions")] == [1] * 3 + [2] * 3
    train(reinforce, reinforce.Config(), 1, name="none", monitor=Monitor(Config(completions=0)))
    assert not (tmp_path / "none" / "completions.jsonl").exists()


def test_a_reward_that_raises_stops_the_run_or_leaves_its_rows_out(train, language, tmp_path):
    def only_with_b(completion_ids):
        return [ids.count(2) / ids.count(3) for ids in completion_ids]

    def run(on_error):
        rewards = Rewards([Reward(name="ratio", function=only_with_b)], on_error=on_error)
        return train(grpo, CFG, 2, name=on_error, task=dataclasses.replace(language.task(), rewards=rewards))

    with pytest.raises(
        ValueError, match=r"'ratio' raised ZeroDivisionError.* on row \d+ .*rewards.on_error=skip"
    ):
        run("stop")
    with pytest.warns(RuntimeWarning, match=r"'ratio' raised ZeroDivisionError.* on row \d+"):
        run("skip")
    table = rows(tmp_path / "skip", "completions")
    judged = [row["reward"] is not None for row in table]
    assert judged == ["b" in row["completion"].split() for row in table]
    assert len(set(judged)) == 2
    assert [row["step"] for row in rows(tmp_path / "skip", "metrics")] == [1, 2]
