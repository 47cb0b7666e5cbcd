"""The preference and GRPO-family losses equal TRL's, which are called with the numbers a model would give."""

import os
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from llm_align.data.loader import make_batch
from llm_align.data.tokens import Encoded
from llm_align.offline.reference import shared_tokens
from rl_core import kl, policy_losses, preferences, reductions

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # or each import warns that it may change
pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed; `pip install .[peers]` brings it")

from trl.experimental.cpo import CPOTrainer  # noqa: E402
from trl.experimental.gmpo import GMPOTrainer  # noqa: E402
from trl.experimental.orpo import ORPOTrainer  # noqa: E402
from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402
from trl.trainer.kto_trainer import KTOTrainer  # noqa: E402
from trl.trainer.reward_trainer import RewardTrainer  # noqa: E402
from trl.trainer.rloo_trainer import RLOOTrainer  # noqa: E402

B, L = 6, 8  # rows and tokens
BETA, SMOOTHING = 0.3, 0.1


def stub(**settings):
    """A trainer without a model: only its settings, and gathers over one process."""
    trainer = MagicMock(aux_loss_enabled=False, **settings)
    trainer.model.training = False
    trainer.accelerator.gather_for_metrics = trainer.accelerator.gather = lambda x: x
    trainer.accelerator.num_processes, trainer.accelerator.device = 1, "cpu"
    return trainer


@pytest.fixture(name="rows")
def _rows():
    """Log-probabilities of the policy, of an older one and of a reference, `[B, L]`, and a mask of each
    row's tokens.
    """
    rng = torch.Generator().manual_seed(0)
    log_prob = -torch.rand(B, L, generator=rng) * 3
    old, ref = (log_prob + 0.3 * torch.randn(B, L, generator=rng) for _ in "or")
    mask = torch.arange(L) < torch.randint(1, L + 1, (B, 1), generator=rng)
    advantage = torch.randn(B, generator=rng)
    return SimpleNamespace(log_prob=log_prob, old=old, ref=ref, mask=mask, advantage=advantage)


def trl_dpo(rows, *loss_types, divergence="reverse_kl", alpha=0.5, surplus=None):
    trainer = stub(
        ld_alpha=surplus,
        precompute_ref_logps=True,
        use_weighting=False,
        beta=BETA,
        label_smoothing=SMOOTHING,
        f_divergence_type=divergence,
        f_alpha_divergence_coef=alpha,
        loss_types=loss_types,
        loss_weights=[1.0] * len(loss_types),
        args=SimpleNamespace(discopop_tau=0.05),
    )
    nothing = torch.zeros(B, L + 1)
    outputs = SimpleNamespace(
        # one prompt token precedes the completion
        log_probs=torch.where(rows.mask, rows.log_prob, 0.0),
        entropy=nothing,
        mean_logits=nothing,
        is_top1=nothing.bool(),
    )
    ref_chosen, ref_rejected = torch.where(rows.mask, rows.ref, 0.0).sum(-1).chunk(2)
    inputs = {
        "input_ids": nothing.long(),
        "attention_mask": nothing.long(),
        "completion_mask": torch.cat([torch.zeros(B, 1), rows.mask], 1).long(),
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)


DPO_FAMILY = {
    "sigmoid": lambda w, r: preferences.sigmoid_loss(w, r, beta=BETA),
    "hinge": lambda w, r: preferences.hinge_loss(w, r, beta=BETA),
    "robust": lambda w, r: preferences.robust_loss(w, r, beta=BETA, label_smoothing=SMOOTHING),
    "exo_pair": lambda w, r: preferences.exo_loss(w, r, beta=BETA, label_smoothing=SMOOTHING),
    "nca_pair": lambda w, r: preferences.nca_loss(w, r, beta=BETA),
    "bco_pair": lambda w, r: preferences.bco_pair_loss(w, r, beta=BETA),
    "sppo_hard": lambda w, r: preferences.sppo_loss(w, r, beta=BETA),
    "apo_zero": lambda w, r: preferences.apo_zero_loss(w, r, beta=BETA),
    "apo_down": lambda w, r: preferences.apo_down_loss(w, r, beta=BETA),
    "aot_unpaired": lambda w, r: preferences.aot_loss(w, r, beta=BETA, label_smoothing=SMOOTHING),
    "discopop": lambda w, r: preferences.discopop_loss(w, r, beta=BETA, tau=0.05),
}
DIVERGENCES = {
    "reverse_kl": lambda ratio: ratio,
    "forward_kl": preferences.forward_kl_score,
    "js_divergence": preferences.js_score,
    "alpha_divergence": lambda ratio: preferences.alpha_score(ratio, alpha=0.5),
}


