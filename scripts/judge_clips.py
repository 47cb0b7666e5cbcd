"""Compare clips that a training asks about; the training then goes on with run.resume=true.

python scripts/judge_clips.py run=runs/cheetah-person judge=anna
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from embodied_rl.feedback import clips
from embodied_rl.feedback.asking import FOLDER
from rl_core import config
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """Whose answers, to which run's questions."""

    run: str = MISSING  # its directory
    judge: str = MISSING  # an alias: it stands beside every answer


def main(cfg: Config) -> None:
    """Show where the clips are, take the answers."""
    folder = Path(cfg.run) / FOLDER
    console.print(f"look at {folder / clips.PAGE}: which clip is better, 1 or 2, or are they equal?")
    left = clips.answer(folder, cfg.judge)
    console.print(
        f"{left} questions are left; the same command goes on with them"
        if left
        else "all judged; continue with run.resume=true"
    )


if __name__ == "__main__":
    config.main("judge_clips", Config, {}, main)
