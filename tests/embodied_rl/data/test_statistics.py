import numpy as np

from embodied_rl.data import episodes, statistics


def test_pieces_give_the_statistics_of_the_whole(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    array = (1e4 + rng.normal(size=(1000, 2, 3)) * 0.1).astype(np.float32)  # mean >> std
    np.save(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    monkeypatch.setattr(episodes.chunks, "__defaults__", (999,))
    assert len(list(episodes.chunks(mapped))) > 10
    mean, std = statistics.mean_std(mapped)
    flat = array.reshape(1000, 6).astype(np.float64)
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-7)
    np.testing.assert_allclose(std, flat.std(0) + 1e-3, rtol=1e-5)


def test_a_constant_feature_keeps_a_positive_std():
    mean, std = statistics.mean_std(np.full((10, 1), 5.0, np.float32))
    np.testing.assert_allclose([*mean, *std], [5.0, 1e-3])
