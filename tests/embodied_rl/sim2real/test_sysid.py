"""From recorded motion to parameters, with honest uncertainty."""

import json

import numpy as np
import pytest

from embodied_rl.data import collect, minari_io
from embodied_rl.data.recorder import Recorder
from embodied_rl.eval import figures, report
from embodied_rl.sim2real.belief import Belief, Fit
from embodied_rl.sim2real.excitation import Excitation
from embodied_rl.sim2real.figures import fit_figures
from embodied_rl.sim2real.randomization import Randomization
from embodied_rl.sim2real.replay import Motion, Replay, motion_of
from embodied_rl.sim2real.sysid import _scan, identify
from envs.desk.parameters import table
from envs.desk.scene import shared_model
from envs.suites import DESK, make_vec

TRUTH = {"arm_gain": 0.8, "link_mass": 1.2}


def recorded(truth: dict[str, float], folder) -> Motion:
    env = make_vec(DESK, 2, threads=1, max_episode_steps=25, terminate_on_success=False)
    env.unwrapped.set_parameters({**truth, "joint_noise": 3e-4})
    with Recorder("desk/shaken-v0", collect.info_of(env), folder) as out:
        collect.record(Excitation(0), env, out, episodes=2, seed=1)
    return motion_of(minari_io.load("desk/shaken-v0", folder))


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> Motion:
    return recorded(TRUTH, tmp_path_factory.mktemp("minari"))


@pytest.fixture(scope="module")
def fit(motion: Motion) -> Fit:
    return identify(motion, ["arm_gain", "link_mass"], contacts=False, num_threads=1)


@pytest.mark.parametrize("delay", [0.0, 0.15])
def test_replay_under_the_truth_is_the_recording(delay: float):
    truth = {**TRUTH, "sensor_delay": delay}
    env = make_vec(DESK, 2, threads=1, max_episode_steps=12, terminate_on_success=False)
    env.unwrapped.set_parameters(truth)
    episodes = list(collect.episodes_of(Excitation(0), env, episodes=2, seed=1))
    motion = Motion(
        observations=np.stack([e["observations"]["observation"] for e in episodes]).astype(np.float64),
        actions=np.stack([e["actions"] for e in episodes]).astype(np.float64),
        running=np.ones((2, 12), bool),
    )
    channels = ("joints", "width", "blocks", "furniture")
    replay = Replay(motion, channels, most=2, num_threads=1)
    other = {"arm_gain": 1.0, "link_mass": 1.0, "sensor_delay": 0.05}
    found = replay.predict({name: np.array([value, other[name]]) for name, value in truth.items()})
    for name, measured in replay.measured().items():
        np.testing.assert_allclose(found[name][0], measured, atol=6e-5)  # float32, and blocks that settle
    assert np.abs(found["joints"][1] - replay.measured()["joints"]).max() > 1e-3  # another desk


def test_finds_gain_and_mass_and_knows_how_well(fit: Fit):
    assert fit.names == ("arm_gain", "link_mass")
    for name, value, low, high in zip(fit.names, fit.value, fit.low, fit.high, strict=True):
        assert value == pytest.approx(TRUTH[name], rel=0.03)
        assert low < value < high
        assert (high - low) / value < 0.2
    assert fit.noise["joints"] < 1e-3 < fit.before["joints"]
    json.dumps(fit.to_json())
    assert "arm_gain = 0." in fit.summary()


def test_finds_how_late_the_sensors_are(tmp_path):
    late = recorded({**TRUTH, "sensor_delay": 0.17}, tmp_path)
    known = {"start": {"link_mass": 1.2}, "contacts": False, "num_threads": 1}
    fit = identify(late, ["sensor_delay", "arm_gain"], **known)
    assert fit.value == pytest.approx([0.17, 0.8], rel=0.01)
    assert fit.noise["joints"] < 1e-3


def test_with_enough_episodes_their_fits_are_averaged(motion: Motion):
    known = {"start": {"link_mass": 1.2}, "contacts": False, "num_threads": 1}
    both = identify(motion, ["arm_gain"], **known)
    single = [identify(episode, ["arm_gain"], **known).value[0] for episode in motion.episodes()]
    assert single[0] != single[1]
    assert both.value[0] == pytest.approx(np.mean(single), rel=1e-4)
    apart = abs(single[0] - single[1]) / 2  # the standard error of the mean of two
    assert both.covariance[0, 0] ** 0.5 == pytest.approx(apart, rel=0.5)


