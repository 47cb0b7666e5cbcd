from __future__ import annotations

import pytest
import torch

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


def test_a_model_without_adapters_has_no_reference(llama):
    with pytest.raises(ValueError, match="reference_copy"), reference(llama):
        pass
    with pytest.raises(ValueError, match="rank=0"):
        Lora(rank=0)
