"""Fit a desk's parameters to recorded motion; write the fit, what to randomise from it, and a report page.

python scripts/identify_system.py data.id=desk/shaken-v0 contacts=false
python scripts/identify_system.py data.id=desk/shaken-v0 'shake={arm_gain: 0.8, joint_noise: 3e-4}'
python scripts/identify_system.py data.id=desk/shaken-v1 belief=runs/identify out=runs/identify-2
"""

from dataclasses import dataclass, field
from pathlib import Path

from embodied_rl.data import minari_io
from embodied_rl.data.recorder import Target
from embodied_rl.sim2real import identified
from embodied_rl.sim2real.belief import Belief
from embodied_rl.sim2real.replay import motion_of
from embodied_rl.sim2real.sysid import identify
from rl_core import config
from rl_core.progress import console


@dataclass(kw_only=True, slots=True)
class Config:
    """What is fitted to what."""

    parameters: tuple[str, ...] = ("link_mass", "arm_frictionloss", "arm_damping", "arm_gain")
    channels: tuple[str, ...] = ("joints",)  # joints | width | blocks | furniture
    contacts: bool = True  # false: the arm moved freely; twice as fast
    seconds: float = 60.0  # of motion, the first ones
    start: dict[str, float] = field(default_factory=dict)  # values other than nominal to begin with
    belief: str = ""  # directory of an earlier round, of other motion: begin there, and combine the two
    out: str = "runs/identify"
    data: Target = field(default_factory=Target)  # recorded motion
    shake: dict[str, float] = field(default_factory=dict)  # record it first, on a desk with these values
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        config.require(self.seconds > 0, "seconds", self.seconds, "greater than 0")
        config.require(self.seed >= 0, "seed", self.seed, "at least 0")


def main(cfg: Config) -> None:
    """Record if asked to, fit, write."""
    earlier = Belief.load(Path(cfg.belief)) if cfg.belief else None
    if cfg.shake:
        identified.record(cfg.data, cfg.shake, cfg.seed)
    motion = motion_of(minari_io.load(cfg.data.id, cfg.data.root or None), cfg.seconds)
    start = (earlier.values() if earlier else {}) | cfg.start
    fit = identify(motion, cfg.parameters, channels=cfg.channels, start=start, contacts=cfg.contacts)
    belief = earlier.update(fit) if earlier else Belief.of(fit)
    console.print(fit.summary())
    page = identified.keep(Path(cfg.out), motion, fit, belief, contacts=cfg.contacts, start=start)
    console.print(f"report: {page}")


if __name__ == "__main__":
    config.main("identify_system", Config, {}, main)