@pytest.mark.parametrize("name", DPO_FAMILY)
def test_dpo_family(rows, name):
    chosen, rejected = reductions.masked_sum(rows.log_prob - rows.ref, rows.mask, dim=-1).chunk(2)
    assert torch.allclose(DPO_FAMILY[name](chosen, rejected).mean(), trl_dpo(rows, name), atol=1e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_dpo_under_other_divergences(rows, divergence):
    ratio = reductions.masked_sum(rows.log_prob - rows.ref, rows.mask, dim=-1)
    chosen, rejected = DIVERGENCES[divergence](ratio).chunk(2)
    ours = DPO_FAMILY["sigmoid"](chosen, rejected).mean()
    assert torch.allclose(ours, trl_dpo(rows, "sigmoid", divergence=divergence), atol=1e-5)


def test_ipo_on_log_ratios_per_token(rows):
    chosen, rejected = reductions.masked_mean(rows.log_prob - rows.ref, rows.mask, dim=-1).chunk(2)
    ours = preferences.ipo_loss(chosen, rejected, beta=BETA).mean()
    assert torch.allclose(ours, trl_dpo(rows, "ipo"), atol=1e-5)


def test_sigmoid_of_log_ratios_per_token(rows):
    chosen, rejected = reductions.masked_mean(rows.log_prob - rows.ref, rows.mask, dim=-1).chunk(2)
    ours = preferences.sigmoid_loss(chosen, rejected, beta=BETA).mean()
    assert torch.allclose(ours, trl_dpo(rows, "sigmoid_norm"), atol=1e-5)


def test_dpo_whose_surplus_tokens_count_less(rows):
    """TRL takes the reference's sums as they are, so the reference is left at 0."""
    pairs = [(int(w.sum()), int(r.sum())) for w, r in zip(*rows.mask.chunk(2), strict=True)]
    items = [
        Encoded(
            prompt=[1], responses=[[2] * n for n in pair], loss_masks=[[True] * n for n in pair], example=None
        )
        for pair in pairs
    ]
    shared = shared_tokens(make_batch(items, range(len(items))))
    rows.ref = torch.zeros(B, L)
    weighted = torch.where(rows.mask, rows.log_prob, 0.0)
    for row in range(B):  # ours has each pair's answers side by side
        keep = shared[2 * (row % (B // 2)) + row // (B // 2)]
        weighted[row, : len(keep)] *= torch.where(keep, 1.0, 0.5)
    chosen, rejected = weighted.sum(1).chunk(2)
    ours = preferences.sigmoid_loss(chosen, rejected, beta=BETA).mean()
    assert torch.allclose(ours, trl_dpo(rows, "sigmoid", surplus=0.5), atol=1e-5)
    assert not torch.allclose(ours, trl_dpo(rows, "sigmoid"), atol=1e-5)


def test_dpo_with_the_likelihood_of_the_chosen(rows):
    chosen, rejected = reductions.masked_sum(rows.log_prob - rows.ref, rows.mask, dim=-1).chunk(2)
    nll = -reductions.token_mean(rows.log_prob[: B // 2], rows.mask[: B // 2])
    ours = preferences.sigmoid_loss(chosen, rejected, beta=BETA).mean() + nll
    assert torch.allclose(ours, trl_dpo(rows, "sigmoid", "sft"), atol=1e-5)


def test_aot_of_gaps(rows):
    chosen, rejected = reductions.masked_sum(rows.log_prob, rows.mask, dim=-1).chunk(2)
    ref_chosen, ref_rejected = reductions.masked_sum(rows.ref, rows.mask, dim=-1).chunk(2)
    gaps = chosen - rejected, ref_chosen - ref_rejected
    ours = preferences.aot_loss(*gaps, beta=BETA, label_smoothing=SMOOTHING).mean()
    assert torch.allclose(ours, trl_dpo(rows, "aot"), atol=1e-5)


def test_cpo_simpo_alpha_po_and_orpo(rows):
    chosen, rejected = reductions.masked_mean(rows.log_prob, rows.mask, dim=-1).chunk(2)
    cpo = stub(alpha=0.0, beta=BETA, loss_type="sigmoid", label_smoothing=SMOOTHING)
    ours = preferences.smoothed_loss(chosen, rejected, beta=BETA, label_smoothing=SMOOTHING)
    assert torch.allclose(ours, CPOTrainer.cpo_loss(cpo, chosen, rejected)[0], atol=1e-5)
    simpo = stub(alpha=0.0, beta=BETA, loss_type="simpo", simpo_gamma=0.5, label_smoothing=0.0)
    ours = preferences.sigmoid_loss(chosen, rejected, beta=BETA, offset=0.5)
    assert torch.allclose(ours, CPOTrainer.cpo_loss(simpo, chosen, rejected)[0], atol=1e-5)
    alpha = stub(alpha=0.25, beta=BETA, loss_type="simpo", simpo_gamma=0.5, label_smoothing=0.0)
    scores = (preferences.alpha_score(side, alpha=0.75) for side in (chosen, rejected))
    ours = preferences.sigmoid_loss(*scores, beta=BETA, offset=0.5)
    assert torch.allclose(ours, CPOTrainer.cpo_loss(alpha, chosen, rejected)[0], atol=1e-5)
    orpo = ORPOTrainer.odds_ratio_loss(stub(beta=BETA), chosen, rejected)[0]  # the negative: TRL subtracts it
    assert torch.allclose(BETA * preferences.odds_ratio_loss(chosen, rejected), -orpo, atol=1e-5)


@pytest.mark.parametrize(("loss_type", "mismatch"), [("kto", -0.5), ("kto", 0.7), ("apo_zero_unpaired", 0.7)])
def test_kto_and_unpaired_apo_zero(rows, loss_type, mismatch):
    unpaired = loss_type == "apo_zero_unpaired"
    trainer = stub(
        precompute_ref_logps=True,
        calculate_KL=not unpaired,
        loss_type=loss_type,
        beta=BETA,
        desirable_weight=1.3,
        undesirable_weight=0.7,
    )
    nothing, desirable = torch.zeros(B, L + 1), torch.arange(B) % 3 == 0
    outputs = SimpleNamespace(
        log_probs=torch.where(rows.mask, rows.log_prob, 0.0),
        entropy=nothing,
        mean_logits=nothing,
        is_top1=nothing.bool(),
    )
    mismatched = torch.linspace(-1, 1, B) + mismatch
    trainer._compute_kl_logps.return_value = mismatched
    inputs = {
        "input_ids": nothing.long(),
        "attention_mask": nothing.long(),
        "completion_mask": torch.cat([torch.zeros(B, 1), rows.mask], 1).long(),
        "label": desirable,
        "ref_logps": torch.where(rows.mask, rows.ref, 0.0).sum(-1),
        "ref_KL_logps": torch.zeros(B),
    }
    theirs = KTOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)
    ours = preferences.kto_loss(
        reductions.masked_sum(rows.log_prob - rows.ref, rows.mask, dim=-1),
        desirable,
        beta=BETA,
        reference_point=0.0 if unpaired else preferences.kto_reference_point(mismatched),
        desirable_weight=1.3,
        undesirable_weight=0.7,
    )
    assert torch.allclose(ours.mean(), theirs, atol=1e-5)


def test_reward_model_with_margin_and_centering():
    score, margin = torch.linspace(-1, 2, 2 * B), torch.linspace(0, 1, B)
    trainer = stub()
    trainer.args.center_rewards_coefficient = 0.01
    theirs = RewardTrainer.compute_loss(
        trainer, lambda **_: SimpleNamespace(logits=score[:, None]), {"margin": margin}
    )
    chosen, rejected = score.chunk(2)
    ours = preferences.bradley_terry_loss(chosen, rejected, margin)
    ours = ours + 0.01 * preferences.centering_loss(chosen, rejected)
    assert torch.allclose(ours.mean(), theirs, atol=1e-5)


def trl_grpo(
    rows, loss_type, level="token", low=0.2, high=0.2, beta=0.0, delta=None, trainer_class=GRPOTrainer
):
    trainer = stub(
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=beta,
        loss_type=loss_type,
        epsilon_low=low,
        epsilon_high=high,
        use_vllm=False,
        max_completion_length=L,
        _entropy_bonus_enabled=False,
    )
    trainer.args.delta = delta
    trainer.args.sapo_temperature_pos, trainer.args.sapo_temperature_neg = 1.0, 1.05
    trainer.args.vespo_k_pos, trainer.args.vespo_lambda_pos = 2.0, 3.0
    trainer.args.vespo_k_neg, trainer.args.vespo_lambda_neg = 3.0, 2.0
    trainer.get_gamma_weights = GRPOTrainer.get_gamma_weights
    trainer.args.use_bias_correction_kl = False
    trainer._get_per_token_logps_and_entropies.return_value = (rows.log_prob, torch.zeros(B, L), None)
    inputs = {
        "prompt_ids": torch.zeros(B, 1).long(),
        "prompt_mask": torch.ones(B, 1).long(),
        "completion_ids": torch.zeros(B, L).long(),
        "completion_mask": rows.mask.long(),
        "advantages": rows.advantage,
        "old_per_token_logps": rows.old,
        "ref_per_token_logps": rows.ref,
        "num_items_in_batch": rows.mask.sum(),
    }
    return trainer_class._compute_loss(trainer, None, inputs)


def surrogate(rows, ratio, low=0.2, high=0.2):
    advantage = rows.advantage[:, None].expand(B, L)
    return policy_losses.clipped_surrogate(
        ratio(rows.log_prob, rows.old, rows.mask), advantage, clip_low=low, clip_high=high
    )


def test_grpo_with_its_kl_term(rows):
    loss = surrogate(rows, policy_losses.token_ratio) + 0.04 * kl.k3(rows.log_prob, rows.ref)
    ours = reductions.sequence_mean(loss, rows.mask)
    assert torch.allclose(ours, trl_grpo(rows, "grpo", beta=0.04), atol=1e-5)


def test_dapo_and_dr_grpo(rows):
    loss = surrogate(rows, policy_losses.token_ratio, high=0.28)
    assert torch.allclose(
        reductions.token_mean(loss, rows.mask), trl_grpo(rows, "dapo", high=0.28), atol=1e-5
    )
    loss = surrogate(rows, policy_losses.token_ratio)
    ours = reductions.constant_mean(loss, rows.mask, length=L)
    assert torch.allclose(ours, trl_grpo(rows, "dr_grpo"), atol=1e-5)


def test_dual_clip_is_the_cap_of_the_ratio(rows):
    rows.advantage = -rows.advantage  # mostly negative, where it acts
    advantage = rows.advantage[:, None].expand(B, L)
    loss = policy_losses.dual_clip(surrogate(rows, policy_losses.token_ratio), advantage, bound=1.3)
    ours = reductions.sequence_mean(loss, rows.mask)
    theirs = trl_grpo(rows, "grpo", delta=1.3)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, trl_grpo(rows, "grpo"), atol=1e-5)


def test_gspo(rows):
    loss = surrogate(rows, policy_losses.geometric_ratio, 3e-4, 4e-4)
    theirs = trl_grpo(rows, "grpo", "sequence", 3e-4, 4e-4)
    assert torch.allclose(reductions.sequence_mean(loss, rows.mask), theirs, atol=1e-5)


def test_cispo(rows):
    ratio = policy_losses.token_ratio(rows.log_prob, rows.old, rows.mask)
    loss = policy_losses.cispo(ratio, rows.log_prob, rows.advantage[:, None], ratio_low=0.0, ratio_high=1.1)
    theirs = trl_grpo(rows, "cispo", high=1.1)
    assert torch.allclose(reductions.token_mean(loss, rows.mask), theirs, atol=1e-5)


def test_sapo(rows):
    ratio = policy_losses.token_ratio(rows.log_prob, rows.old, rows.mask)
    loss = policy_losses.sapo(ratio, rows.advantage[:, None])
    assert torch.allclose(reductions.sequence_mean(loss, rows.mask), trl_grpo(rows, "sapo"), atol=1e-5)


def test_vespo(rows):
    loss = policy_losses.vespo(rows.log_prob, rows.old, rows.advantage[:, None], rows.mask)
    assert torch.allclose(reductions.token_mean(loss, rows.mask), trl_grpo(rows, "vespo"), atol=1e-5)


def test_luspo(rows):
    loss = surrogate(rows, policy_losses.geometric_ratio, 3e-4, 4e-4)
    ours = reductions.constant_mean(loss, rows.mask, length=1)
    assert torch.allclose(ours, trl_grpo(rows, "luspo", "sequence", 3e-4, 4e-4), atol=1e-5)


def test_gmpo(rows):
    advantage = rows.advantage[:, None].expand(B, L)
    ratio = policy_losses.clipped_geometric_ratio(
        rows.log_prob, rows.old, advantage, rows.mask, clip_low=0.4, clip_high=0.4
    )
    ours = reductions.sequence_mean(policy_losses.surrogate(ratio, advantage), rows.mask)
    theirs = trl_grpo(rows, "grpo", low=0.4, high=0.4, trainer_class=GMPOTrainer)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_rloo(rows):
    trainer = stub(epsilon_low=0.2, epsilon_high=0.2)
    trainer._get_per_token_logps_and_entropies.return_value = (rows.log_prob, torch.zeros(B, L), None)
    inputs = {
        "prompt_ids": torch.zeros(B, 1).long(),
        "prompt_mask": torch.ones(B, 1).long(),
        "completion_ids": torch.zeros(B, L).long(),
        "completion_mask": rows.mask.long(),
        "advantages": rows.advantage,
        "old_logps": torch.where(rows.mask, rows.old, 0.0).sum(-1),
    }
    theirs = RLOOTrainer._compute_loss(trainer, None, inputs)
    ours = reductions.sequence_mean(surrogate(rows, policy_losses.sequence_ratio), rows.mask)
    assert torch.allclose(ours, theirs, atol=1e-5)
