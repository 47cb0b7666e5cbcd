from __future__ import annotations

import pytest
import torch

from llm_align.feedback import scorer
from llm_align.models import loading
from llm_align.models.adapters import Lora, reference
from llm_align.models.causal_lm import Small, load_causal_lm, small_causal_lm


def test_a_small_model_has_the_size_it_says_and_loads_again(tmp_path):
    model = small_causal_lm(Small())
    assert 3.5e6 < sum(p.numel() for p in model.parameters()) < 4.5e6
    model.save_pretrained(tmp_path)
    again = load_causal_lm(tmp_path)
    ids = torch.arange(6)[None]
    torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)
    assert load_causal_lm(tmp_path, dtype="bfloat16").dtype == torch.bfloat16


def test_wrong_paths_and_words_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"no config.json \(it holds notes.txt\)"):
        load_causal_lm(tmp_path)
    with pytest.raises(ValueError, match="dtype='bf16'"):
        load_causal_lm(tmp_path, dtype="bf16")


@pytest.mark.parametrize("bad", [{"hidden_size": 100, "num_heads": 8}, {"num_heads": 4, "num_kv_heads": 3}])
def test_sizes_that_do_not_fit_are_refused(bad):
    with pytest.raises(ValueError, match="must be a"):
        Small(**bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_alpha": 64.0}, r"model\.lora_alpha=64\.0: must be 32\.0 without model\.lora_rank above 0"),
        ({"lora_targets": ["q_proj"]}, r"model\.lora_targets=\('q_proj',\): must be \(\) without"),
        ({"name": "", "dtype": "bfloat16"}, r"model\.dtype='bfloat16': must be float32 without model\.name"),
    ],
)
def test_settings_of_another_kind_of_model_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loading.Config(**{"name": "some/model"} | options)
    with pytest.raises(ValueError, match=message):  # a reward model's trunk is asked the same
        scorer.Config(**{"name": "some/model"} | options)


def test_settings_that_are_read_are_kept():
    given = {
        "name": "some/model",
        "lora_rank": 4,
        "lora_alpha": 64.0,
        "lora_dropout": 0.1,
        "lora_targets": ["q_proj"],
    }
    assert loading.Config(**given).lora_targets == ("q_proj",)
    assert loading.Config(name="some/model", scratch=Small(num_layers=2)).name  # a recipe's, replaced


def test_a_model_without_adapters_has_no_reference(llama):
    with pytest.raises(ValueError, match="reference_copy"), reference(llama):
        pass
    with pytest.raises(ValueError, match="rank=0"):
        Lora(rank=0)
