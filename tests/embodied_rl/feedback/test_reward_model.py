"""The ensemble: its loss by hand, what it learns from comparisons, what it is tested on."""

import math

import pytest
import torch

from embodied_rl.feedback import reward_model, teachers
from embodied_rl.feedback.judgements import Judgements
from embodied_rl.feedback.segments import Segments

CPU = torch.device("cpu")


def random_segments(count: int, seed: int) -> Segments:
    """Segments of four steps whose reward is `2 o_1 - a`."""
    rng = torch.Generator().manual_seed(seed)
    obs = 5.0 + 3.0 * torch.randn(count, 4, 3, generator=rng)
    action = torch.rand(count, 4, 1, generator=rng) * 2 - 1
    place = torch.arange(count)[:, None].expand(-1, 3)
    return Segments(obs=obs, action=action, reward=2 * obs[..., 1] - action[..., 0], place=place)


def judged_pairs(segments: Segments, count: int, rng: torch.Generator, members: int = 3) -> Judgements:
    judged = Judgements(members, CPU)
    pairs = segments[torch.randint(len(segments), (count, 2), generator=rng)]
    judged.add(pairs, teachers.judge(pairs, teachers.Config(), rng), rng)
    return judged


def test_the_loss_by_hand():
    """Two members, two comparisons; the second member sees the first one twice and the other never."""
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    weight = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    found = reward_model.preference_loss(logits, torch.tensor([1.0, 0.5]), weight, label_noise=0.0)

    def nll(logit, target):
        chance = 1 / (1 + math.exp(-logit))
        return -target * math.log(chance) - (1 - target) * math.log(1 - chance)

    expected = (nll(1, 1) + nll(-2, 0.5)) / 2 + nll(0.5, 1)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    smooth = reward_model.preference_loss(logits, torch.tensor([1.0, 0.5]), weight, label_noise=0.2)
    assert float(smooth) == pytest.approx((nll(1, 0.9) + nll(-2, 0.5)) / 2 + nll(0.5, 0.9), rel=1e-6)


def test_learns_the_reward_from_comparisons():
    rng = torch.Generator().manual_seed(0)
    cfg = reward_model.Config(hidden=(32,), updates=150, lr=3e-3)
    agent = reward_model.Agent(cfg, 3, 1, rng)
    pool = random_segments(300, seed=1)
    stats = reward_model.fit(agent, judged_pairs(pool, 200, rng), pool, cfg, rng)
    new = random_segments(300, seed=2)
    assert reward_model.agreement(agent, new) > 0.95
    assert stats["accuracy"] > 0.85
    step = agent(pool.obs, pool.action)
    assert step.mean() == pytest.approx(0.0, abs=1e-5)
    each = (agent.members(pool.obs, pool.action).flatten(1) - agent.mean) / agent.std
    torch.testing.assert_close(each.std(1), torch.ones(3))


def test_accuracy_counts_what_the_members_have_not_seen():
    rng = torch.Generator().manual_seed(0)
    agent = reward_model.Agent(reward_model.Config(hidden=(8,)), 3, 1, rng)
    judged = judged_pairs(random_segments(40, seed=1), 5, rng)
    with torch.no_grad():
        logits = agent.logits(judged.pairs)
    judged.counts = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 1, 1], [1, 1, 0]]).float()
    said = [logits[0, 0], None, logits[:2, 2].sum(), None, logits[2, 4]]
    judged.preference = torch.tensor(  # right, seen by all, wrong, a tie, right
        [float(said[0] > 0), 1.0, float(said[2] <= 0), 0.5, float(said[4] > 0)]
    )
    found = reward_model.evaluate(agent, judged, reward_model.Config())
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["held_out"] == 3
    loss = reward_model.cross_entropy(logits, judged.preference, 0.1)
    unseen = judged.counts.T == 0
    assert found["loss"] == pytest.approx(float(loss[~unseen].mean()))
    assert found["loss_unseen"] == pytest.approx(float(loss[unseen].mean()))
    judged.counts = torch.ones(5, 3)
    assert "accuracy" not in reward_model.evaluate(agent, judged, reward_model.Config())


def test_the_decay_follows_the_loss_on_what_was_not_seen():
    assert reward_model.adapted_decay(1.0, {"loss": 0.2, "loss_unseen": 0.4}, 50.0) == 2.0
    assert reward_model.adapted_decay(40.0, {"loss": 0.2, "loss_unseen": 0.4}, 50.0) == 50.0
    assert reward_model.adapted_decay(1.0, {"loss": 0.2, "loss_unseen": 0.21}, 50.0) == 0.5
    assert reward_model.adapted_decay(1.0, {"loss": 0.2, "loss_unseen": 0.26}, 50.0) == 1.0
    assert reward_model.adapted_decay(1.0, {"loss": 0.2, "loss_unseen": float("nan")}, 50.0) == 1.0


def test_members_disagree_by_the_variance_of_their_answers():
    agent = reward_model.Agent(reward_model.Config(hidden=(8,)), 3, 1, torch.Generator().manual_seed(0))
    pairs = random_segments(4, seed=1)[torch.tensor([[0, 1], [2, 3], [1, 1]])]
    answers = torch.stack([
        torch.sigmoid(one[:, 0] - one[:, 1]) for one in agent.members(pairs.obs, pairs.action).sum(-1)
    ])  # fmt: skip
    torch.testing.assert_close(agent.disagreement(pairs), answers.var(0, correction=0))
    assert agent.disagreement(pairs)[2] == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "algo.feedback.reward.members=0"),
        ({"lr": math.nan}, "algo.feedback.reward.lr=nan"),
        ({"weight_decay": 51.0}, "algo.feedback.reward.weight_decay=51.0.*at most 0.05 / lr"),
        ({"label_noise": 1.0}, "algo.feedback.reward.label_noise=1.0"),
        ({"hidden": ()}, "algo.feedback.reward.hidden"),
    ],
)
def test_what_cannot_train_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        reward_model.Config(**options)