def test_what_the_motion_does_not_excite_is_no_number(motion: Motion):
    found = identify(motion, ["mass_red", "damping_drawer"], contacts=False, num_threads=1)
    assert found.names == ()
    assert set(found.unidentifiable) == {"mass_red", "damping_drawer"}
    assert min(found.unidentifiable.values()) > 0.99
    assert "mass_red: not identifiable" in found.summary()


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["arm_gian"], {}, "did you mean 'arm_gain'"),
        ([], {}, "at least one name"),
        (["arm_gain"], {"channels": ["joint"]}, "did you mean 'joints'"),
        (["arm_gain"], {"start": {"link_mas": 1.0}}, "did you mean 'link_mass'"),
        (
            ["arm_gain", "link_mass", "arm_damping"],
            {},
            "must be over 6 stretches of a second for 3",
        ),
    ],
)
def test_bad_requests(motion: Motion, names, options, words):
    with pytest.raises(ValueError, match=words):
        identify(motion, names, num_threads=1, **options)


def test_other_datasets_are_refused(tmp_path):
    env = make_vec("Hopper-v5", 1)
    with Recorder("hopper/random-v0", collect.info_of(env), tmp_path) as out:
        out.add_episode(
            np.zeros((3, 11)), np.zeros((2, 3)), rewards=np.zeros(2), terminations=np.zeros(2, bool),
            truncations=np.array([False, True]),
        )  # fmt: skip
    with pytest.raises(ValueError, match="those of the desk"):
        motion_of(minari_io.load("hopper/random-v0", tmp_path))


def belief(**values: tuple[float, float]) -> Belief:
    rows = list(values.values())
    return Belief(
        names=tuple(values), mean=np.array([m for m, _ in rows]), covariance=np.diag([s * s for _, s in rows])
    )


def as_fit(b: Belief) -> Fit:
    return Fit(names=b.names, value=b.mean, covariance=b.covariance, low=b.mean, high=b.mean,
               unidentifiable={}, noise={}, before={}, seconds=60.0)  # fmt: skip


def test_rounds_are_combined_by_their_precision():
    both = belief(arm_gain=(1.0, 0.2)).update(as_fit(belief(arm_gain=(0.7, 0.1), link_mass=(1.2, 0.1))))
    assert both.names == ("arm_gain", "link_mass")
    assert both.mean == pytest.approx([(1.0 * 25 + 0.7 * 100) / 125, 1.2])
    assert np.sqrt(np.diag(both.covariance)) == pytest.approx([125**-0.5, 0.1])


def test_a_belief_is_kept_in_a_file(tmp_path):
    first = belief(arm_gain=(2.5, 0.2), link_mass=(1.1, 0.1))
    first.save(tmp_path / "round")
    again = Belief.load(tmp_path / "round")
    assert again.names == first.names
    assert np.array_equal(again.mean, first.mean)
    assert np.array_equal(again.covariance, first.covariance)
    assert again.values() == {"arm_gain": 2.0, "link_mass": 1.1}  # within the bounds
    with pytest.raises(ValueError, match="directory of an identification, with belief.json"):
        Belief.load(tmp_path)


def test_a_motion_that_knows_nothing_is_scanned_between_the_bounds():
    moves = np.array(_scan(np.array([[100.0, 0.0], [100.0, 0.0]])))  # of the second parameter
    assert np.abs(moves[:4]).max(axis=0) == pytest.approx([0.0, 8.0])
    assert np.abs(moves[4:]).max(axis=0) == pytest.approx([8.0 / 20000**0.5, 0.0])


def test_a_belief_becomes_the_randomisation():
    covariance = np.array([[0.04, 0.012], [0.012, 0.01]])
    drawn_from = Belief(names=("arm_gain", "link_mass"), mean=np.array([1.2, 1.1]), covariance=covariance)
    sampler = Randomization.of(drawn_from.randomization(), table(shared_model()))
    rng = np.random.default_rng(0)
    rows = np.array([list(sampler.episode(rng).values.values()) for _ in range(4000)])
    np.testing.assert_allclose(rows.mean(axis=0), [1.2, 1.1], atol=0.02)
    np.testing.assert_allclose(np.cov(rows.T), covariance, atol=4e-3)
    certain = belief(arm_gain=(1.2, 1e-9)).randomization(floor=0.02)
    assert certain.parameters["arm_gain"]["normal"] == pytest.approx([1.2, 0.03])  # 2 % of 0.5 to 2
    with pytest.raises(ValueError, match="floor=1.5"):
        drawn_from.randomization(floor=1.5)


def test_the_pictures_reach_the_report(motion: Motion, fit: Fit, tmp_path):
    figures.write(tmp_path, fit_figures(motion, fit, contacts=False))
    page = report.write_report(tmp_path).read_text()
    assert page.count("<svg") >= 2
    assert "Identified parameters" in page
