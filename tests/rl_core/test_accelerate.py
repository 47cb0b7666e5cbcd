from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from rl_core import accelerate


@dataclass(kw_only=True, slots=True)
class Batch:
    obs: Tensor
    reward: Tensor


def test_autocast_computes_products_in_bfloat16_and_keeps_parameters_in_float32():
    weight = torch.nn.Parameter(torch.ones(2, 2))

    def update(x: Tensor) -> dict[str, Tensor]:
        product = x @ weight
        product.float().sum().backward()
        return {"product": product}

    product = accelerate.autocast(update, torch.device("cpu"), torch.bfloat16)(torch.ones(2, 2))["product"]
    assert product.dtype == torch.bfloat16
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_tensor_arguments_are_found_and_replaced_in_the_same_order():
    batch = Batch(obs=torch.tensor([1.0]), reward=torch.tensor([2.0]))
    arguments = ("agent", batch, (torch.tensor([3.0]), {"x": torch.tensor([4.0])}), 7)
    assert [tensor.item() for tensor in accelerate._tensors(arguments)] == [1.0, 2.0, 3.0, 4.0]
    agent, static, (third, named), number = accelerate._replace(
        arguments, iter([torch.tensor([10.0 * i]) for i in range(1, 5)])
    )
    assert (agent, number) == ("agent", 7)
    assert (static.obs.item(), static.reward.item(), third.item(), named["x"].item()) == (10, 20, 30, 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_computes_what_the_eager_update_computes():
    def train(graph: bool) -> list[float]:
        weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
        optimizer = torch.optim.Adam([weight], lr=0.1, capturable=True)

        def update(batch: Batch) -> dict[str, Tensor]:
            loss = ((batch.obs * weight).sum() - batch.reward).square().mean()
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}

        weight.grad = torch.zeros_like(weight)
        step = accelerate.CudaGraph(update) if graph else update
        batches = [
            Batch(obs=torch.full((3,), i, device="cuda"), reward=torch.ones(1, device="cuda"))
            for i in (1.0, 2.0, 3.0) * 3
        ]
        return [step(batch)["loss"].item() for batch in batches]

    assert train(graph=True) == pytest.approx(train(graph=False), abs=1e-5)
