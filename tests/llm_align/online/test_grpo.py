"""The GRPO family: learns a 4-token language, repeats, resumes; each axis by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from llm_align.feedback.rewards import Reward, Rewards
from llm_align.models.adapters import Lora, add_lora
from llm_align.models.log_probs import log_probs
from llm_align.online import grpo
from llm_align.online.loop import Experience
from llm_align.online.reference import KL, Reference, mean_kl
from llm_align.online.rollout import join
from rl_core.advantages import group_zscore

CHARGED = KL(coef=0.01, estimator="k1", place="reward")
MEMBERS = {
    "grpo": {"kl": KL(coef=0.04)},
    "dr_grpo": {"advantage": "center", "reduction": "constant"},
    "dapo": {"clip_high": 0.28, "reduction": "token", "refill": 2},
    "gspo": {"ratio": "geometric", "clip_low": 3e-4, "clip_high": 4e-4},
    "gmpo": {"ratio": "clipped_geometric", "surrogate": "none", "clip_low": 0.4, "clip_high": 0.4},
    "gfpo": {"keep": 4, "keep_by": "efficiency", "reduction": "token"},
    "lite_ppo": {"advantage": "batch_scale", "reduction": "token"},
    "rloo": {"advantage": "leave_one_out", "ratio": "sequence", "kl": CHARGED},
    "reinforce_pp": {"advantage": "batch", "reduction": "token", "kl": CHARGED},
    "cispo": {"surrogate": "cispo", "clip_low": 0.0, "clip_high": 5.0, "reduction": "token"},
    "sapo": {"surrogate": "sapo"},
    "vespo": {"surrogate": "vespo", "reduction": "token"},
    "gdpo": {"objectives": "zscore", "advantage": "batch"},
    "luspo": {"ratio": "geometric", "clip_low": 3e-4, "clip_high": 4e-4, "reduction": "sum"},
}  # fmt: skip


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_learns_the_language(member, train, language):
    cfg = grpo.Config(lr=1e-2, epochs=2, minibatches=2, **MEMBERS[member])
    agent = train(grpo, cfg, 40)
    assert language.mean_reward(language.policy()) < 0.3
    assert language.mean_reward(agent.policy) >= 0.95


def test_same_seed_same_weights_and_two_and_two_are_four(train, same_weights, language):
    cfg = grpo.Config(
        lr=1e-2, epochs=2, minibatches=2, entropy_coef=1e-3, warmup=3, kl=KL(coef=0.1, target=0.5, horizon=64)
    )
    whole, again = train(grpo, cfg, 4), train(grpo, cfg, 4)
    train(grpo, cfg, 2, name="parts")
    parts = train(grpo, cfg, 4, name="parts", resume=True)
    assert same_weights(whole, again)
    assert same_weights(whole, parts)
    assert not same_weights(whole.policy, language.policy())


def batch_of(language, cfg, *, lora=False, **options):
    task, policy = language.task(**options), language.policy()
    if lora:
        policy = add_lora(policy, Lora(rank=2, targets=("q_proj",)))
    reference = Reference(policy) if cfg.kl.coef else None
    generator, prompts, drawn = torch.Generator().manual_seed(0), task.sampler(0), []
    suffices = grpo.enough(cfg, task.config.prompts)
    while not suffices(drawn):
        drawn.append(task.draw(policy, prompts.next(), generator))
    samples = join(drawn)
    ref = None if reference is None else reference.log_prob(samples.responses)
    experience = Experience(samples=samples, ref_log_prob=ref, kl_coef=cfg.kl.coef, temperature=1.0)
    return policy, grpo.collect(cfg, experience, task.config)


@pytest.mark.parametrize("reduction", ["sequence", "token", "constant"])
def test_rows_without_advantage_change_nothing_but_the_work(language, reduction):
    cfg = grpo.Config(reduction=reduction)

    def only_first_two(prompts, completion_ids):
        return [
            row.count(2) if p in ("a b", "b c") else 1.0
            for p, row in zip(prompts, completion_ids, strict=True)
        ]

    policy, batch = batch_of(language, cfg, function=only_first_two)
    assert 0 < len(batch.rows) <= 16
    grads = []
    for rows in (batch.rows, torch.arange(len(batch.samples))):
        policy.zero_grad()
        grpo.loss_of(policy, batch, rows, cfg)[0].backward()
        grads.append([p.grad.clone() for p in policy.parameters()])
    for few, many in zip(*grads, strict=True):
        torch.testing.assert_close(few, many, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("member", MEMBERS)
def test_micro_batches_change_nothing_but_memory(member, language):
    """The gradient, which a step of SGD is, of all responses at once and of three at a time."""
    weights = []
    for size in (0, 3):
        cfg = grpo.Config(lr=1.0, micro_batch_size=size, max_grad_norm=100.0, **MEMBERS[member])
        policy, batch = batch_of(language, cfg)
        agent = grpo.Agent(cfg, policy)
        agent.optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
        grpo.update(agent, batch, cfg, torch.Generator().manual_seed(0))
        weights.append(torch.cat([p.flatten() for p in policy.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=0)
    start = torch.cat([p.flatten() for p in language.policy().parameters()])
    assert not torch.allclose(weights[0], start, atol=1e-4)


def test_the_first_step_is_the_policy_gradient(language):
    """At ratio 1, sequence mean, no clip acts: the gradient is that of -mean_i mean_t A_i log pi."""
    cfg = grpo.Config()
    policy, batch = batch_of(language, cfg)
    grpo.loss_of(policy, batch, torch.arange(len(batch.samples)), cfg)[0].backward()
    ours = [p.grad.clone() for p in policy.parameters()]
    policy.zero_grad()
    responses = batch.samples.responses
    mean = log_probs(policy, responses).log_prob.sum(1) / responses.lengths
    (-(batch.advantage * mean).mean()).backward()
    for mine, p in zip(ours, policy.parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("reward", [1.0, 0.7])
def test_equal_rewards_take_no_step(train, language, same_weights, reward):
    """Also where the mean of eight of them is off by a rounding."""
    task = language.task(lambda prompts: [reward] * len(prompts))
    agent = train(grpo, grpo.Config(lr=1e-2), 2, task=task)
    assert same_weights(agent.policy, language.policy())


def test_unjudged_rows_teach_nothing(language):
    cfg = grpo.Config(kl=KL(coef=0.1))
    policy, batch = batch_of(
        language, cfg, function=lambda completion_ids: [None, 1.0] * (len(completion_ids) // 2)
    )
    assert (batch.advantage == 0).all()
    assert (batch.rows % 2 == 1).all()


def test_refill_replaces_groups_of_equal_rewards(language):
    def only_first_two(prompts, completion_ids):
        return [
            row.count(2) if p in ("a b", "b c") else 1.0
            for p, row in zip(prompts, completion_ids, strict=True)
        ]

    cfg = grpo.Config(refill=3, reduction="token")
    _, batch = batch_of(language, cfg, function=only_first_two)
    prompts = batch.samples.responses.prompt_index[batch.rows].unique()
    assert len(prompts) == 4
    assert len(batch.samples) == 64
    assert batch.num_rows == 32


def samples_of(language, **options):
    return language.task(**options).draw(language.policy(), range(4), torch.Generator().manual_seed(0))


def test_filters_and_shapes_of_the_reward_by_hand(language):
    samples, drawn = samples_of(language), language.task().config
    lengths, ended = samples.responses.lengths, samples.ended

    cut = grpo.advantages(samples, grpo.Config(drop_truncated=True, advantage="center"), None, 0.0, drawn)
    assert (cut[~ended] == 0).all()

    kept = grpo.advantages(samples, grpo.Config(keep=3, advantage="center"), None, 0.0, drawn)
    for row in range(4):
        group = slice(8 * row, 8 * row + 8)
        shortest = lengths[group].argsort(stable=True)[:3]
        reward = samples.reward[group][shortest]
        expected = torch.zeros(8).index_put((shortest,), reward - reward.mean())
        torch.testing.assert_close(kept[group], expected)

    plain = dataclasses.replace(samples, reward=torch.zeros(32))
    long = grpo.advantages(plain, grpo.Config(overlong_buffer=3, advantage="center"), None, 0.0, drawn)
    penalty = -((lengths - 3) / 3).clamp(0, 1)
    torch.testing.assert_close(
        long.view(4, 8), (penalty.view(4, 8) - penalty.view(4, 8).mean(1, keepdim=True))
    )

    charged = grpo.Config(advantage="center", kl=KL(coef=1.0, estimator="k1", place="reward"))
    ref = samples.log_prob - 0.1 * samples.responses.loss_mask
    kl = grpo.advantages(plain, charged, ref, 2.0, drawn)
    torch.testing.assert_close(
        kl.view(4, 8), -0.2 * (lengths - lengths.view(4, 8).float().mean(1).repeat_interleave(8)).view(4, 8)
    )


def test_each_reward_counts_by_its_weight_and_not_by_its_spread(language):
    """A reward of a thousandth of the other's scale with twice its weight, and one that only watches."""
    named = [
        Reward(name="a", function=lambda completion_ids: [1e3 * row.count(2) for row in completion_ids]),
        Reward(
            name="b", function=lambda completion_ids: [row.count(3) for row in completion_ids], weight=2.0
        ),
        Reward(name="watched", function=lambda completion_ids: [*range(len(completion_ids))], weight=0.0),
    ]
    task = dataclasses.replace(language.task(), rewards=Rewards(named))
    samples = task.draw(language.policy(), range(4), torch.Generator().manual_seed(0))
    drawn = Experience(samples=samples, ref_log_prob=None, kl_coef=0.0, temperature=1.0)
    a, b = (group_zscore(samples.parts[name].view(4, 8), eps=1e-4) for name in "ab")
    reward = grpo.decoupled(drawn, task.rewards).samples.reward
    torch.testing.assert_close(reward.view(4, 8), a + 2 * b)
    assert torch.corrcoef(torch.stack([reward, b.flatten()]))[0, 1] > 0.7
    assert torch.corrcoef(torch.stack([samples.reward, samples.parts["b"]]))[0, 1] < 0.3


