from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from llm_align.data.batches import make_responses
from llm_align.data.examples import Example
from llm_align.data.loader import make_batch
from llm_align.data.tokenizer import byte_tokenizer
from llm_align.data.tokens import encode
from llm_align.feedback import reward_model as rm
from llm_align.feedback import steps
from llm_align.feedback.scorer import Config, Scorer, encoder_features, load_encoder
from llm_align.models import optim
from llm_align.models.causal_lm import Small, small_causal_lm
from tests.llm_align.offline import small

ENCODER = {"backbone": "encoder", "name": "minilm"}
QUICK = rm.Config(optim=optim.Config(lr=3e-3))


def causal():
    return Scorer(small.small_policy(), "causal")


def encoder():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return Scorer(BertModel(BertConfig(vocab_size=8, **sizes)), "encoder")


def items_of(objective):
    pairs = small.preferences()
    if objective == "listwise":
        ranked = small.preferences(answers=4)
        return [replace(i, example=replace(i.example, columns={"ranks": [0, 1, 2, 3]})) for i in ranked]
    if objective == "pointwise":
        return [
            replace(i, example=replace(i.example, columns={"score": float(i.example.labels[0])}))
            for i in small.ratings()
        ]
    if objective == "process":
        return solutions()
    return small.ratings() if objective == "outcome" else pairs


def solutions(num=32):
    """Steps of two words; a step with word 5 in it is wrong."""
    g = torch.Generator().manual_seed(1)
    found = []
    for _ in range(num):
        words = torch.randint(2, 6, (3, 2), generator=g).tolist()
        example = Example(
            prompt="", responses=[], labels=[5 not in step for step in words], columns={"ends": [1, 3, 5]}
        )
        response = [word for step in words for word in step]
        found.append(replace(small.encoded([2], [response]), example=example))
    return found


def train(folder, cfg, scorer=None, steps=4, data=None, held_out=None, **settings):
    data = data or small.batches(items_of(cfg.objective))
    with small.make_run(folder, steps=steps, checkpoint_every=2, **settings) as run:
        return rm.train(cfg, scorer or causal(), data, held_out, run)


@pytest.mark.parametrize("objective", ["pairwise", "listwise", "outcome", "process"])
def test_every_objective_learns_what_is_better(tmp_path, objective):
    cfg = replace(QUICK, objective=objective)
    held_out = small.batches(items_of(objective))
    agent = train(tmp_path / "run", cfg, steps=60, held_out=held_out)
    assert rm.evaluate(agent, held_out, cfg)["accuracy"] > 0.9


def test_pointwise_learns_the_scores(tmp_path):
    cfg = replace(QUICK, objective="pointwise")
    held_out = small.batches(items_of("pointwise"))
    assert rm.evaluate(train(tmp_path / "run", cfg, steps=60), held_out, cfg)["loss"] < 0.05


@pytest.mark.parametrize("frozen", [False, True])
def test_an_encoder_learns_too(tmp_path, frozen):
    lr = 1e-1 if frozen else 3e-3
    cfg = replace(QUICK, frozen=frozen, optim=optim.Config(lr=lr))
    before = encoder().trunk.state_dict()
    agent = train(tmp_path / "run", cfg, encoder(), steps=40)
    held_out = small.batches(small.preferences())
    assert rm.evaluate(agent, held_out, cfg)["accuracy"] > 0.9
    same = all(torch.equal(value, before[name]) for name, value in agent.scorer.trunk.state_dict().items())
    assert same == frozen


@pytest.mark.parametrize("frozen", [False, True])
def test_two_and_two_steps_are_four_and_a_seed_is_a_run(tmp_path, frozen):
    cfg = replace(QUICK, frozen=frozen)
    whole, again = (small.weights(train(tmp_path / name, cfg)) for name in ("whole", "again"))
    assert torch.equal(whole, again)
    with pytest.raises(small.PowerCutError):
        train(tmp_path / "cut", cfg, data=small.cut_at(small.batches(small.preferences()), call=4))
    assert torch.equal(whole, small.weights(train(tmp_path / "cut", cfg, resume=True)))


def test_losses_by_hand():
    pairs = make_batch(small.preferences(2), [0, 1])  # with margins of 0.5
    score = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    want = [math.log1p(math.exp(-gap)) for gap in (0.0, -1.5)]
    torch.testing.assert_close(rm.pairwise(score, pairs), torch.tensor(want))
    ranked = make_batch(items_of("listwise"), [0])
    want = sum(math.log(n) for n in (4, 3, 2))
    torch.testing.assert_close(rm.listwise(torch.zeros(1, 4), ranked), torch.tensor([want]))


