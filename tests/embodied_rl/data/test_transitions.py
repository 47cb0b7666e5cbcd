import numpy as np
import pytest
import torch

from embodied_rl.data import minari_io, statistics, storage
from embodied_rl.data.transitions import Config, Transitions

ID = "test/data-v0"


def config(**changes) -> Config:
    return Config(id=ID, **changes)


def naive(recorded, cfg, scale=1.0, bias=0.0):
    """Every transition by the definition, one step at a time."""
    rows = []
    for episode in recorded:
        steps = len(episode["rewards"])
        for t in range(steps):
            reward, discount, k = 0.0, 1.0, 0
            while k < cfg.n_step and t + k < steps:
                reward += cfg.gamma**k * (episode["rewards"][t + k] * scale + bias)
                discount *= cfg.gamma * (1.0 - episode["terminations"][t + k])
                k += 1
                if episode["terminations"][t + k - 1]:
                    break
            rows.append(
                (
                    episode["observations"][t],
                    episode["actions"][t],
                    reward,
                    episode["observations"][t + k],
                    discount,
                )
            )
    return [np.array(column, np.float32) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("residency", ["device", "memmap"])
@pytest.mark.parametrize("n_step", [1, 2, 3, 10])
def test_every_transition_of_every_episode(n_step, residency, write, tmp_path):
    recorded = write()
    cfg = config(n_step=n_step, residency=residency, gamma=0.9)
    data = Transitions(minari_io.load(ID, tmp_path), cfg)
    obs, action, reward, next_obs, discount = naive(recorded, cfg)
    batch = data.gather(torch.arange(len(data)))
    np.testing.assert_array_equal(batch.obs, obs)
    np.testing.assert_array_equal(batch.next_obs, next_obs)
    np.testing.assert_allclose(batch.action, action / 2, atol=1e-6)  # the action space is [-2, 2]
    np.testing.assert_allclose(batch.reward, reward, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.discount, discount, rtol=1e-6)


def test_a_termination_in_mid_episode_stops_the_sum(write, tmp_path):
    import h5py

    recorded = write(lengths=(6,))
    with h5py.File(tmp_path / ID / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/terminations"][2] = True
    recorded[0]["terminations"][2] = True
    cfg = config(n_step=3, gamma=0.5)
    data = Transitions(minari_io.load(ID, tmp_path), cfg)
    batch = data.gather(torch.arange(6))
    expected = naive(recorded, cfg)
    np.testing.assert_allclose(batch.reward, expected[2], rtol=1e-5)
    np.testing.assert_array_equal(batch.next_obs, expected[3])
    np.testing.assert_allclose(batch.discount, expected[4])


def test_truncation_bootstraps_and_termination_does_not(write, tmp_path):
    write(lengths=(2, 2), terminated=(0,))
    batch = Transitions(minari_io.load(ID, tmp_path), config(gamma=0.9)).gather(torch.arange(4))
    np.testing.assert_allclose(batch.discount, [0.9, 0.0, 0.9, 0.9])


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_streamed_equals_resident(normalize_obs, write, tmp_path):
    import gymnasium as gym

    part = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    space = gym.spaces.Dict({"observation": part, "achieved_goal": part, "desired_goal": part})
    write(observation_space=space)
    episodes = minari_io.load(ID, tmp_path)
    batches = []
    for residency in ("device", "memmap"):
        data = Transitions(episodes, config(residency=residency, normalize_obs=normalize_obs, n_step=2))
        batches.append(data.sample(torch.Generator().manual_seed(3), 64))
        assert data.spec.obs_keys == ("desired_goal", "observation")
    for field in ("obs", "action", "reward", "next_obs", "discount"):
        assert torch.equal(getattr(batches[0], field), getattr(batches[1], field)), field


def test_same_generator_same_batch(write, tmp_path):
    write()
    data = Transitions(minari_io.load(ID, tmp_path), config())
    one, two = (data.sample(torch.Generator().manual_seed(7), 16) for _ in range(2))
    assert torch.equal(one.obs, two.obs)
    assert len(data) == 18
    assert one.obs.dtype == one.discount.dtype == torch.float32


def test_normalised_observations_have_mean_0_and_std_1(write, tmp_path):
    write(lengths=(300, 200))
    data = Transitions(minari_io.load(ID, tmp_path), config(normalize_obs=True))
    obs = data.gather(torch.arange(len(data))).obs
    np.testing.assert_allclose(obs.mean(0), 0.0, atol=0.02)
    np.testing.assert_allclose(obs.std(0), 1.0, atol=0.02)
    raw = torch.from_numpy(minari_io.load(ID, tmp_path).observations["observation"][:1].copy())
    assert torch.equal(data.normalizer(raw)[0], obs[0])


def test_recorded_actions_beyond_the_space_are_clipped(write, tmp_path):
    import gymnasium as gym

    write(action_space=gym.spaces.Box(-0.5, 0.5, (2,), np.float32))
    data = Transitions(minari_io.load(ID, tmp_path), config())
    action = data.gather(torch.arange(len(data))).action
    assert action.abs().max() == np.float32(1.0 - 1e-5)


@pytest.mark.parametrize(
    ("changes", "scale", "bias"),
    [
        ({"reward": "antmaze_shift"}, 1.0, -1.0),
        ({"reward_scale": 2.0, "reward_bias": 0.5}, 2.0, 0.5),
        ({"reward": "antmaze_shift", "reward_scale": 4.0}, 4.0, -4.0),
    ],
)
def test_reward_transforms(changes, scale, bias, write, tmp_path):
    recorded = write()
    cfg = config(n_step=2, **changes)
    data = Transitions(minari_io.load(ID, tmp_path), cfg)
    expected = naive(recorded, cfg, scale, bias)[2]
    np.testing.assert_allclose(data.gather(torch.arange(len(data))).reward, expected, rtol=1e-4, atol=1e-5)


def test_obs_keys_choose_and_images_are_refused(write, tmp_path):
    import gymnasium as gym

    part = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    space = gym.spaces.Dict({"state": part, "camera": gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)})
    write(observation_space=space)
    episodes = minari_io.load(ID, tmp_path)
    assert Transitions(episodes, config(obs_keys=("state",))).spec.obs_dim == 3
    with pytest.raises(ValueError, match=r"camera.*images.*obs_keys=\['state'\]"):
        Transitions(episodes, config())
    with pytest.raises(ValueError, match=r"'sate' is not in .*did you mean 'state'"):
        Transitions(episodes, config(obs_keys=("sate",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.1}, r"data\.gamma=1\.1: must be in \[0, 1\]"),
        ({"n_step": 0}, r"data\.n_step=0: must be at least 1"),
        ({"reward": "return_scal"}, "did you mean 'return_scale'"),
        ({"residency": "disk"}, r"data\.residency='disk'"),
        ({"action_clip": 0.0}, r"data\.action_clip"),
    ],
)
def test_config_errors_name_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize("name", ["reward_scale", "reward_bias"])
def test_reward_numbers_must_be_finite(name):
    with pytest.raises(ValueError, match=rf"data.{name}=nan: must be finite"):
        Config(**{name: float("nan")})


def test_filling_and_statistics_show_how_far_they_are(write, tmp_path, bars):
    filled, counted = bars(storage), bars(statistics)
    write()
    Transitions(minari_io.load(ID, tmp_path), config(normalize_obs=True))
    assert filled == {"filling the device": (18, 18)}, "actions come last"
    assert counted == {"observation statistics": (23, 23)}
