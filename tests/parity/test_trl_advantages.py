"""Advantages of groups equal those of TRL's trainers, which judge completions that a stub has generated."""

import os
from unittest.mock import MagicMock

import pytest
import torch

from rl_core import advantages, kl

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # or each import warns that it may change
pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed; `pip install .[peers]` brings it")

from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402
from trl.trainer.rloo_trainer import RLOOTrainer  # noqa: E402

P, G, L = 3, 4, 5  # prompts, answers to each, tokens of each
B = P * G


@pytest.fixture(name="rewards")
def _rewards():
    """Rewards `[P, G]`: one is missing, one group has equal ones."""
    rewards = torch.randn(P, G, generator=torch.Generator().manual_seed(0))
    rewards[0, 1] = torch.nan
    rewards[2] = 0.5
    return rewards


def trl_advantages(trainer_class, rewards, **settings):
    """What the trainer's own rollout makes of `rewards`, `[P, G]` or, of K functions, `[K, P, G]`."""
    table = rewards.reshape(-1, B).T
    trainer = MagicMock(
        num_generations=G,
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        environment_factories=None,
        environments=None,
        tools=None,
        use_vllm=False,
        num_iterations=1,
        reward_func_names=[f"reward{k}" for k in range(table.shape[1])],
        reward_funcs=[None] * table.shape[1],
        **{
            "beta": 0.0,
            "multi_objective_aggregation": "sum_then_normalize",
            "reward_weights": torch.ones(1),
            **settings,
        },
    )
    trainer._tokenizer.pad_token_id = 0
    trainer.accelerator.process_index, trainer.accelerator.device = 0, "cpu"
    trainer.accelerator.gather = lambda x: x
    trainer.args.steps_per_generation = trainer.args.gradient_accumulation_steps = 1
    trainer._pending_extra_logs, trainer._pending_metrics = {}, {}
    prompts, answers, texts = [[1, 2]] * B, [[3] * L] * B, ["text"] * B
    rollout = (prompts, answers, texts)
    if trainer_class is GRPOTrainer:
        rollout = (prompts, answers, None, texts, None, {}, None, [])
    trainer._generate.return_value = rollout
    trainer._calculate_rewards.return_value = table
    inputs = [{"prompt": "prompt"}] * B
    return trainer_class._generate_and_score_completions(trainer, inputs)["advantages"].view(P, G)


@pytest.mark.parametrize(
    ("scale", "ours"),
    [
        ("group", advantages.group_zscore),
        ("none", advantages.group_center),
        ("batch", advantages.group_center_batch_scale),
    ],
)
def test_group_relative(rewards, scale, ours):
    theirs = trl_advantages(GRPOTrainer, rewards, scale_rewards=scale)
    assert torch.allclose(ours(rewards), theirs, atol=1e-5)
    assert theirs.abs().max() > 0.5


def test_several_rewards_each_in_its_group(rewards):
    weights = torch.tensor([1.0, 3.0])
    several = torch.stack([100 * rewards, torch.randn(P, G, generator=torch.Generator().manual_seed(1))])
    several[1, 0, :2] = torch.nan  # one row that nothing judged, one that the first did
    options = {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": weights}
    theirs = trl_advantages(GRPOTrainer, several, **options)
    ours = advantages.group_zscore(advantages.sum_of_zscores(several, weights).reshape(1, -1)).view(P, G)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert theirs[0, 1] == 0
    assert theirs.abs().max() > 0.5


def test_leave_one_out_with_the_kl_in_the_reward(rewards):
    log_prob, ref = (-torch.rand(B, L, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    returns = [(log_prob, None, None), (ref, None, None)]  # the sampler's first, then the reference's
    scorer = MagicMock(side_effect=returns)
    settings = {"beta": 0.3, "reward_clip_range": None, "normalize_advantages": False}
    theirs = trl_advantages(RLOOTrainer, rewards, _get_per_token_logps_and_entropies=scorer, **settings)
    charged = rewards - 0.3 * kl.k1(log_prob, ref).sum(-1).view(P, G)
    assert torch.allclose(advantages.leave_one_out(charged), theirs, atol=1e-5)
