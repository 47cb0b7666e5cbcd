"""The furniture of the desk: a drawer, a cabinet with a sliding door, a button with LED, a switch with bulb.

The measures follow what the gripper needs: its fingers point down, are 12 cm wide when open, and the palm is
4 cm above the grasp centre. So the cabinet is open above, its door slides over one half or the other, and
every handle is gripped between the fingers like a block. Left is -x and up is +y, as the static camera sees
it. Only boxes and a cylinder collide. The lights are markers that stand in their housing when lit and wait
under the floor when not, so that the state of the simulation alone says what a camera sees.
"""

from __future__ import annotations

import mujoco

# Contact filter bits. The robot touches the world, never itself: joint limits keep it apart, and pairs that
# cannot touch cost time in every step. Moving furniture touches robot and blocks, never what it slides in.
ROBOT, WORLD, FURNITURE = 1, 2, 4
SOLID = {"contype": WORLD, "conaffinity": ROBOT | WORLD, "friction": [0.9, 0.005, 0.0001]}
DRAWN = {"contype": 0, "conaffinity": 0}
_MOVING = {"contype": FURNITURE, "conaffinity": ROBOT, "friction": [0.9, 0.005, 0.0001]}

JOINTS = ("drawer", "slider", "button", "switch")  # order of every array of furniture positions
LIGHTS = ("led", "bulb")  # order of every array of lights

DESK_EDGE = -0.25  # y of the desk's edge under which the drawer slides
DRAWER_RANGE = 0.17  # metres that the drawer opens, towards -y
DRAWER_X = 0.46
DRAWER_FLOOR = -0.078  # height of the floor inside
DRAWER_HALF = (0.12, 0.085)  # inside, x and y
DRAWER_Y = -0.15  # of the inside's middle while closed
DRAWER_SPOT = 0.06  # metres either way along x from its middle to where blocks lie
DRAWER_HANDLE = (DRAWER_X, DESK_EDGE - 0.033, -0.030)

CABINET_Y = 0.375
CABINET_FLOOR = 0.04
CABINET_X = (0.37, 0.57)  # middles of the left and the right half, which are also where the door can be
CABINET_HALF = (0.10, 0.085)  # inside of one half, x and y
CABINET_TOP = CABINET_FLOOR + 0.055
CABINET_SPOT = 0.045  # metres either way along x from a half's middle to where blocks lie
SLIDER_RANGE = CABINET_X[1] - CABINET_X[0]  # metres that the door slides: 0 is right, more is left
SLIDER_HANDLE = (CABINET_X[1], CABINET_Y, CABINET_TOP + 0.028)

BUTTON = (0.68, -0.10, 0.032)  # middle of its top
BUTTON_TRAVEL = 0.012
BUTTON_PRESSED = -0.006  # the LED toggles where the button passes this on its way down
SWITCH = (0.68, 0.06, 0.034)  # middle of its knob between off and on
SWITCH_RANGE = 0.03  # either way along y; the bulb is on where the switch is above the middle
LED = (0.71, -0.252, -0.058)
BULB = (0.775, 0.36, 0.105)
LIGHT_OFF = (0.5, 0.0, -2.0)  # where a marker waits that is not to be seen

HANDLE_WIDTH = {"drawer": 0.05, "slider": 0.05, "switch": 0.03}  # between the fingers, metres

_BOX = mujoco.mjtGeom.mjGEOM_BOX
_CYLINDER = mujoco.mjtGeom.mjGEOM_CYLINDER
_WOOD, _DARK, _PALE = [0.80, 0.66, 0.49, 1], [0.33, 0.29, 0.27, 1], [0.88, 0.86, 0.80, 1]
_DRAWER, _DOOR, _METAL = [0.55, 0.42, 0.30, 1], [0.38, 0.55, 0.58, 1], [0.25, 0.26, 0.28, 1]


def add_furniture(spec: mujoco.MjSpec) -> None:
    """Add the desk and all that is fixed to it or slides on it."""
    _add_desk(spec.worldbody)
    _add_drawer(spec.worldbody)
    _add_cabinet(spec.worldbody)
    _add_button(spec.worldbody)
    _add_switch(spec.worldbody)
    _add_lights(spec.worldbody)


