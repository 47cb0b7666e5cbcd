"""Trained reward models in use: loaded from a folder, called on texts, alone or in ensembles.

Both are callables with TRL's signature for reward functions, `(prompts, completions, **columns) ->
list[float]`, so that any online algorithm takes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from llm_align.data.chat import text_of
from llm_align.data.examples import Example
from llm_align.data.loader import Batches, Config
from llm_align.data.tokenizer import load_tokenizer
from llm_align.data.tokens import encode
from llm_align.feedback import steps
from llm_align.feedback.scorer import Scorer
from llm_align.models import loading
from llm_align.models.causal_lm import load_causal_lm
from rl_core import distributed
from rl_core.config import require

HEAD = ("normalizer.", "output.")


class TextScorer(Protocol):
    """Anything that gives completions a number."""

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """Scores `[N]` of N completions (texts, or lists of messages) to as many prompts."""
        ...


class RewardModel:
    """A scorer with its tokenizer; `process` names the aggregation of a process reward model's steps.

    Steps of a completion are its lines; of messages, those of the assistant's. Prompts that are too long lose
    their beginning, as in training.
    """

    def __init__(self, scorer: Scorer, tokenizer: Any, data: Config, process: str | None = None) -> None:
        self.scorer = scorer.eval()
        self.tokenizer = tokenizer
        self.data = data
        self.process = process

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """TRL's signature; columns are not needed."""
        del columns
        scores: list[float] = self.score(prompts, completions).tolist()
        return scores

    @torch.no_grad()
    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """Scores `[N]`; of a process reward model, the aggregated logit of the steps being right."""
        device = self.scorer.output.weight.device
        lines: list[list[Any]] = [
            [*text_of(completion).strip("\n").split("\n")] if self.process else [completion]
            for completion in completions
        ]
        examples = [
            Example(prompt=prompt, responses=own, labels=[False] * len(own))
            for prompt, own in zip(prompts, lines, strict=True)
        ]
        options: dict[str, Any] = {"template": self.data.template, "too_long": "keep_end"}
        options["max_length"] = self.data.max_length
        if self.process:
            encoded = steps.encode(self.tokenizer, examples, **options)
        else:
            encoded = encode(self.tokenizer, examples, allow_empty=True, **options)
        scores = torch.zeros(len(encoded))
        for batch in Batches(encoded, self.data, seed=0, device=device).once():
            if self.process:
                values = steps.AGGREGATIONS[self.process](*steps.step_scores(self.scorer, batch))
            else:
                values = self.scorer(batch.responses)
            scores[batch.rows] = values.cpu()
        return scores

    def save(self, folder: Path) -> None:
        """Write trunk and tokenizer as Hugging Face does, and the output beside them."""
        loading.save(self.scorer.trunk, self.tokenizer, folder)
        state = self.scorer.state_dict()
        head = {
            name: distributed.full(value).contiguous()
            for name, value in state.items()
            if name.startswith(HEAD)
        }
        if distributed.rank() != 0:
            return
        save_file(head, folder / "head.safetensors")
        settings = {
            "backbone": self.scorer.backbone,
            "process": self.process,
            "template": self.data.template,
            "max_length": self.data.max_length,
            "max_tokens": self.data.max_tokens,
            "batch_size": self.data.batch_size,
        }
        (folder / "reward_model.json").write_text(json.dumps(settings, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> RewardModel:
        """Read what `save` wrote.

        Raises ValueError for a folder without a reward model.
        """
        file = folder / "reward_model.json"
        if not file.exists():
            raise ValueError(f"reward model {str(folder)!r}: there is no reward_model.json in that folder")
        settings = json.loads(file.read_text())
        backbone, process = settings.pop("backbone"), settings.pop("process")
        trunk = AutoModel.from_pretrained(folder) if backbone == "encoder" else load_causal_lm(folder)
        scorer = Scorer(trunk, backbone)
        scorer.load_state_dict(load_file(folder / "head.safetensors"), strict=False)
        return cls(scorer.to(device), load_tokenizer(folder), Config(**settings), process)


class Ensemble:
    """Several reward models of one quantity: their mean, minus `caution` times their disagreement.

    The disagreement is the standard deviation over models (arXiv:2310.02743): a policy gains nothing where
    they differ because none has seen such answers. `caution=0` is the plain mean. The disagreement is logged
    as `<name>_spread`, as a metric and for every completion.
    """

    def __init__(self, models: Sequence[TextScorer], caution: float = 0.0, name: str = "ensemble") -> None:
        require(len(models) >= 2, "models", len(models), "two or more, to disagree")
        require(caution >= 0, "caution", caution, ">= 0")
        self.models = list(models)
        self.caution = caution
        self.name = name

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[float]], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """TRL's signature; columns are not needed."""
        del columns
        mean, spread = self.mean_and_spread(prompts, completions)
        if log_metric is not None:
            log_metric(f"{self.name}_spread", spread.mean().item())
        if log_extra is not None:
            log_extra(f"{self.name}_spread", spread.tolist())
        scores: list[float] = (mean - self.caution * spread).tolist()
        return scores

    def mean_and_spread(self, prompts: Sequence[Any], completions: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Mean and (Bessel) standard deviation over the models, `[N]` each."""
        scores = torch.stack([model.score(prompts, completions) for model in self.models])
        return scores.mean(0), scores.std(0)


def load(
    folder: Path, device: torch.device | str = "cpu", *, caution: float = 0.0, name: str = "ensemble"
) -> RewardModel | Ensemble:
    """The reward model in `folder`, or the ensemble of those in its subfolders.

    Raises ValueError for a folder with neither.
    """
    members = sorted(file.parent for file in folder.glob("*/reward_model.json"))
    if (folder / "reward_model.json").exists() or not members:
        return RewardModel.load(folder, device)
    return Ensemble([RewardModel.load(member, device) for member in members], caution, name)
