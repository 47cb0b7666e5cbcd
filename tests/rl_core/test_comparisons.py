import json
import threading

import pytest

from rl_core.comparisons import Comparison, ComparisonStore

FIRST = Comparison(question="lift the block", items=("a.mp4", "b.mp4", "c.mp4"), rank=(1, 0, 1), judge="mira")
SECOND = Comparison(
    question="Wie geht's?", items=("gut", "schlecht"), rank=(0, 1), judge="rule", reason="höflich"
)


def test_pairs_skip_ties():
    assert list(FIRST.pairs()) == [(1, 0), (1, 2)]


def test_store_appends_and_reads_back(tmp_path):
    store = ComparisonStore(tmp_path / "new" / "comparisons.jsonl")
    assert list(store) == []
    store.append(FIRST)
    store.append(SECOND)
    assert list(ComparisonStore(store.path)) == [FIRST, SECOND]


def test_several_writers_lose_nothing(tmp_path):
    store = ComparisonStore(tmp_path / "comparisons.jsonl")
    writers = [threading.Thread(target=lambda: [store.append(FIRST) for _ in range(10)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(list(store)) == 40


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"question": "x", "it', "line 2, column 19: Unterminated string"),
        ("[]", "line 2: must be an object"),
        ("", "line 2, column 1: Expecting value"),
        (
            json.dumps({"question": "x", "items": ["a", "b"]}),
            r"line 2: fields \['judge', 'rank'\] are missing",
        ),
        (
            json.dumps(FIRST.to_json() | {"rnak": [0]}),
            r"line 2: fields \['rnak'\] are unknown; did you mean 'rank'",
        ),
        (
            json.dumps(FIRST.to_json() | {"rank": [0, 1]}),
            r"line 2: rank=\(0, 1\): must hold one number for each",
        ),
        (json.dumps(FIRST.to_json() | {"items": "ab"}), "line 2: items='ab': must be a list"),
    ],
)
def test_a_corrupt_line_is_named(tmp_path, line, complaint):
    store = ComparisonStore(tmp_path / "comparisons.jsonl")
    store.append(FIRST)
    with store.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=complaint):
        list(store)


def test_bytes_that_are_not_text_are_named(tmp_path):
    path = tmp_path / "comparisons.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"comparisons.jsonl, line 1: .*decode"):
        list(ComparisonStore(path))


def test_a_cut_off_file_is_not_appended_to(tmp_path):
    store = ComparisonStore(tmp_path / "comparisons.jsonl")
    store.append(FIRST)
    store.path.write_bytes(store.path.read_bytes()[:-5])
    before = store.path.read_bytes()
    with pytest.raises(ValueError, match="last line is cut short"):
        store.append(SECOND)
    assert store.path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"items": ("a",), "rank": (0,)}, "items=.*at least two"),
        ({"rank": (0, 1.5, 2)}, "rank=.*integers"),
        ({"rank": (0, -1, 2)}, "rank=.*integers"),
        ({"judge": ""}, "judge='': must name"),
        ({"question": 3}, "question=3: must be a string"),
    ],
)
def test_bad_comparisons_are_named(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Comparison.from_json(FIRST.to_json() | change)
