from entrypoint.telling.ready_file import ReadyFile


def test_a_file_that_cannot_be_written_is_complained_of_at_every_look_and_not_only_when_it_is_tried(tmp_path):
    """A complaint that comes and goes is news each time, and would be logged once a second."""
    file = ReadyFile(tmp_path / "missing/ready")
    (complaint,) = file.set(ready=True)
    assert "No such file or directory" in complaint
    assert file.set(ready=True) == [complaint]
    (tmp_path / "missing").mkdir()
    file._not_before = 0.0
    assert file.set(ready=True) == []
    assert file.set(ready=True) == []


def test_a_link_in_its_place_is_replaced_for_a_probe_would_not_see_it(tmp_path):
    path = tmp_path / "ready"
    path.symlink_to("nowhere")
    file = ReadyFile(path)
    assert file.set(ready=True) == []
    assert path.is_file() and not path.is_symlink()
    path.unlink()
    path.symlink_to("nowhere")
    assert file.held_until() is not None
