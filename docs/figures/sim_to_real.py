"""Draw the figures of docs/sim_to_real.md from finished runs, which are those of the page's own commands.

python docs/figures/sim_to_real.py runs/transfer runs/transfer/adr-seed0 runs/identify
"""

import json
import re
import sys
from pathlib import Path

from embodied_rl.eval import figures

HERE = Path(__file__).parent
SHOWN = ("transfer-0", "adr-0", "adr-1", "identify-0")


def standalone(svg: str) -> str:
    """A report's picture as a file of its own, on white: elsewhere nobody knows the page's colour."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opened = svg.replace("<svg", f'<svg {spaces} color="#222" style="background:#fff"', 1)
    return re.sub(r"(?<!xlink:)\bhref=", "xlink:href=", opened)


def of_run(directory: Path) -> None:
    """The pictures of a run's report that the page shows."""
    for file in sorted(directory.glob(figures.FILES)):
        for number, picture in enumerate(json.loads(file.read_text())):
            name = f"{directory.name.partition('-')[0]}-{number}"
            if name in SHOWN:
                (HERE / f"{name}.svg").write_text(standalone(picture["svg"]) + "\n")


if __name__ == "__main__":
    for run in sys.argv[1:]:
        of_run(Path(run))