def _add_desk(world: mujoco.MjsBody) -> None:
    """A thin top, a case around the drawer, legs."""
    world.add_geom(
        name="desk", type=_BOX, size=[0.32, 0.395, 0.01], pos=[0.52, 0.145, -0.01], rgba=_WOOD, **SOLID
    )
    for side, x in (("left", 0.26), ("right", 0.71)):
        half = (0.06, 0.13)[side == "right"]
        world.add_geom(
            name=f"case_{side}",
            type=_BOX,
            size=[half, 0.13, 0.04],
            pos=[x, -0.12, -0.06],
            rgba=_WOOD,
            **DRAWN,
        )
    for i, (x, y) in enumerate(((0.24, -0.21), (0.24, 0.50), (0.80, -0.21), (0.80, 0.50))):
        world.add_geom(
            name=f"leg{i}", type=_BOX, size=[0.03, 0.03, 0.35], pos=[x, y, -0.37], rgba=_DARK, **DRAWN
        )


def _slide(
    world: mujoco.MjsBody, name: str, axis: tuple[int, int, int], limits: tuple[float, float], **joint: float
) -> mujoco.MjsBody:
    """A body that slides along an axis, held by dry friction against slow drifting."""
    body = world.add_body(name=name)
    body.add_joint(
        name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, range=limits, limited=True, armature=0.1,
        **{"damping": 4.0, "frictionloss": 1.0, **joint},
    )  # fmt: skip
    return body


def _add_drawer(world: mujoco.MjsBody) -> None:
    """A box that opens towards -y, with a bar in front to grip by its two ends."""
    body = _slide(world, "drawer", (0, -1, 0), (0.0, DRAWER_RANGE))
    (half_x, half_y), x, y = DRAWER_HALF, DRAWER_X, DRAWER_Y
    wall, middle, height = 0.0075, (DRAWER_FLOOR - 0.03) / 2, (-0.03 - DRAWER_FLOOR) / 2
    parts = {
        "floor": ([half_x + 2 * wall, half_y + 2 * wall, 0.004], [x, y, DRAWER_FLOOR - 0.004]),
        "left": ([wall, half_y, height], [x - half_x - wall, y, middle]),
        "right": ([wall, half_y, height], [x + half_x + wall, y, middle]),
        "back": ([half_x + 2 * wall, wall, height], [x, y + half_y + wall, middle]),
        "front": ([half_x + 2 * wall, wall, height + 0.005], [x, y - half_y - wall, middle - 0.003]),
    }
    for name, (size, pos) in parts.items():
        body.add_geom(
            name=f"drawer_{name}", type=_BOX, size=size, pos=pos, rgba=_DRAWER, mass=0.15, **_MOVING
        )
    _add_handle(body, "drawer", [HANDLE_WIDTH["drawer"] / 2, 0.006, 0.011], DRAWER_HANDLE)
    for side in (-1, 1):
        pos = [x + 0.017 * side, DESK_EDGE - 0.015, DRAWER_HANDLE[2] - 0.004]
        body.add_geom(
            name=f"drawer_post{side}",
            type=_BOX,
            size=[0.005, 0.02, 0.005],
            pos=pos,
            rgba=_METAL,
            mass=0.0,
            **DRAWN,
        )


def _add_handle(body: mujoco.MjsBody, name: str, size: list[float], pos: tuple[float, float, float]) -> None:
    body.add_geom(name=f"{name}_handle", type=_BOX, size=size, pos=pos, rgba=_METAL, mass=0.05, **_MOVING)