def test_the_regularisers_are_added():
    batch = make_batch(small.preferences(4), range(4))
    plain = rm.update(rm.Agent(causal(), QUICK), batch, None, QUICK)["loss"]
    cfg = replace(QUICK, lm=0.1)
    with_lm = rm.update(rm.Agent(causal(), cfg), batch, None, cfg)["loss"]
    assert with_lm - plain == pytest.approx(0.1 * math.log(8), rel=0.1)  # an untrained model is near uniform
    scorer = causal()
    torch.nn.init.ones_(scorer.output.bias)  # every score is 1: (1 + 1)^2
    cfg = replace(QUICK, centering=0.25)
    agent = rm.Agent(scorer, cfg)
    assert rm.update(agent, batch, None, cfg)["loss"] - plain == pytest.approx(1.0, rel=1e-5)
    scorer = causal()
    scorer.output.weight.data[0, 0] = 1e-3  # too small to move a score, not its own square times 10^6
    cfg = replace(QUICK, l2=1e6)
    agent = rm.Agent(scorer, cfg)
    assert rm.update(agent, batch, None, cfg)["loss"] - plain == pytest.approx(1.0, abs=0.02)


def test_an_encoder_of_another_make_is_read_whole(tmp_path):
    sizes = {"dim": 8, "n_heads": 1, "n_layers": 2, "hidden_dim": 8}
    DistilBertModel(DistilBertConfig(vocab_size=258, **sizes)).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.cls_token = tokenizer.sep_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    trunk, _ = load_encoder(str(tmp_path))
    assert torch.isfinite(Scorer(trunk, "encoder")(make_responses([[3]], [[4, 5]]))).all()
    with pytest.raises(ValueError, match=r"model.layers=1: must be 0: distilbert is read whole"):
        load_encoder(str(tmp_path), 1)


def test_an_encoder_reads_the_response_only_where_it_averages():
    scorer = encoder()
    batch = make_batch([small.encoded([2, 3], [[4, 5]]), small.encoded([2], [[3]])], [0, 1])
    features = encoder_features(scorer.trunk.eval(), batch.responses)
    alone = scorer.trunk(
        input_ids=torch.tensor([[2, 3, 4, 5, 0]]), token_type_ids=torch.tensor([[0, 0, 1, 1, 1]])
    ).last_hidden_state[0, 2:]
    torch.testing.assert_close(features[0], alone.mean(0), atol=1e-5, rtol=0)


def test_step_scores_do_not_see_what_follows():
    scorer = causal()
    torch.nn.init.normal_(scorer.output.weight)
    items = solutions(2)
    other = replace(items[0], responses=[[*items[0].responses[0][:4], 5, 5, 0]])
    first, second = (steps.step_scores(scorer, make_batch([item], [0]))[0] for item in (items[0], other))
    torch.testing.assert_close(first[:, :2], second[:, :2])


