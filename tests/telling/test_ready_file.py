from entrypoint.telling.ready_file import ReadyFile


def test_it_is_there_exactly_while_the_node_is_as_it_must_be(tmp_path):
    path = tmp_path / "ready"
    file = ReadyFile(path)
    for now, ready in enumerate([False, True, True, False, True, False]):
        assert file.told(ready=ready, now=now / 100) is None
        assert path.exists() is ready
    assert ReadyFile(None).told(ready=True, now=0.0) is None


def test_what_somebody_else_does_to_it_is_undone_once_a_second(tmp_path):
    path = tmp_path / "ready"
    file = ReadyFile(path)
    file.told(ready=True, now=10.0)
    path.unlink()
    assert file.told(ready=True, now=10.2) == 11.0
    assert not path.exists()
    assert file.told(ready=True, now=11.0) is None
    assert path.exists()


def test_a_file_that_cannot_be_written_is_complained_of_at_every_look_and_not_only_when_it_is_tried(tmp_path):
    """A complaint that comes and goes is news each time, and would be logged once a second."""
    file = ReadyFile(tmp_path / "missing/ready")
    for now in (10.0, 10.5, 11.0):
        assert file.told(ready=True, now=now) in {11.0, 12.0}
        (complaint,) = file.complaints
        assert "cannot write --ready-file" in complaint and "No such file or directory" in complaint
    (tmp_path / "missing").mkdir()
    assert file.told(ready=True, now=12.0) is None
    assert (file.complaints, (tmp_path / "missing/ready").exists()) == ([], True)


def test_a_link_that_leads_nowhere_in_its_place_is_complained_of_for_a_probe_would_not_see_it(tmp_path):
    (tmp_path / "ready").symlink_to("nowhere")
    file = ReadyFile(tmp_path / "ready")
    assert file.told(ready=True, now=10.0) == 11.0
    assert f"cannot write --ready-file={tmp_path}/ready: Too many levels of symbolic links" in file.complaints[0]


def test_a_directory_in_its_place_is_named_and_is_no_reason_to_spin(tmp_path):
    (tmp_path / "ready").mkdir()
    file = ReadyFile(tmp_path / "ready")
    assert file.told(ready=True, now=10.0) is None
    assert file.complaints == [f"--ready-file={tmp_path}/ready is a directory: name a file in it, to the probe too"]
