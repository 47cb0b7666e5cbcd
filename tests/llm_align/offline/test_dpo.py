from __future__ import annotations

import math

import pytest
import torch

from llm_align.data.loader import make_batch
from llm_align.data.tokens import Encoded
from llm_align.models import optim
from llm_align.models.adapters import Lora, add_lora
from llm_align.models.log_probs import log_probs
from llm_align.offline import dpo
from tests.llm_align.offline import small


def quick(cfg, **changes):
    settings = {name: getattr(cfg, name) for name in cfg.__dataclass_fields__}
    return dpo.Config(**settings | {"optim": optim.Config(lr=3e-3), "cache": ""} | changes)


def items_for(cfg):
    made = {
        "rating": small.ratings,
        "pair": small.preferences,
        "ranking": lambda: small.preferences(answers=4),
    }
    return made[dpo.LOSSES[cfg.loss].takes]()


def train(folder, cfg, steps=4, data=None, policy=None, held_out=None, **settings):
    data = data or small.batches(items_for(cfg))
    with small.make_run(folder, steps=steps, checkpoint_every=2, **settings) as run:
        return dpo.train(cfg, policy or small.small_policy(), data, held_out, run)


def score(policy, items):
    """Log-probability of each answer of each example, `[P, K]`."""
    batch = make_batch(items, range(len(items)))
    with torch.no_grad():
        return batch.grid(log_probs(policy, batch.responses).log_prob.sum(1))


@pytest.mark.parametrize("member", dpo.MEMBERS)
def test_every_member_prefers_the_better_answer_after_training(tmp_path, member):
    cfg = quick(dpo.MEMBERS[member])
    pairs = small.preferences()
    before = score(small.small_policy(), pairs)
    agent = train(tmp_path / "run", cfg, steps=30)
    after = score(agent.policy, pairs)
    gain = (after - before)[:, 0] - (after - before)[:, 1]
    assert (gain > 0).float().mean() > 0.9


def test_dpo_reverses_a_preference(tmp_path):
    """A policy that was taught the worse answers learns to give the better ones."""
    cfg, pairs = quick(dpo.MEMBERS["dpo"], optim=optim.Config(lr=1e-2)), small.preferences()
    worse = [small.encoded(item.prompt, [item.responses[1][:-1], item.responses[0][:-1]]) for item in pairs]
    taught = train(tmp_path / "taught", cfg, steps=30, data=small.batches(worse)).policy
    assert (score(taught, pairs)[:, 0] < score(taught, pairs)[:, 1]).float().mean() > 0.9
    agent = train(tmp_path / "run", cfg, steps=80, policy=taught)
    assert (score(agent.policy, pairs)[:, 0] > score(agent.policy, pairs)[:, 1]).float().mean() > 0.9


def test_the_first_loss_of_dpo_is_log_two_and_its_gap_is_computed_by_hand(tmp_path):
    cfg = quick(dpo.MEMBERS["dpo"])
    pairs = small.preferences(4)
    agent = dpo.Agent(small.small_policy(), cfg)
    batch = make_batch(pairs, range(4))
    own = score(agent.policy, pairs)
    stats = dpo.losses_of(agent, dpo.Scored(batch=batch, reference=own), cfg)
    torch.testing.assert_close(stats[0], torch.full((4,), math.log(2.0)))
    shifted = dpo.Scored(batch=batch, reference=own - torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(
        dpo.losses_of(agent, shifted, cfg)[0], torch.full((4,), math.log1p(math.exp(-0.1)))
    )


def test_orpo_adds_the_token_mean_of_the_chosen():
    cfg = quick(dpo.MEMBERS["orpo"])
    pairs = small.preferences(4)
    agent = dpo.Agent(small.small_policy(), cfg)
    chosen = make_batch([small.encoded(item.prompt, [item.responses[0][:-1]]) for item in pairs], range(4))
    out = log_probs(agent.policy, chosen.responses).log_prob
    expected = -(out.sum() / chosen.responses.loss_mask.sum()).item()
    item = dpo.Scored(batch=make_batch(pairs, range(4)), reference=torch.zeros(4, 2))
    odds = dpo.losses_of(agent, item, cfg)[0].mean().item()
    stats = dpo.update(agent, [item], cfg)
    assert stats["nll"].item() == pytest.approx(expected, rel=1e-5)
    assert stats["loss"].item() == pytest.approx(expected + odds, rel=1e-5)


@pytest.mark.parametrize("member", dpo.MEMBERS)
def test_accumulation_is_one_larger_batch(tmp_path, member):
    """The gradient of one update of 8 examples is that of two batches of 4, and of parts of 2 and 6."""
    cfg = quick(dpo.MEMBERS[member])
    data = small.batches(items_for(cfg)[:8])
    found = []
    for parts in ([range(8)], [range(4), range(4, 8)], [range(6), range(6, 8)]):
        agent = dpo.Agent(small.small_policy(), cfg)
        agent.optimizer = torch.optim.SGD(agent.policy.parameters(), lr=1.0)  # the step is the gradient
        with small.make_run(tmp_path / f"run{len(found)}") as run:
            references = dpo._references(small.small_policy(1), data, cfg, run, None)
        stats = dpo.update(agent, [references(make_batch(data.encoded, rows)) for rows in parts], cfg)
        found.append({"step": small.weights(agent.policy)} | stats)
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: n + m)
    assert not torch.allclose(found[0]["step"], small.weights(small.small_policy()), atol=1e-4)


