"""Trained reward models in use: loaded from a folder, called on texts, in ensembles and weighted sums.

All three are callables with TRL's signature for reward functions, `(prompts, completions, **columns) ->
list[float]`, so that any online algorithm takes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from llm_align.data.examples import Example
from llm_align.data.loader import Batches, Config
from llm_align.data.tokenizer import load_tokenizer
from llm_align.data.tokens import encode
from llm_align.feedback import steps
from llm_align.feedback.scorer import Scorer
from llm_align.models import loading
from llm_align.models.causal_lm import load_causal_lm
from rl_core import distributed
from rl_core.config import did_you_mean, require

HEAD = ("normalizer.", "output.")


class TextScorer(Protocol):
    """Anything that gives completions a number."""

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """Scores `[N]` of N completions (texts, or lists of messages) to as many prompts."""
        ...


class _Callable:
    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """TRL's signature; columns are not needed."""
        del columns
        scores: list[float] = self.score(prompts, completions).tolist()  # type: ignore[attr-defined]
        return scores


class RewardModel(_Callable):
    """A scorer with its tokenizer; `process` names the aggregation of a process reward model's steps.

    Steps of a completion are its lines. Prompts that are too long lose their beginning, as in training.
    """

    def __init__(self, scorer: Scorer, tokenizer: Any, data: Config, process: str | None = None) -> None:
        self.scorer = scorer.eval()
        self.tokenizer = tokenizer
        self.data = data
        self.process = process

    @torch.no_grad()
    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """Scores `[N]`; of a process reward model, the aggregated logit of the steps being right."""
        device = self.scorer.output.weight.device
        lines = [text.strip("\n").split("\n") if self.process else [text] for text in completions]
        examples = [
            Example(prompt=prompt, responses=own, labels=[False] * len(own))
            for prompt, own in zip(prompts, lines, strict=True)
        ]
        options: dict[str, Any] = {"max_length": self.data.max_length, "too_long": "keep_end"}
        if self.process:
            encoded = steps.encode(self.tokenizer, examples, **options)
        else:
            options |= {"template": self.data.template, "allow_empty": True}
            encoded = encode(self.tokenizer, examples, **options)
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


class Ensemble(_Callable):
    """Several reward models of one quantity: their mean, minus `caution` times their disagreement.

    The disagreement is the standard deviation over models (arXiv:2310.02743): a policy gains nothing where
    they differ because none has seen such answers. `caution=0` is the plain mean.
    """

    def __init__(self, models: Sequence[TextScorer], caution: float = 0.0) -> None:
        require(len(models) >= 2, "models", len(models), "two or more, to disagree")
        require(caution >= 0, "caution", caution, ">= 0")
        self.models = list(models)
        self.caution = caution

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """Scores `[N]`."""
        mean, spread = self.mean_and_spread(prompts, completions)
        return mean - self.caution * spread

    def mean_and_spread(self, prompts: Sequence[Any], completions: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Mean and (Bessel) standard deviation over the models, `[N]` each."""
        scores = torch.stack([model.score(prompts, completions) for model in self.models])
        return scores.mean(0), scores.std(0)


class Weighted(_Callable):
    """A weighted sum of named scores, such as helpful, honest and harmless, each on a scale of its own.

    `calibrate` on typical answers gives each score mean 0 and standard deviation 1 there, so that the weights
    say what counts and not whose numbers are larger.
    """

    def __init__(self, models: Mapping[str, TextScorer], weights: Mapping[str, float]) -> None:
        for name in {**models, **weights}:
            if name not in models or name not in weights:
                known = models if name in weights else weights
                raise ValueError(
                    f"weights: {name!r} must have both a model and a weight{did_you_mean(name, known)}"
                )
        self.models, self.weights = dict(models), dict(weights)
        self.shift, self.scale = dict.fromkeys(models, 0.0), dict.fromkeys(models, 1.0)

    def calibrate(self, prompts: Sequence[Any], completions: Sequence[Any]) -> None:
        """Take shift and scale of every score from these answers.

        Raises ValueError for a model that gives them all one score.
        """
        for name, model in self.models.items():
            scores = model.score(prompts, completions)
            scale = scores.std().item()
            require(scale > 0, f"spread of {name}", scale, "> 0: it scores all answers alike")
            self.shift[name], self.scale[name] = scores.mean().item(), scale

    def parts(self, prompts: Sequence[Any], completions: Sequence[Any]) -> dict[str, Tensor]:
        """Each score `[N]` on its calibrated scale, before weighting."""
        return {
            name: (model.score(prompts, completions) - self.shift[name]) / self.scale[name]
            for name, model in self.models.items()
        }

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Tensor:
        """The weighted sum, `[N]`."""
        parts = self.parts(prompts, completions)
        return torch.stack([self.weights[name] * part for name, part in parts.items()]).sum(0)