def _add_cabinet(world: mujoco.MjsBody) -> None:
    """Two compartments side by side, open above, and the door that slides over one of them."""
    middle, (half_x, half_y), wall = sum(CABINET_X) / 2, CABINET_HALF, 0.006
    width, height = 2 * half_x, CABINET_TOP / 2
    parts = {
        "plank": ([width, half_y, CABINET_FLOOR / 2], [middle, CABINET_Y, CABINET_FLOOR / 2]),
        "left": ([wall, half_y, height], [middle - width - wall, CABINET_Y, height]),
        "right": ([wall, half_y, height], [middle + width + wall, CABINET_Y, height]),
        "front": ([width + 2 * wall, wall, height], [middle, CABINET_Y - half_y - wall, height]),
        "back": ([width + 2 * wall, wall, height], [middle, CABINET_Y + half_y + wall, height]),
        "divider": ([wall / 2, half_y, height - 0.01], [middle, CABINET_Y, height - 0.01]),
    }
    for name, (size, pos) in parts.items():
        color = _WOOD if name in ("plank", "divider") else _PALE
        world.add_geom(name=f"cabinet_{name}", type=_BOX, size=size, pos=pos, rgba=color, **SOLID)
    body = _slide(world, "slider", (-1, 0, 0), (0.0, SLIDER_RANGE))
    body.add_geom(
        name="slider_panel", type=_BOX, size=[half_x, half_y + 2 * wall, 0.004],
        pos=[CABINET_X[1], CABINET_Y, CABINET_TOP + 0.0045], rgba=_DOOR, mass=0.3, **_MOVING,
    )  # fmt: skip
    _add_handle(body, "slider", [0.008, HANDLE_WIDTH["slider"] / 2, 0.02], SLIDER_HANDLE)


def _add_button(world: mujoco.MjsBody) -> None:
    x, y, top = BUTTON
    world.add_geom(
        name="button_base", type=_BOX, size=[0.034, 0.034, 0.006], pos=[x, y, 0.006], rgba=_PALE, **SOLID
    )
    spring = {"stiffness": 400.0, "damping": 8.0, "frictionloss": 0.0}
    body = _slide(world, "button", (0, 0, 1), (-BUTTON_TRAVEL, 0.0), **spring)
    body.add_geom(
        name="button", type=_CYLINDER, size=[0.021, 0.011, 0], pos=[x, y, top - 0.011],
        rgba=[0.85, 0.72, 0.16, 1], mass=0.05, **_MOVING,
    )  # fmt: skip


def _add_switch(world: mujoco.MjsBody) -> None:
    x, y, z = SWITCH
    world.add_geom(
        name="switch_base", type=_BOX, size=[0.024, 0.065, 0.005], pos=[x, y, 0.005], rgba=_PALE, **SOLID
    )
    world.add_geom(
        name="switch_slot", type=_BOX, size=[0.004, 0.05, 0.0005], pos=[x, y, 0.0105], rgba=_DARK, **DRAWN
    )
    body = _slide(world, "switch", (0, 1, 0), (-SWITCH_RANGE, SWITCH_RANGE))
    half = HANDLE_WIDTH["switch"] / 2
    body.add_geom(
        name="switch_knob", type=_BOX, size=[0.011, half, 0.018], pos=[x, y, z],
        rgba=[0.80, 0.36, 0.14, 1], mass=0.05, **_MOVING,
    )  # fmt: skip


def _add_lights(world: mujoco.MjsBody) -> None:
    """The dark LED on the desk's front and the bulb on its stand, and the lit ones that cover them."""
    ball = mujoco.mjtGeom.mjGEOM_SPHERE
    (x, y, z), (bx, by, bz) = LED, BULB
    world.add_geom(
        name="led", type=_BOX, size=[0.062, 0.008, 0.022], pos=LED, rgba=[0.07, 0.17, 0.09, 1], **DRAWN
    )
    world.add_geom(
        name="led_frame", type=_BOX, size=[0.069, 0.006, 0.029], pos=[x, y + 0.003, z], rgba=_DARK, **DRAWN
    )
    world.add_geom(name="bulb", type=ball, size=[0.032, 0, 0], pos=BULB, rgba=[0.52, 0.50, 0.44, 1], **DRAWN)
    half = (bz - 0.02) / 2
    world.add_geom(
        name="bulb_stand", type=_CYLINDER, size=[0.014, half, 0], pos=[bx, by, half], rgba=_METAL, **DRAWN
    )
    world.add_geom(
        name="bulb_foot", type=_CYLINDER, size=[0.036, 0.005, 0], pos=[bx, by, 0.005], rgba=_DARK, **DRAWN
    )
    lit = world.add_body(name="led", mocap=True, pos=LIGHT_OFF)
    lit.add_geom(name="led_lit", type=_BOX, size=[0.063, 0.009, 0.023], rgba=[0.20, 1.0, 0.35, 1], **DRAWN)
    lit = world.add_body(name="bulb", mocap=True, pos=LIGHT_OFF)
    lit.add_geom(name="bulb_lit", type=ball, size=[0.034, 0, 0], rgba=[1.0, 0.93, 0.25, 1], **DRAWN)
