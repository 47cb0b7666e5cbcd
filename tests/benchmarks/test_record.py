"""A result that is recorded again keeps what somebody wrote into it."""

import json

from benchmarks import record


def test_a_note_outlives_the_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "TABLE", tmp_path / "RESULTS.md")

    def write(ours: float) -> None:
        row = record.Row(what="adding", peer_name="peer", ours=ours, peer=2.0, unit="ms", ratio=2.0 / ours)
        record.write("sums", [row])

    write(1.0)
    file = tmp_path / "sums.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": "By hand."}))
    write(4.0)
    stored = json.loads(file.read_text())
    assert (stored["note"], stored["rows"][0]["ours"]) == ("By hand.", 4.0)
    assert "By hand." in (tmp_path / "RESULTS.md").read_text()
    assert "keeps its note" in capsys.readouterr().out
