"""From actions to joint targets: end-effector deltas by damped least squares, for all simulations at once.

A batched Jacobian was chosen over a mocap body welded to the hand: the weld is a soft constraint whose pull
depends on the solver and which can drag the arm through its own limits, while joint targets are what a real
Panda accepts, respect its force limits, and leave the physics free of an invisible force. Deltas count from
the measured pose, so the controller itself has no memory; what the servos' lag keeps of one action is below
1 % when the next one comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.desk.furniture import DESK_EDGE
from envs.desk.scene import GRIPPER_OPEN, HOME, Scene

ACTION_DIM = 7
MAX_TRANSLATION = 0.03  # metres per action at 1.0
MAX_ROTATION = 0.20  # radians per action at 1.0
_DAMPING = 0.01**2  # of the least squares, in squared Jacobian units
MAX_JOINT_STEP = 0.2175  # radians per action: the Panda's joints turn at up to 2.175 rad/s
_POSTURE_GAIN = 0.1  # share of the way to `HOME` per action in the null space: the elbow must not wander


@dataclass(kw_only=True, slots=True)
class Hand:
    """Measured state of the arms, `N` simulations."""

    joints: NDArray[np.float64]  # [N, 7]
    pos: NDArray[np.float64]  # [N, 3] grasp centre, world frame
    rot: NDArray[np.float64]  # [N, 3, 3] columns are the hand's axes
    jac: NDArray[np.float64]  # [N, 6, 7] translation over rotation
    velocity: NDArray[np.float64]  # [N, 6] linear m/s over angular rad/s
    width: NDArray[np.float64]  # [N] opening between the fingers


def joint_targets(action: NDArray[np.float64], hand: Hand, scene: Scene) -> NDArray[np.float64]:
    """Actuator targets `[N, 8]`: seven joint angles and the finger position.

    `action` is `[N, 7]`: x, y, z in units of 3 cm, rotation vector about the world axes in units of 0.2 rad,
    and the gripper, open where >= 0 and closed below. Values outside [-1, 1] are clipped, and so is the grasp
    centre to the scene's workspace, whose floor is lower in front of the desk, where the drawer opens.
    """
    action = np.clip(action, -1.0, 1.0)
    goal = np.clip(hand.pos + MAX_TRANSLATION * action[:, :3], scene.workspace_low, scene.workspace_high)
    goal[:, :2] *= np.minimum(1.0, scene.reach / np.sqrt((goal[:, :2] ** 2).sum(axis=1, keepdims=True)))
    over_desk = np.minimum(goal[:, 1], hand.pos[:, 1]) > DESK_EDGE
    goal[:, 2] = np.where(over_desk, np.maximum(goal[:, 2], scene.desk_low), goal[:, 2])
    error = np.concatenate([goal - hand.pos, MAX_ROTATION * action[:, 3:6]], axis=1)
    posture = _POSTURE_GAIN * (np.asarray(HOME) - hand.joints)
    # dq = p + J^T (J J^T + d I)^-1 (e - J p): the damped solution nearest to the posture step p.
    jac_t = hand.jac.transpose(0, 2, 1)
    residual = error[..., None] - hand.jac @ posture[..., None]
    step = jac_t @ np.linalg.solve(hand.jac @ jac_t + _DAMPING * np.eye(6), residual)
    arm = hand.joints + np.clip(posture + step[..., 0], -MAX_JOINT_STEP, MAX_JOINT_STEP)
    fingers = np.where(action[:, 6:] >= 0.0, GRIPPER_OPEN, 0.0)
    return np.concatenate([arm, fingers], axis=1)
