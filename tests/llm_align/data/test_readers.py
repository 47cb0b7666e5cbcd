from __future__ import annotations

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_align.data.readers import load_rows, require_columns

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]


def test_jsonl_plain_and_compressed_with_blank_lines(tmp_path):
    text = "\n\n".join(json.dumps(row) for row in ROWS) + "\n"
    (tmp_path / "x.jsonl").write_text(text)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert load_rows(tmp_path / "x.jsonl") == load_rows(tmp_path / "x.jsonl.gz") == ROWS


@pytest.mark.parametrize("bad", ['{"prompt": "a"', "[1]", '"text"', "\udcff"])
def test_a_corrupt_line_is_named_by_its_number(tmp_path, bad):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n' + bad.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(ValueError, match="line 3"):
        load_rows(path)


def test_a_cut_compressed_file_is_reported(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 1000)[:-12])
    with pytest.raises(ValueError, match="damaged"):
        load_rows(path)


def test_empty_file_missing_file_and_unknown_ending(tmp_path):
    (tmp_path / "x.jsonl").write_text("\n")
    (tmp_path / "x.csv").write_text("a,b")
    for name, words in (("x.jsonl", "no rows"), ("y.jsonl", "no such file"), ("x.csv", "must end in")):
        with pytest.raises(ValueError, match=words):
            load_rows(tmp_path / name)


def test_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    assert load_rows(tmp_path / "x.parquet") == ROWS


def test_datasets_folders_with_and_without_splits(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=data, test=data.select([1])).save_to_disk(str(tmp_path / "many"))
    assert load_rows(tmp_path / "one") == load_rows(tmp_path / "many") == ROWS
    assert load_rows(tmp_path / "many", "test") == ROWS[1:]
    with pytest.raises(ValueError, match="split='tset'.*did you mean 'test'"):
        load_rows(tmp_path / "many", "tset")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="save_to_disk"):
        load_rows(tmp_path / "other")


def test_a_hub_id_is_asked_of_the_hub_and_its_refusal_explained(monkeypatch):
    def offline(name, split):
        raise ConnectionError(f"cannot reach the hub for {name}/{split}")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match="cannot reach the hub for someone/data/train"):
        load_rows("someone/data")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list(ROWS))
    assert load_rows("someone/data") == ROWS


def test_missing_columns_name_what_was_found_and_expected():
    with pytest.raises(
        ValueError, match="'chosen' is missing: found chosn, rejected; .*did you mean 'chosn'"
    ):
        require_columns([{"chosn": "", "rejected": ""}], ("chosen", "rejected"))
    with pytest.raises(ValueError, match="expected prompt\\+completion or messages or text"):
        require_columns([{"x": 1}], ("prompt", "completion"), ("messages",), ("text",))
    with pytest.raises(ValueError, match="row 1: column 'rejected' is missing: found chosen"):
        require_columns([{"chosen": "", "rejected": ""}, {"chosen": ""}], ("chosen", "rejected"))
