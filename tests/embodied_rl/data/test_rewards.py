import numpy as np
import pytest

from embodied_rl.data import minari_io, rewards

ID = "test/data-v0"


def test_n_step_by_hand():
    steps = rewards.n_step(
        np.array([1, 2, 4, 8, 16], np.float32), np.array([0, 0, 1, 0, 0], bool), np.array([3, 2]), 2, 0.5
    )
    np.testing.assert_allclose(steps.reward, [2, 4, 4, 16, 16])
    np.testing.assert_allclose(steps.discount, [0.25, 0, 0, 0.25, 0.5])
    np.testing.assert_array_equal(steps.num_steps, [2, 2, 1, 2, 1])


def test_pieces_make_no_difference(monkeypatch):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 40)
    arguments = (rng.normal(size=lengths.sum()), rng.random(lengths.sum()) < 0.1, lengths, 3, 0.9)
    whole = rewards.n_step(*arguments)
    monkeypatch.setattr(rewards, "_CHUNK_STEPS", 16)
    pieces = rewards.n_step(*arguments)
    np.testing.assert_array_equal(whole.reward, pieces.reward)
    np.testing.assert_array_equal(whole.discount, pieces.discount)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_returns_to_go(gamma, write, tmp_path):
    recorded = write()
    expected = []
    for episode in recorded:
        total, own = 0.0, []
        for reward in episode["rewards"][::-1]:
            total = reward + gamma * total
            own.append(total)
        expected += own[::-1]
    result = rewards.returns_to_go(minari_io.load(ID, tmp_path), gamma)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_return_scale_makes_the_gap_1000(write, tmp_path):
    write()
    episodes = minari_io.load(ID, tmp_path)
    scaled = episodes.returns * rewards.affine("return_scale", episodes).scale
    assert scaled.max() - scaled.min() == pytest.approx(1000.0)


def test_return_scale_needs_different_returns(write, tmp_path):
    write(lengths=(3,))
    with pytest.raises(ValueError, match="return_scale"):
        rewards.affine("return_scale", minari_io.load(ID, tmp_path))
