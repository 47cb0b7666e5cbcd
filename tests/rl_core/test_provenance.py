from rl_core import provenance


def test_names_command_revision_and_versions():
    found = provenance.collect(["scripts/train.py", "data.id=a b"])
    assert found["command"] == "python scripts/train.py 'data.id=a b'"
    assert found["packages"]["torch"]
    assert found["revision"] is None or len(found["revision"]) >= 7
