import gymnasium as gym
import numpy as np
import pytest
import torch

from embodied_rl.data import minari_io, sequences
from embodied_rl.data.sequences import Config, Sequences

ID = "test/data-v0"


@pytest.mark.parametrize("residency", ["device", "memmap"])
def test_windows_of_every_step(residency, write, tmp_path):
    recorded = write()
    data = Sequences(minari_io.load(ID, tmp_path), Config(length=4, residency=residency))
    windows = data.gather(torch.arange(len(data)))
    start = 0
    for index, episode in enumerate(recorded):
        steps = len(episode["rewards"])
        for t in range(steps):
            rows = np.minimum(np.arange(t, t + 4), steps - 1)
            i = start + t
            np.testing.assert_array_equal(
                windows.obs["observation"][i], episode["observations"][rows].astype(np.float32)
            )
            np.testing.assert_allclose(windows.action[i], episode["actions"][rows] / 2, atol=1e-6)
            np.testing.assert_array_equal(windows.mask[i], np.arange(t, t + 4) < steps)
            np.testing.assert_array_equal(windows.timestep[i], rows)
            to_go = [episode["rewards"][row:].sum() for row in rows]
            np.testing.assert_allclose(windows.return_to_go[i], to_go, rtol=1e-5, atol=1e-5)
            assert windows.episode[i] == index
        start += steps


def test_images_stay_uint8(write, tmp_path):
    write(observation_space=gym.spaces.Box(0, 255, (32, 32, 3), np.uint8), jpeg_encoding=False)
    data = Sequences(minari_io.load(ID, tmp_path), Config(length=2))
    images = data.sample(torch.Generator().manual_seed(0), 5).obs["observation"]
    assert images.dtype == torch.uint8
    assert images.shape == (5, 2, 32, 32, 3)


def test_bad_config(write, tmp_path):
    with pytest.raises(ValueError, match="length=0"):
        Config(length=0)
    write()
    with pytest.raises(ValueError, match="did you mean 'observation'"):
        Sequences(minari_io.load(ID, tmp_path), Config(obs_keys=("observaton",)))


def test_filling_shows_how_far_it_is(write, tmp_path, bars):
    seen = bars(sequences)
    write()
    Sequences(minari_io.load(ID, tmp_path), Config())
    assert seen == {"filling the device": (2, 2)}