def test_adapters_off_are_the_reference(language):
    cfg = grpo.Config(kl=KL(coef=0.1))
    policy, batch = batch_of(language, cfg, lora=True)
    torch.testing.assert_close(batch.ref_log_prob, batch.samples.log_prob, atol=1e-5, rtol=0)
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.normal_()
    moved = log_probs(policy, batch.samples.responses).log_prob
    assert not torch.allclose(moved, batch.ref_log_prob, atol=1e-3)
    again = Reference(policy).log_prob(batch.samples.responses)
    torch.testing.assert_close(again, batch.ref_log_prob)


def test_the_adaptive_controller_holds_the_kl_at_its_target(train, language, tmp_path):
    cfg = grpo.Config(lr=3e-3, kl=KL(coef=1.0, target=1.0, horizon=400))
    train(grpo, cfg, 80, name="held")
    rows = [json.loads(line) for line in (tmp_path / "held" / "metrics.jsonl").read_text().splitlines()]
    kls = [row["train/kl"] for row in rows]
    assert sum(kls[40:]) / 40 < 1.1
    assert max(kls) < 2.0
    free = train(grpo, grpo.Config(lr=3e-3), 40)
    drawn = language.task().draw(free.policy, range(4), torch.Generator().manual_seed(1), group_size=64)
    assert mean_kl(drawn, Reference(language.policy()).log_prob(drawn.responses)) > 5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"advantage": "zscor"}, "did you mean 'zscore'"),
        ({"ratio": "tokens"}, "algo.ratio"),
        ({"objectives": "zscor"}, "did you mean 'zscore'"),
        ({"ratio": "clipped_geometric"}, "algo.surrogate='clip'"),
        ({"lr": 0.0}, "algo.lr=0.0"),
        ({"dual_clip": 0.5}, "algo.dual_clip=0.5"),
        (
            {"surrogate": "vespo", "ratio": "geometric"},
            "must be token with algo.surrogate=vespo; read by clip",
        ),
        ({"surrogate": "vespo", "dual_clip": 3.0}, "must be inf with algo.surrogate=vespo; read by clip"),
        ({"surrogate": "sapo", "clip_high": 0.28}, "algo.clip_high=0.28: must be 0.2 with .*sapo"),
        ({"keep_by": "efficiency"}, "must be length without algo.keep above 0"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        grpo.Config(**options)


@pytest.mark.parametrize(
    ("options", "drawn", "message"),
    [
        ({}, {"group_size": 1}, "rollout.group_size=1: must be 2 or more with algo.advantage=zscore"),
        ({"advantage": "batch", "objectives": "zscore"}, {"group_size": 1}, "rollout.group_size=1"),
        ({"advantage": "batch"}, {"group_size": 1, "prompts": 1}, "rollout.prompts x group_size=1"),
        ({"keep": 9}, {}, "algo.keep=9: must be 0 .all. or 2 to rollout.group_size=8"),
        ({"keep": 1}, {}, "algo.keep=1"),
        ({"overlong_buffer": 7}, {}, "algo.overlong_buffer=7: must be at most the 6 tokens"),
    ],
)
def test_rollouts_that_teach_nothing_are_refused(options, drawn, message, train, language):
    with pytest.raises(ValueError, match=message):
        train(grpo, grpo.Config(**options), 1, task=language.task(**drawn))


def test_a_batch_of_single_responses_is_compared_with_itself(train, language, same_weights):
    cfg = grpo.Config(lr=1e-2, advantage="batch")
    agent = train(grpo, cfg, 1, task=language.task(group_size=1))
    assert not same_weights(agent.policy, language.policy())


def test_what_is_not_judged_is_not_among_the_kept(language):
    samples = samples_of(language)
    shortest = samples.grouped(samples.responses.lengths).argsort(dim=1, stable=True)[:, :2]
    reward = samples.grouped(samples.reward).scatter(1, shortest, math.nan).flatten()
    samples = dataclasses.replace(samples, reward=reward)
    cfg = grpo.Config(keep=6, advantage="center")
    kept = grpo.advantages(samples, cfg, None, 0.0, language.task().config)
    every = grpo.advantages(samples, grpo.Config(advantage="center"), None, 0.0, language.task().config)
    torch.testing.assert_close(kept, every)
    assert (kept != 0).any()


def test_an_environments_words_are_not_too_long(language):
    """Of twelve tokens six are the policy's: half of its limit, the whole of which a buffer looks at."""
    samples = samples_of(language)
    mask = torch.zeros(32, 12, dtype=torch.bool)
    mask[:, :6] = True
    ids = torch.full((32, 12), 2)
    talk = dataclasses.replace(
        samples.responses, response_ids=ids, response_mask=torch.ones_like(mask), loss_mask=mask
    )
    samples = dataclasses.replace(samples, responses=talk, reward=torch.arange(32.0))
    drawn = language.task(max_turns=2, environment=lambda **_: []).config
    shaped, plain = (
        grpo.advantages(samples, grpo.Config(overlong_buffer=buffer, advantage="center"), None, 0.0, drawn)
        for buffer in (6, 0)
    )
    torch.testing.assert_close(shaped, plain)


def test_an_entropy_bonus_moves_what_has_no_advantage(train, language, same_weights):
    task = language.task(lambda prompts: [1.0] * len(prompts))
    agent = train(grpo, grpo.Config(lr=1e-2, entropy_coef=0.1), 1, task=task)
    assert not same_weights(agent.policy, language.policy())


@pytest.mark.parametrize("member", ["grpo", "gspo", "gmpo", "cispo", "sapo", "vespo"])
def test_the_clip_fraction_is_that_of_what_is_clipped(member):
    """Token ratios 1, 1.1, 1.4 and 8: two beyond 1.2, one beyond e^0.4, and their mean beyond 1.0004."""
    cfg, old = grpo.Config(**MEMBERS[member]), torch.zeros(1, 4)
    now = torch.tensor([[1.0, 1.1, 1.4, 8.0]]).log()
    stats = grpo.ratio_stats(now, old, torch.ones(1, 4, dtype=torch.bool), cfg)
    share = {"grpo": 0.5, "gspo": 1.0, "gmpo": 0.25, "cispo": 0.25, "sapo": 0.0, "vespo": 0.0}[member]
    assert stats["clip_fraction"] == share


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coef": 0.1, "estimator": "k1"}, "k1 has no gradient"),
        ({"target": 1.0}, "algo.kl.coef"),
        ({"place": "los"}, "did you mean 'loss'"),
        ({"coef": -1.0}, "algo.kl.coef=-1.0"),
        ({"target": math.nan}, "algo.kl.target"),
    ],
)
def test_wrong_kl_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KL(**options)
