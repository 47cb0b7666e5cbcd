"""Standard benchmarks: our generation and log-probabilities behind `lm-eval`'s interface (extra `lm-eval`).

    results = evaluate(AlignedLM(model, tokenizer), ["arc_easy", "hellaswag"])

Requests are tokenised as lm-eval's own models do (context and continuation together), so that scores compare
with published ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from llm_align.data.batches import make_responses
from llm_align.data.packing import pack
from llm_align.models.adapters import unwrap
from llm_align.models.generation import generate
from llm_align.models.log_probs import head_log_probs, hidden_states
from llm_align.models.sampling import Sampling

try:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import TemplateLM
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:  # `AlignedLM` says what to install
    TemplateLM = object

MAX_NEW_TOKENS = 256  # lm-eval's default where a task names none


class AlignedLM(TemplateLM):  # type: ignore[misc, unused-ignore]
    """A causal model of ours as lm-eval sees it; contexts too long lose their beginning.

    Raises ValueError without lm-eval.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 16) -> None:
        if TemplateLM is object:
            raise ValueError("tasks: need the extra, `pip install 'embodied-align[lm-eval]'`")
        super().__init__()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._batch_size = batch_size
        self._device = unwrap(model).device
        self._context = unwrap(model).config.get_text_config().max_position_embeddings

    @property
    def eot_token_id(self) -> int:
        """EOS, which texts without a context start from as well."""
        end: int = self.tokenizer.eos_token_id
        return end

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's cache of rendered chats."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the tokenizer's template writes it."""
        options = {"add_generation_prompt": add_generation_prompt, "tokenize": False}
        text: str = self.tokenizer.apply_chat_template(chat_history, **options)
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Token ids, special tokens as the tokenizer has them unless told otherwise."""
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        ids: list[int] = self.tokenizer(string, **special)["input_ids"]
        return ids

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of the context's length, every token scored once."""
        totals = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, max_seq_len=self._context - 1, context_len=1
            )
            pairs = [((text, ""), *make_disjoint_window(window)) for window in windows]
            totals.append(sum(score for score, _ in self._loglikelihood_tokens(pairs)))
        return totals

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation after its context, and whether greedy decoding writes it."""
        answers: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        order = sorted(range(len(requests)), key=lambda row: len(requests[row][1]) + len(requests[row][2]))
        for rows in _parts(order, self._batch_size):
            contexts, targets = zip(*(self._cut(*requests[row][1:]) for row in rows), strict=True)
            responses = make_responses(contexts, targets).to(self._device)
            packed, mask = pack(responses), responses.loss_mask
            hidden = hidden_states(self.model, packed)[packed.states[mask]]
            tokens = responses.response_ids[mask]
            log_prob, _ = head_log_probs(self.model, hidden, tokens)
            greedy = unwrap(self.model).get_output_embeddings()(hidden).argmax(-1) == tokens
            owner = mask.nonzero()[:, 0].cpu()
            for k, row in enumerate(rows):
                own = owner == k
                answers[row] = float(log_prob.cpu()[own].double().sum()), bool(greedy.cpu()[own].all())
        return answers

    def _cut(self, context: list[int], target: list[int]) -> tuple[list[int], list[int]]:
        """Both within the model's context: the context loses its beginning, but not its last token."""
        if len(target) >= self._context:
            raise ValueError(f"a continuation of {len(target)} tokens exceeds the context of {self._context}")
        return context[-(self._context - len(target)) :], target

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Completions, greedy unless a task samples, cut before the first of its `until` texts."""
        answers = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda row: repr(requests[row].args[1]))
        for _, group in groupby(order, key=lambda row: repr(requests[row].args[1])):
            rows = list(group)
            for part in _parts(rows, self._batch_size):
                texts = self._complete([requests[row].args[0] for row in part], requests[rows[0]].args[1])
                for row, text in zip(part, texts, strict=True):
                    answers[row] = text
        return answers

    def _complete(self, contexts: list[str], options: dict[str, Any]) -> list[str]:
        until = options.get("until") or []
        limit = min(int(options.get("max_gen_toks", MAX_NEW_TOKENS)), self._context - 1)
        sampled = options.get("do_sample", False)
        sampling = Sampling(
            max_new_tokens=limit,
            temperature=float(options.get("temperature", 1.0)) if sampled else 0.0,
            stop_ids=(self.eot_token_id,),
        )
        prompts = [
            (self.tok_encode(text) or [self.eot_token_id])[-(self._context - limit) :] for text in contexts
        ]
        generator = torch.Generator(self._device).manual_seed(int(torch.initial_seed() % 2**31))
        drawn = generate(self.model, prompts, sampling, generator=generator).responses.response_lists()
        texts = self.tokenizer.batch_decode(drawn, skip_special_tokens=True)
        for stop in [until] if isinstance(until, str) else until:
            texts = [text.split(stop)[0] for text in texts]
        return texts


def evaluate(model: AlignedLM, tasks: Sequence[str], folder: str = "", limit: int = 0) -> dict[str, float]:
    """`{"<task>/<metric>": value}` of lm-eval's `tasks`; those defined in `folder` are found too.

    `limit` documents of each task, 0 for all. Raises ValueError for a task that lm-eval does not know.
    """
    manager = TaskManager(include_path=str(Path(folder).resolve()) if folder else None)
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown:
        raise ValueError(f"tasks={unknown}: lm-eval has no such task; `lm-eval ls tasks` lists them")
    found = simple_evaluate(model, tasks=list(tasks), task_manager=manager, limit=limit or None)
    assert found is not None
    return {
        f"{task}/{metric.partition(',')[0]}": value
        for task, metrics in found["results"].items()
        for metric, value in metrics.items()
        if isinstance(value, float)
    }


def _parts(rows: list[int], size: int) -> Iterator[list[int]]:
    yield from (rows[start : start + size] for start in range(0, len(rows), size))
