import subprocess
import sys

import mujoco
import numpy as np
import pytest

from envs.desk.cameras import Quality, render
from envs.desk.opengl import BACKENDS, GLRenderer
from envs.desk.scene import COARSE_GROUPS, shared_model
from envs.desk.vector import DeskVectorEnv


@pytest.fixture(scope="module", params=BACKENDS)
def drawn(request: pytest.FixtureRequest, tmp_path_factory) -> dict[str, np.ndarray]:
    """What a backend draws, in a process of its own: the first one that is loaded excludes the other."""
    path = tmp_path_factory.mktemp(request.param) / "drawn.npz"
    code = (
        "import mujoco, numpy as np; from envs.desk.opengl import GLRenderer as R;"
        "from envs.desk.scene import shared_model, COARSE_GROUPS;"
        "m = shared_model(); d = mujoco.MjData(m); mujoco.mj_resetDataKeyframe(m, d, 0);"
        f"r = R(m, 224, 160, gl={request.param!r}, groups=COARSE_GROUPS);"
        "ids = {c: r.segmentation(d, c) for c in ('static', 'wrist')};"
        f"np.savez({str(path)!r}, **ids, rgb=r.rgb(d, 'static')); r.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if "OpenGL cannot be used here" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return dict(np.load(path))


def rays(camera: str):
    model = shared_model()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    return render(model, data, camera, 224, 160, quality=Quality(groups=COARSE_GROUPS))


@pytest.mark.parametrize("camera", ["static", "wrist"])
def test_rays_and_opengl_see_the_same_geoms(drawn, camera: str):
    ours, theirs = rays(camera).segmentation, drawn[camera]
    geoms, pixels = np.unique(ours, return_counts=True)
    iou = [((ours == g) & (theirs == g)).sum() / ((ours == g) | (theirs == g)).sum() for g in geoms]
    assert np.average(iou, weights=pixels) >= 0.98
    assert len(geoms) > 10


def test_colours_are_those_of_the_same_things(drawn):
    # OpenGL's lights are spots that leave the floor darker; what stands in the light differs little.
    image = rays("static")
    for name in ("desk", "red", "blue", "pink"):
        own = image.segmentation == shared_model().geom(name).id
        difference = image.rgb[own].mean(axis=0) - drawn["rgb"][own].mean(axis=0)
        assert np.abs(difference).max() < 40


def test_a_missing_library_is_named():
    # The library's loader finds nothing, as where none is installed.
    code = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "import ctypes; load = ctypes.CDLL.__init__\n"
        "def none(self, name, *a, **k):\n"
        "    if name and 'EGL' in str(name): raise OSError(name)\n"
        "    load(self, name, *a, **k)\n"
        "ctypes.CDLL.__init__ = none\n"
        "from envs.desk.opengl import GLRenderer; from envs.desk.scene import shared_model\n"
        "GLRenderer(shared_model(), 8, 8, gl='egl')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "RuntimeError: gl='egl': OpenGL cannot be used here" in done.stderr
    assert "libegl1" in done.stderr


def test_bad_backends_are_named():
    with pytest.raises(ValueError, match="did you mean 'egl'"):
        GLRenderer(shared_model(), 8, 8, gl="eg")
    with pytest.raises(ValueError, match="gl='glx'"):
        DeskVectorEnv(1, gl="glx")