def test_aggregations_by_hand():
    score = torch.tensor([[1.0, -2.0, 4.0], [3.0, 1.0, 99.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    found = {name: f(score, mask).tolist() for name, f in steps.AGGREGATIONS.items()}
    assert found == {"last": [4.0, 1.0], "min": [-2.0, 1.0], "mean": [1.0, 2.0]}


def test_steps_end_where_their_text_ends():
    rows = [{"prompt": "1+1?", "completions": ["one", "two"], "labels": [1, 0]}]
    (item,) = steps.encode(byte_tokenizer(), steps.labelled(rows), max_length=50)
    text = byte_tokenizer().decode(item.responses[0], skip_special_tokens=True)
    ends = item.example.columns["ends"]
    assert [text[: end + 1] for end in ends] == ["one\n", "one\ntwo\n"]
    assert item.responses[0][-1] == byte_tokenizer().eos_token_id
    with pytest.raises(ValueError, match="row 0: 13 tokens exceed"):
        steps.encode(byte_tokenizer(), steps.labelled(rows), max_length=10)


def test_long_prompts_of_steps_are_cut_or_left_out():
    rows = [{"prompt": "p" * n, "completions": ["ab"], "labels": [True]} for n in (2, 9)]
    examples, sizes = steps.labelled(rows), {"max_length": 6}
    cut = steps.encode(byte_tokenizer(), examples, **sizes, too_long="keep_end")
    assert [len(item.prompt) for item in cut] == [2, 2]
    with pytest.warns(UserWarning, match="row 1 exceeds"):
        assert len(steps.encode(byte_tokenizer(), examples, **sizes, too_long="drop")) == 1


def test_steps_of_a_chat_follow_its_rendered_prompt():
    rows = [{"prompt": [{"role": "user", "content": "p"}], "completions": ["a", "b"], "labels": [1, 0]}]
    (item,) = steps.encode(byte_tokenizer(), steps.labelled(rows), max_length=50, template="plain")
    assert (
        byte_tokenizer().decode(item.prompt + item.responses[0]) == "\n\nHuman: p\n\nAssistant:a\nb\n<|eos|>"
    )
    assert item.example.columns["ends"] == [1, 3]
    with pytest.raises(ValueError, match="row 0: the tokenizer has no chat template"):
        steps.encode(byte_tokenizer(), steps.labelled(rows), max_length=50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: steps.labelled([{"prompt": "", "completions": ["a"], "labels": []}]),
            "row 0: 1 steps with 0",
        ),
        (lambda: rm.EXAMPLES["listwise"]([{"prompt": "", "completions": ["a"]}]), "row 0: 1 completions"),
        (lambda: rm.EXAMPLES["pointwise"]([{"prompt": "", "completion": ""}]), "column 'score' is missing"),
        (lambda: rm.Config(objective="pairs"), "did you mean 'pairwise'"),
        (lambda: rm.Config(lm=1.0, frozen=True), r"algo\.lm=1\.0: must be 0 with a frozen trunk"),
        (
            lambda: Config(layers=2),
            r"model\.layers=2: must be 0 with model\.backbone=causal; read by encoder",
        ),
        (
            lambda: Config(**ENCODER, scratch=Small(num_layers=2)),
            r"model\.scratch=Small\(.*no encoder from scratch",
        ),
        (
            lambda: Config(**ENCODER, lora_rank=2),
            r"model\.lora_rank=2: must be 0 with model\.backbone=encoder",
        ),
        (lambda: Config(**ENCODER, lora_alpha=2.0), r"model\.lora_alpha=2\.0"),
        (lambda: rm.Agent(encoder(), rm.Config(objective="process")), "need a causal backbone"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


CHANGES = {"centering": 0.5, "lm": 0.5, "l2": 0.5, "frozen": True, "aggregation": "min"}


@pytest.mark.parametrize("objective", rm.READS)
@pytest.mark.parametrize("field", CHANGES)
def test_what_is_set_is_read_or_refused(field, objective):
    assert {item.name for item in fields(rm.Config)} == CHANGES.keys() | {"objective", "optim"}
    if field not in rm.READS[objective]:
        with pytest.raises(ValueError, match=rf"algo\.{field}=.*algo\.objective={objective}; read by "):
            rm.Config(objective=objective, **{field: CHANGES[field]})
        return
    base, found = replace(QUICK, objective=objective), []
    for cfg in (base, replace(base, **{field: CHANGES[field]})):
        scorer = causal()
        torch.nn.init.normal_(scorer.output.weight, generator=torch.Generator().manual_seed(0))
        agent, batch = rm.Agent(scorer, cfg), make_batch(items_of(objective), range(32))
        seen = [torch.zeros(1)]
        if objective == "process":  # its aggregation is of the evaluation: scores on both sides of 0
            scorer.output.bias.data -= steps.step_scores(scorer, batch)[0].mean()
            seen = [value.view(1) for value in steps.evaluate(scorer, batch, cfg.aggregation).values()]
        rm.update(agent, batch, None, cfg)
        found.append(torch.cat([small.weights(agent), *seen]))
    assert not torch.equal(*found)


def test_rankings_are_sorted_by_rank():
    (example,) = rm.EXAMPLES["listwise"](
        [{"prompt": "p", "completions": ["b", "a", "c"], "ranks": [2, 1, 2]}]
    )
    assert example.responses == ["a", "b", "c"]
    assert example.columns == {"ranks": [1, 2, 2]}


def test_listwise_takes_rankings_of_different_lengths_from_text():
    tokenizer = byte_tokenizer()
    rows = [{"prompt": "p", "completions": list("abcd")}, {"prompt": "q", "completions": list("ab")}]
    encoded = encode(tokenizer, rm.EXAMPLES["listwise"](rows), max_length=20)
    scorer = Scorer(
        small_causal_lm(Small(vocab_size=258, hidden_size=16, num_layers=1, num_heads=2)), "causal"
    )
    cfg = replace(QUICK, objective="listwise")
    agent = rm.Agent(scorer, cfg)
    stats = rm.update(agent, make_batch(encoded, [0, 1]), None, cfg)
    want = (sum(math.log(n) for n in (4, 3, 2)) + math.log(2)) / 2
    assert stats["loss"].item() == pytest.approx(want, rel=1e-5)
