"""Draw responses from a language model, to the terminal or to a JSONL of prompts and completions.

python scripts/generate.py model.name=runs/grpo-seed0/model 'prompt="How do I sort a list?"'
"""

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llm_align.data.examples import Example
from llm_align.eval.completions import completions
from llm_align.models import loading
from llm_align.models.sampling import Sampling
from llm_align.online import prompts
from llm_align.online.rollout import stop_ids
from rl_core import config
from rl_core.run import pick_device


@dataclass(kw_only=True, slots=True)
class Config:
    """A model, a prompt or a file of them, and how to sample."""

    model: loading.Config = field(default_factory=loading.Config)
    prompt: str = ""
    # without a prompt; of a split, the held-out ones
    data: prompts.Config = field(default_factory=prompts.Config)
    out: str = ""  # a .jsonl, whose folder is made; empty: the terminal
    num_samples: int = 1
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    device: str = "auto"


def main(cfg: Config) -> None:
    """Load, draw, write."""
    asked = [Example(prompt=cfg.prompt, responses=[])] if cfg.prompt else prompts.read(cfg.data)
    model, tokenizer = prompts.load_model(cfg.model, cfg.data.max_length + cfg.max_new_tokens)
    names = ("max_new_tokens", "temperature", "top_k", "top_p")
    options: dict[str, Any] = {name: getattr(cfg, name) for name in names}
    sampling = Sampling(stop_ids=stop_ids(tokenizer, model), **options)
    device = pick_device(cfg.device)
    drawn = {"generator": torch.Generator(device).manual_seed(cfg.seed), "num_samples": cfg.num_samples}
    rest, kept = prompts.tokenize(cfg.data, tokenizer, asked)
    Path(cfg.out).parent.mkdir(parents=True, exist_ok=True)
    with Path(cfg.out).open("w") if cfg.out else nullcontext(sys.stdout) as stream:
        for row in completions(model.to(device), tokenizer, kept or rest, sampling, **drawn):
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    config.main("generate", Config, {}, main)
