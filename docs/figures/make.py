"""Draw the pictures of the documentation: `python docs/figures/make.py`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from embodied_rl.eval.video import captioned
from envs.desk.cameras import render
from envs.desk.env import DeskEnv
from envs.desk.experts import Expert
from envs.desk.materials import MATERIALS
from envs.desk.pictures import RENDER_QUALITY
from envs.desk.scene import DESK, SCENES
from envs.desk.tasks import TASKS, families, tasks_of
from envs.desk.vector import DeskVectorEnv
from envs.frames import DESK_FILM, View, with_camera

HERE = Path(__file__).parent
MOMENTS = (0, 9, 26)  # actions before each picture: none, grasped, set down
SIZE = (300, 220)  # of one picture in a montage
CLOSE = View(lookat=(0.5, 0.0, 0.02), distance=0.55, azimuth=90.0, elevation=-38.0)
LATER = 4  # actions after success: the hand is out of the way


def desk() -> None:
    """Three moments of the scripted expert placing a block, side by side."""
    env = DeskEnv("place_block", render_mode="rgb_array")
    expert = Expert("place_block")
    obs, _ = env.reset(seed=3)
    frames = [env.render()]
    for step in range(1, MOMENTS[-1] + 1):
        batched = {key: value[None] for key, value in obs.items()}
        obs, *_ = env.step(expert.act(batched, deterministic=True)[0])
        if step in MOMENTS:
            frames.append(env.render())
    iio.imwrite(HERE / "desk.png", np.concatenate(frames, axis=1))


def picture(env: DeskVectorEnv, view: View = DESK_FILM) -> np.ndarray:
    """The first desk, as videos show it unless told otherwise."""
    model = with_camera(env.episodes.model(0), view)
    return render(model, env.episodes.sim.batch.get_data(0), 0, *SIZE, quality=RENDER_QUALITY).rgb


def before_and_after(task: str, scene: str, seed: int) -> np.ndarray:
    """A task before and after its expert, with what was said below."""
    env, expert = DeskVectorEnv(1, task, scene=scene, terminate_on_success=False), Expert(task, scene=scene)
    obs, infos = env.reset(seed=seed)
    said, first, left = infos["instruction"][0], picture(env), LATER
    while left:
        obs, *_, infos = env.step(expert.act(obs, deterministic=True))
        left -= bool(infos["is_success"][0]) or left < LATER
    return captioned(np.concatenate([first, picture(env)], axis=1), said, bar=26)


def montage(name: str, tasks: Sequence[tuple[str, str]], columns: int = 2) -> None:
    """Tasks (name and scene) before and after, in rows."""
    cells = [before_and_after(task, scene, seed=20 + i) for i, (task, scene) in enumerate(tasks)]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    iio.imwrite(HERE / name, np.concatenate(rows))


def scenes() -> None:
    """What lies on the desk in each scene, side by side."""
    pictures = []
    for scene in SCENES:
        env = DeskVectorEnv(1, "lift_block", scene=scene)
        env.reset(seed=8)
        pictures.append(captioned(picture(env, CLOSE), scene, bar=26))
    iio.imwrite(HERE / "scenes.jpg", np.concatenate(pictures, axis=1))


def textures() -> None:
    """Each pair of materials of the desk and the floor, the plain colours first."""
    env = DeskVectorEnv(1, "lift_block", num_threads=1)
    env.reset(seed=8)
    data = env.episodes.sim.batch.get_data(0)
    pictures = [captioned(picture(env), "textures=false", bar=26)]
    quality = replace(RENDER_QUALITY, textures=True)
    for number, names in enumerate(zip(*MATERIALS.values(), strict=True)):
        env.set_parameters({f"texture_{geom}": number for geom in MATERIALS})
        model = with_camera(env.episodes.model(0), DESK_FILM)
        shown = render(model, data, 0, *SIZE, quality=quality).rgb
        pictures.append(captioned(shown, " and ".join(names), bar=26))
    iio.imwrite(HERE / "textures.jpg", np.concatenate(pictures, axis=1))


if __name__ == "__main__":
    desk()
    scenes()
    textures()
    montage(
        "families.jpg", [(t.name, "calvin") for t, _ in families(tuple(TASKS[n] for n in tasks_of(DESK)))]
    )
