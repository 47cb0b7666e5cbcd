from rl_core import progress


def test_short_work_shows_no_bar(capsys):
    with progress.counting("work", 2) as done:
        done(1)
        done(2)
    assert capsys.readouterr().err == ""


def test_long_work_shows_a_bar(monkeypatch):
    console = progress.Console(record=True, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "console", console)
    with progress.counting("work", 2, after=0.0) as done:
        done(1)
        done(2)
    text = console.export_text()
    assert "work" in text
    assert "2/2" in text