def test_sorting_within_parts_is_another_gradient():
    """The rivals of a larger batch matter: what `update` shares is no formality."""
    cfg, pairs = quick(dpo.MEMBERS["aot"], beta=1.0), small.preferences(8)
    agent = dpo.Agent(small.small_policy(), cfg)
    reference = torch.linspace(-3, 3, 16).view(8, 2).sin() * 5
    item, *halves = (
        dpo.Scored(batch=make_batch(pairs, rows), reference=reference[rows.start : rows.stop])
        for rows in (range(8), range(4), range(4, 8))
    )
    whole = dpo.losses_of(agent, item, cfg)[0].mean()
    alone = torch.cat([dpo.losses_of(agent, half, cfg)[0] for half in halves]).mean()
    together = dpo.update(agent, halves, cfg)["loss"]
    torch.testing.assert_close(together, whole.detach())
    assert abs(alone - whole) > 1e-3


def test_rankings_of_two_are_pairs():
    pairs = small.preferences(4)
    agent = dpo.Agent(small.small_policy(), quick(dpo.MEMBERS["dpo"]))
    item = dpo.Scored(batch=make_batch(pairs, range(4)), reference=torch.zeros(4, 2))
    want = dpo.losses_of(agent, item, quick(dpo.MEMBERS["dpo"]))[0]
    for member in ("plackett_luce", "info_nce"):
        torch.testing.assert_close(dpo.losses_of(agent, item, quick(dpo.MEMBERS[member]))[0], want)


def test_rankings_of_different_lengths_share_a_batch():
    items = [*small.preferences(2, answers=2), *small.preferences(2, answers=4)]
    cfg = quick(dpo.MEMBERS["ranking"])
    agent = dpo.Agent(small.small_policy(), cfg)

    def losses(rows):
        batch = make_batch(items, rows)
        return dpo.losses_of(agent, dpo.Scored(batch=batch, reference=torch.zeros(batch.mask.shape)), cfg)[0]

    for member in ("ranking", "plackett_luce", "info_nce"):
        cfg = quick(dpo.MEMBERS[member])
        torch.testing.assert_close(losses(range(4)), torch.cat([losses([0, 1]), losses([2, 3])]))


def test_a_margin_asks_for_a_larger_gap():
    cfg, pairs = quick(dpo.MEMBERS["odpo"]), small.preferences(4)
    agent = dpo.Agent(small.small_policy(), cfg)
    item = dpo.Scored(batch=make_batch(pairs, range(4)), reference=score(agent.policy, pairs))
    expected = math.log1p(math.exp(0.5))
    torch.testing.assert_close(dpo.losses_of(agent, item, cfg)[0], torch.full((4,), expected))


