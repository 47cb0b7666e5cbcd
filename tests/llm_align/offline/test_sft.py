from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from llm_align.data.loader import make_batch
from llm_align.models import optim
from llm_align.models.log_probs import log_probs
from llm_align.offline import sft
from tests.llm_align.offline import small

ITEMS = [small.encoded([2, 3], [[4] * (1 + n % 4)]) for n in range(16)]
QUICK = sft.Config(optim=optim.Config(lr=1e-2))


def train(folder, steps=4, items=ITEMS, cfg=QUICK, held_out=None, data=None, **settings):
    with small.make_run(folder, steps=steps, checkpoint_every=2, **settings) as run:
        return sft.train(cfg, small.small_policy(), data or small.batches(items), held_out, run)


@pytest.mark.parametrize("loss", ["nll", "dft"])
def test_the_loss_is_the_token_mean_and_does_not_depend_on_the_split_into_batches(loss):
    cfg = replace(QUICK, loss=loss)
    parts = {n: make_batch(ITEMS, rows) for n, rows in enumerate((range(6), range(2), range(2, 6)))}
    found = []
    for batches in ([parts[0]], [parts[1], parts[2]]):
        agent = sft.Agent(small.small_policy(), cfg)
        agent.optimizer = torch.optim.SGD(agent.policy.parameters(), lr=1.0)  # the step is the gradient
        found.append(sft.update(agent, batches, cfg) | {"step": small.weights(agent.policy)})
    log_prob = log_probs(small.small_policy(), parts[0].responses).log_prob.detach()
    weight = log_prob.exp() if loss == "dft" else 1.0
    expected = -(weight * log_prob).sum() / parts[0].responses.loss_mask.sum()
    torch.testing.assert_close(found[0]["loss"], expected)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)


def test_a_uniform_model_loses_log_vocabulary():
    agent = sft.Agent(small.small_policy(), QUICK)
    torch.nn.init.zeros_(agent.policy.get_output_embeddings().weight)
    assert sft.evaluate(agent, small.batches(ITEMS))["loss"] == pytest.approx(math.log(8), rel=1e-5)


def test_it_learns_the_language(tmp_path):
    held_out = small.batches(ITEMS)
    agent = train(tmp_path / "run", steps=60, held_out=held_out)
    # the word is certain; the length is uniform over 1..4, an entropy of log 4 over 3.5 tokens on average
    assert sft.evaluate(agent, held_out)["loss"] == pytest.approx(math.log(4) / 3.5, abs=0.05)


def test_dynamic_fine_tuning_weighs_tokens_by_their_probability(tmp_path):
    """Its gradient is that of -p, and it goes for the likeliest answer where likelihood covers all."""
    cfg, batch = sft.Config(loss="dft", optim=optim.Config(lr=1e-2)), make_batch(ITEMS, range(6))
    stats = sft.update(sft.Agent(small.small_policy(), cfg), [batch], cfg)
    policy = small.small_policy()
    likelihood = log_probs(policy, batch.responses).log_prob.exp()
    mask = batch.responses.loss_mask
    (-likelihood[mask].mean()).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in policy.parameters()])
    torch.testing.assert_close(stats["grad_norm"], norm, rtol=1e-4, atol=1e-6)
    held_out = small.batches(ITEMS)
    dynamic, plain = (train(tmp_path / c.loss, steps=60, cfg=c) for c in (cfg, QUICK))
    first_word = [log_probs(a.policy, batch.responses).log_prob[:, 0] for a in (dynamic, plain)]
    assert (first_word[0] > -0.1).all()
    assert sft.evaluate(dynamic, held_out)["loss"] > sft.evaluate(plain, held_out)["loss"]


def test_the_same_seed_gives_the_same_weights(tmp_path):
    first, second = (small.weights(train(tmp_path / name)) for name in "ab")
    assert torch.equal(first, second)


def test_two_and_two_steps_are_four(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(small.PowerCutError):
        train(tmp_path / "cut", data=small.cut_at(small.batches(ITEMS), call=4))
    resumed = train(tmp_path / "cut", resume=True)
    assert torch.equal(small.weights(whole), small.weights(resumed))


def test_examples_by_their_columns():
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    assert [item.responses for item in sft.to_examples(pairs, sft.Config())] == [["b"]]
    with pytest.raises(ValueError, match="column 'prompt' is missing: found promt, completion"):
        sft.to_examples([{"promt": "a", "completion": "b"}], sft.Config())


def test_a_model_from_scratch_learns_the_prompts_too():
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    whole = sft.to_examples(pairs, sft.Config(learn_prompts=True))
    assert [(item.prompt, item.responses) for item in whole] == [(None, ["ab"])]
    chat = [{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}]
    with pytest.raises(ValueError, match=r"data\.loss_on=all"):
        sft.to_examples(chat, sft.Config(learn_prompts=True))


def test_quality_prompts_learn_from_both_sides():
    cfg = sft.Config(good_prompt="Good:", bad_prompt="Bad:")
    found = sft.to_examples([{"prompt": "a", "chosen": "b", "rejected": "c"}], cfg)
    assert [(item.prompt, item.responses) for item in found] == [("Good:a", ["b"]), ("Bad:a", ["c"])]
    chat = [{"role": "user", "content": "a"}]
    assert sft.with_quality(chat, "Good:")[0] == {"role": "system", "content": "Good:"}
    with pytest.raises(ValueError, match=r"algo\.bad_prompt=''"):
        sft.Config(good_prompt="Good:")


def test_a_rate_that_does_not_fall_has_no_final_one():
    with pytest.raises(
        ValueError, match=r"algo\.optim\.final=0\.1: must be 0 with algo\.optim\.schedule=constant"
    ):
        optim.Config(schedule="constant", final=0.1)
