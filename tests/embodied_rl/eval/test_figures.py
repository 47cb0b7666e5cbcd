import re
import xml.etree.ElementTree as ElementTree

from embodied_rl.eval.figures import curve, histogram


def test_figures_are_well_formed_and_repeatable():
    one = curve("train/q_loss", [1, 2, 3], [0.5, 0.25, 0.125])
    assert one == curve("train/q_loss", [1, 2, 3], [0.5, 0.25, 0.125])
    assert one.caption == "last value 0.125"
    svg = re.sub(r"xlink:href", "href", one.svg)  # the namespace is the page's
    assert ElementTree.fromstring(svg).tag == "svg"
    assert "train/q_loss" in svg, "text stays text"
    assert "currentColor" in svg
    assert "http" not in svg


def test_histogram_of_equal_values():
    assert histogram("return", [2.0, 2.0]).caption == "lowest 2, median 2, highest 2"