def test_the_reference_point_of_kto_is_zero_at_the_start_and_bco_keeps_a_running_mean(tmp_path):
    cfg = quick(dpo.MEMBERS["kto"])
    data = small.batches(small.ratings())
    agent = dpo.Agent(small.small_policy(), cfg)
    with small.make_run(tmp_path / "run") as run:
        references = dpo._references(agent.policy, data, cfg, run, None)
    scored = references(data.next())
    loss, _, stats = dpo.losses_of(agent, scored, cfg)
    assert stats["baseline"].item() == pytest.approx(0.0, abs=1e-5)
    torch.testing.assert_close(loss, torch.full_like(loss, 0.5))
    bco = train(tmp_path / "bco", quick(dpo.MEMBERS["bco"]))
    assert bco.shift.count == 32  # four batches of eight


@pytest.mark.parametrize("member", ["dpo", "kto", "bco", "tr_dpo"])
def test_two_and_two_steps_are_four_and_a_seed_is_a_run(tmp_path, member):
    cfg = quick(dpo.MEMBERS[member], **{"sync_every": 1} if member == "tr_dpo" else {})
    whole, again = (small.weights(train(tmp_path / name, cfg)) for name in ("whole", "again"))
    assert torch.equal(whole, again)
    with pytest.raises(small.PowerCutError):
        train(tmp_path / "cut", cfg, data=small.cut_at(small.batches(items_for(cfg)), call=4))
    resumed = train(tmp_path / "cut", cfg, resume=True)
    assert torch.equal(whole, small.weights(resumed))


def test_the_reference_follows_the_policy(tmp_path):
    """Softly after every second update, wholly after the third: by hand from the policies along the way."""
    start = small.weights(small.small_policy())
    level = optim.Config(lr=3e-3, schedule="constant")
    soft = quick(dpo.MEMBERS["tr_dpo"], sync=0.25, sync_every=2, optim=level)
    along = [small.weights(train(tmp_path / f"{n}", soft, steps=n).policy) for n in (2, 3)]
    moved = small.weights(train(tmp_path / "soft", soft, steps=3).moving)
    torch.testing.assert_close(moved, 0.75 * start + 0.25 * along[0])
    assert not torch.equal(along[0], along[1])
    copied = train(tmp_path / "hard", quick(dpo.MEMBERS["tr_dpo"], sync=1.0, sync_every=3), steps=3)
    assert torch.equal(small.weights(copied.moving), small.weights(copied.policy))


def test_before_it_moves_a_moving_reference_says_what_the_table_says(tmp_path):
    held = small.batches(small.preferences())
    tables = [train(tmp_path / name, quick(dpo.MEMBERS[name]), held_out=held) for name in ("dpo", "tr_dpo")]
    torch.testing.assert_close(*(small.weights(agent.policy) for agent in tables))
    moving = tables[1].train().moving  # as after an evaluation
    assert not moving.model.training


def test_tokens_beyond_the_shorter_answer_count_by_their_surplus(tmp_path):
    """At surplus 0 the longer answer is cut to the shorter's length, for policy and reference alike."""
    pair = small.encoded([2, 3], [[2, 2, 2], [4]])  # 4 and 2 tokens with EOS
    cut = Encoded(
        prompt=pair.prompt,
        responses=pair.responses,
        loss_masks=[[True, True, False, False], [True, True]],
        example=pair.example,
    )
    agent = dpo.Agent(small.small_policy(), quick(dpo.MEMBERS["dpo"]))
    found = {}
    with small.make_run(tmp_path / "run") as run:
        for name, item, surplus in (
            ("whole", pair, 1.0),
            ("cut", cut, 1.0),
            ("none", pair, 0.0),
            ("half", pair, 0.5),
        ):
            cfg = quick(dpo.MEMBERS["dpo"], surplus=surplus)
            data = small.batches([item])
            scored = dpo._references(small.small_policy(1), data, cfg, run, None)(data.next())
            stats = dpo.losses_of(agent, scored, cfg)[2]
            found[name] = scored.reference, stats["margin"]
    torch.testing.assert_close(found["none"], found["cut"])
    torch.testing.assert_close(found["half"][1], (found["whole"][1] + found["cut"][1]) / 2)
    assert found["whole"][1] != found["cut"][1]


def test_aot_sorts_gaps_of_policy_and_reference():
    cfg, pairs = quick(dpo.MEMBERS["aot"]), small.preferences(4)
    agent = dpo.Agent(small.small_policy(), cfg)
    reference = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [5.0, 1.0]])
    own = score(agent.policy, pairs)
    loss = dpo.losses_of(agent, dpo.Scored(batch=make_batch(pairs, range(4)), reference=reference), cfg)[0]
    gap = (own[:, 0] - own[:, 1]).sort().values - torch.tensor([-2.0, 0.0, 1.0, 4.0])
    torch.testing.assert_close(loss.sum(), -torch.nn.functional.logsigmoid(0.1 * gap).sum())


def test_adapters_off_are_the_reference(tmp_path):
    cfg = quick(dpo.MEMBERS["dpo"])
    policy = add_lora(small.small_policy(), Lora(rank=4))
    data = small.batches(small.preferences())
    agent = train(tmp_path / "run", cfg, policy=policy, steps=20, data=data, held_out=data)
    with small.make_run(tmp_path / "other") as run:
        table = dpo._references(agent.policy, data, cfg, run, None).table
    torch.testing.assert_close(table, score(small.small_policy(), data.encoded), atol=1e-5, rtol=0)
    assert not torch.equal(score(agent.policy, data.encoded), table)


def test_evaluation_weighs_examples_alike():
    cfg = quick(dpo.MEMBERS["dpo"], reference=False)
    agent = dpo.Agent(small.small_policy(), cfg)
    data = small.batches(small.preferences(10), batch_size=4)
    nothing = lambda batch: dpo.Scored(batch=batch, reference=torch.zeros(batch.mask.shape))  # noqa: E731
    found = dpo.evaluate(agent, data, nothing, cfg)
    own = score(agent.policy, data.encoded)
    assert found["accuracy"] == pytest.approx((own[:, 0] > own[:, 1]).float().mean().item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "sigmod"}, "did you mean 'sigmoid'"),
        ({"beta": 0.0}, r"algo\.beta=0\.0: must be > 0"),
        ({"loss": "kto", "reference": False}, r"algo\.reference=False: must be True with algo\.loss=kto"),
        ({"loss": "odds_ratio"}, r"algo\.per_token=False: must be True with algo\.loss=odds_ratio"),
        ({"score": "js", "reference": False}, "no divergence"),
        ({"loss": "exo"}, "> 0 for algo.loss=exo"),
        ({"sync": 0.5, "loss": "kto"}, r"algo\.sync=0\.5"),
        ({"surplus": 1.5}, r"algo\.surplus=1\.5: must be in \[0, 1\]"),
        ({"loss": "aot", "per_token": True}, r"algo\.per_token=True: must be False with algo\.loss=aot"),
        ({"loss": "kto", "sft": 1.0}, r"algo\.sft=1\.0: must be 0\.0 with algo\.loss=kto"),
        ({"loss": "bco", "surplus": 0.5}, r"algo\.surplus=0\.5"),
        ({"loss": "kto", "margin_coef": 1.0}, r"algo\.margin_coef=1\.0"),
        ({"loss": "hinge", "offset": 1.0}, r"algo\.offset=1\.0: must be 0\.0 .*; read by sigmoid$"),
        ({"label_smoothing": 0.1}, r"read by smoothed, robust, exo, aot, aot_unpaired$"),
        ({"alpha": 0.3}, r"algo\.alpha=0\.3: must be 0\.5 without algo\.score=alpha"),
        ({"sync_every": 8}, r"algo\.sync_every=8: must be 512 without algo\.sync above 0"),
        ({"loss": "nca", "score": "js"}, r"algo\.score='js': must be reverse_kl with algo\.loss=nca"),
    ],
)
def test_axes_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        dpo.Config(**settings)


def test_adapters_have_no_moving_reference(tmp_path):
    with pytest.raises(ValueError, match="0 with adapters"):
        train(
            tmp_path / "run",
            quick(dpo.MEMBERS["tr_dpo"]),
            policy=add_lora(small.small_policy(), Lora(rank=4)),
        )


def test_data_of_the_wrong_kind_are_named():
    with pytest.raises(ValueError, match="column 'prompt' is missing"):
        dpo.to_examples([{"text": "a"}], dpo.MEMBERS["kto"])
    with pytest.raises(ValueError, match="column 'margin' is missing"):
        dpo.to_examples([{"prompt": "a", "chosen": "b", "rejected": "c"}], dpo.MEMBERS["odpo"])
