"""Which file is the master, and what is made of it."""

import errno
import hashlib
import json
import os
import shutil

import click
import pytest

from entrypoint.cni.document import Master, Multus, NoFile, Unread, Unusable, examine
from entrypoint.disk.looks import MAX_BYTES
from entrypoint.node import master
from entrypoint.node.ledger import Book, Put
from entrypoint.node.master import GRACE, Candidate, Seen, choose
from entrypoint.node.part import Before, LookFailedError
from tests.node import CRIO, DATA, FLANNEL, MASTERS, Node, scratch, settings_for

BROKEN = b'{"name": "cut o'
MULTUS = {"name": "m", "type": "multus"}
CASES = json.loads((DATA / "peer-vectors.json").read_text())
WRITTEN = [case for case in CASES if not case.get("refused")]
REFUSED = [case for case in CASES if case.get("refused")]


def case_name(case):
    return f"{case['master']} {' '.join(case['flags']) or 'without flags'}"


# ---- the Go peer ----


@pytest.mark.parametrize("case", WRITTEN, ids=case_name)
def test_what_is_written_is_what_the_go_peer_wrote(tmp_path, case):
    node = Node(tmp_path, *case["flags"])
    shutil.copy(MASTERS / case["master"], node.directory)
    assert node.settle().ready
    assert sorted([*node.names(), "multus.d"]) == sorted(case["files"])
    assert node.document(case["file"]) == case["conf"]


@pytest.mark.parametrize("case", REFUSED, ids=case_name)
def test_what_the_go_peer_refuses_is_refused(tmp_path, case):
    with pytest.raises(click.UsageError):
        settings_for(scratch(tmp_path), *case["flags"])


def test_no_case_was_lost():
    assert (len(WRITTEN), len(REFUSED)) == (154, 11)


# ---- looking ----


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def look(node):
    return node.parts[2]._source.look()


def names(node):
    return [each.name for each in look(node).candidates]


def test_candidates_come_in_byte_order_and_what_we_write_is_none(node):
    for name in ("b.conf", "B.conf", "é.conf", "00-multus.conf", "00-multus.conflist", "a.json", "10.conflist"):
        node.put(name, FLANNEL)
    os.rename(node.directory / "10.conflist", os.fsencode(node.directory) + b"/\xff\n.conf")
    assert names(node) == ["B.conf", "b.conf", "é.conf", "\udcff\n.conf"]


def test_what_is_no_file_is_said_of_each_and_blocks_nothing(node):
    node.put("target", FLANNEL)
    (node.directory / "a-link.conf").symlink_to("target")
    (node.directory / "b-dangling.conf").symlink_to("missing")
    (node.directory / "c-loop.conf").symlink_to("c-loop.conf")
    (node.directory / "d-directory.conf").mkdir()
    os.mkfifo(node.directory / "e-fifo.conf")
    link, *others = look(node).candidates
    assert isinstance(link.verdict, Master)
    assert {other.name: other.verdict for other in others} == {
        "b-dangling.conf": NoFile("is a link to what does not exist", link=True),
        "c-loop.conf": NoFile("is a link to what cannot be read: Too many levels of symbolic links", link=True),
        "d-directory.conf": NoFile("is not a regular file"),
        "e-fifo.conf": NoFile("is not a regular file"),
    }


def test_the_content_is_judged(node):
    node.put("a.conf", MULTUS)
    node.put("b.conf", b" " * (MAX_BYTES + 1))
    node.put("c.conf", FLANNEL)
    kinds = [each.verdict for each in look(node).candidates]
    assert isinstance(kinds[0], Multus) and isinstance(kinds[2], Master)
    assert kinds[1] == Unusable("is larger than 1048576 bytes")


def test_a_candidate_has_its_age_by_its_content_and_its_brokenness_by_its_name(node):
    def dates():
        (found,) = look(node).candidates
        return found.since, found.broken_since

    node.put("a.conf", b"{")
    assert dates() == (100, 100)
    node.now = 101
    os.utime(node.directory / "a.conf")
    assert dates() == (100, 100)
    node.put("a.conf", b'{"')
    assert dates() == (101, 100)
    node.now = 102
    node.put("a.conf", FLANNEL)
    assert dates() == (102, None)
    node.now = 103
    node.put("a.conf", b"{")
    assert dates() == (103, 103)


def test_an_unchanged_candidate_is_not_read_again(node, monkeypatch):
    node.put("a.conf", FLANNEL)
    monkeypatch.setattr(master, "_CLOCK_TICK", -(10**12))  # the file was written long ago
    examined, real = [], examine
    monkeypatch.setattr(master, "examine", lambda *args, **said: examined.append(args) or real(*args, **said))
    assert look(node).candidates == look(node).candidates == look(node).candidates
    assert len(examined) == 1


def test_a_change_within_one_tick_of_the_clock_is_seen(node, monkeypatch):
    monkeypatch.setattr(master, "signature", lambda status: (1,))  # as if no timestamp had changed
    for name in ("one", "two"):
        node.put("a.conf", {"name": name, "type": "t"})
        assert look(node).candidates[0].verdict.name == name


def failing(monkeypatch, function, *endings):
    """Let a function of `os` fail for such paths."""
    real = getattr(os, function)

    def fail(path, *args, **options):
        if os.fspath(path).endswith(endings):
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, function, fail)


@pytest.mark.parametrize(
    ("function", "ending"),
    [("scandir", "net.d"), ("open", "10-a.conflist"), ("open", "00-multus.conf"), ("open", "ledger.json")],
)
def test_a_look_that_failed_is_no_news_and_the_next_one_looks_again(tmp_path, monkeypatch, function, ending):
    node = Node(tmp_path, "--cleanup-config-on-exit")
    node.put("10-a.conflist", FLANNEL)
    node.settle()
    node.put("10-a.conflist", CRIO)
    with monkeypatch.context() as patch:
        failing(patch, function, ending)
        node.ledger.forget()
        decision = node.decide()
        assert (node.touched(decision), decision.ready) == ([], False)
        assert "Input/output error" in str(decision.failed[0])
    assert node.settle().ready
    assert node.delegate["name"] == "crio"


def test_what_comes_after_the_master_need_not_be_readable(node, monkeypatch):
    node.put("10-a.conflist", FLANNEL)
    node.put("20-b.conf", CRIO)
    failing(monkeypatch, "open", "20-b.conf")
    assert node.settle().ready


# ---- choosing ----


def candidate(name, content, since=0.0, broken_since=None):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    verdict = examine(raw, name)
    broken_since = broken_since if broken_since is not None else since
    return Candidate(
        name, verdict, since, broken_since if isinstance(verdict, Unusable) else None, hashlib.sha256(raw).hexdigest()
    )


NETWORK = candidate("10-b.conf", FLANNEL)
LATER = candidate("20-c.conf", CRIO)


@pytest.mark.parametrize(
    ("first", "present", "give_up_at", "chosen", "settled_at"),
    [
        pytest.param(candidate("05-a.conf", FLANNEL), None, 999, "05-a.conf", None, id="the first in byte order"),
        pytest.param(candidate("05-a.conf", BROKEN, 98), None, 999, None, 98 + GRACE, id="being written"),
        pytest.param(candidate("05-a.conf", BROKEN, 95), None, 999, "10-b.conf", None, id="broken for too long"),
        pytest.param(
            candidate("05-a.conf", BROKEN, 99.9, 95), None, 999, "10-b.conf", None, id="changing all the time"
        ),
        pytest.param(
            candidate("05-a.conf", BROKEN, 98), "10-b.conf", 999, "10-b.conf", 103, id="the present one stays"
        ),
        pytest.param(candidate("05-a.conf", BROKEN, 98), "20-c.conf", 999, "20-c.conf", 103, id="also a later one"),
        pytest.param(candidate("05-a.conf", BROKEN, 98), "gone.conf", 999, None, 103, id="the present one has gone"),
        pytest.param(candidate("05-a.conf", BROKEN, 99), None, 101, None, 101, id="not beyond the time-out"),
        pytest.param(candidate("05-a.conf", BROKEN, 99), None, 100, "10-b.conf", None, id="the time-out has come"),
        pytest.param(candidate("05-a.conf", MULTUS, 99), None, 999, "10-b.conf", None, id="Multus itself"),
        pytest.param(candidate("30-x.conf", BROKEN, 99), None, 999, "10-b.conf", None, id="broken behind it"),
        pytest.param(Candidate("05-a.conf", NoFile("x"), 99), None, 999, "10-b.conf", None, id="no file"),
    ],
)
def test_the_first_usable_one_is_taken_and_one_that_is_being_written_is_waited_for(
    tmp_path, first, present, give_up_at, chosen, settled_at
):
    seen = Seen(100.0, tuple(sorted([first, NETWORK, LATER])))
    put = Put("00-multus.conf", b"", master=present)
    choice = choose(settings_for(tmp_path), seen, Before(Book(put if present else None), give_up_at=give_up_at))
    assert (choice.candidate.name if choice.candidate else None, choice.settled_at) == (chosen, settled_at)


def test_one_that_cannot_be_read_is_no_news_unless_a_usable_one_comes_first(tmp_path):
    unread = Candidate("15-x.conf", Unread("cannot be read: x"), 0.0)
    settings = settings_for(tmp_path)
    assert choose(settings, Seen(100.0, (NETWORK, unread)), Before()).candidate == NETWORK
    with pytest.raises(LookFailedError, match=r"'15-x.conf' cannot be read: x"):
        choose(settings, Seen(100.0, (unread, LATER)), Before())


@pytest.mark.parametrize("flags", [(), ("--cleanup-config-on-exit",), ("--skip-config-watch",)])
@pytest.mark.parametrize("content", [b"", BROKEN, b"[]"])
def test_a_master_that_is_there_and_unusable_is_damage_and_no_removal(tmp_path, flags, content):
    node = Node(tmp_path, *flags)
    node.put("10-a.conflist", FLANNEL)
    node.settle()
    before = node.document()
    node.put("10-a.conflist", content)
    decision = node.settle()
    assert (decision.messages, decision.ready) == ([], True)
    for restarted in (False, True):
        if restarted:
            node.start()
            node.settle()
        node.now += GRACE
        decision = node.settle()
        assert node.document() == before
        assert decision.ready
        if not flags or "watch" not in flags[0]:
            (fault,) = decision.wishes[2].faults
            assert "'10-a.conflist' is unusable" in fault.found and "stays" in fault.todo
            assert not (fault.bars or fault.fatal or fault.at_start)
    (node.directory / "00-multus.conf").unlink()
    node.rest()
    assert node.document() == before


@pytest.mark.parametrize(
    "plugin", ["loopback", "portmap", "bandwidth", "firewall", "tuning", "sbr", "vrf", "istio-cni", "linkerd-cni"]
)
def test_what_only_changes_another_ones_work_is_never_the_master_unless_it_is_named(tmp_path, plugin):
    alone = candidate("05-x.conf", {"cniVersion": "0.3.1", "name": "x", "type": plugin})
    chain = candidate("05-x.conf", {"cniVersion": "0.3.1", "name": "x", "plugins": [{"type": plugin}, {"type": "b"}]})
    settings, named = settings_for(tmp_path), settings_for(tmp_path, "--multus-master-cni-file-name=05-x.conf")
    for meta in (alone, chain):
        choice = choose(settings, Seen(100.0, (meta,)), Before())
        assert choice.candidate is None and f"no network by itself: {plugin!r}" in choice.refused[0]
        assert choose(settings, Seen(100.0, (meta, NETWORK)), Before()).candidate == NETWORK
        assert choose(named, Seen(100.0, (meta,)), Before()).candidate == meta


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--multus-master-cni-file-name=20-c.conf"], ["20-c.conf"]),
        (["--multus-master-cni-file-name=nope.conf"], []),
        (["--multus-master-cni-file-name=nope,*-c.conf,10-*"], ["10-b.conf", "20-c.conf"]),
        (["--multus-master-cni-file-name=notes"], ["notes"]),
        (["--multus-master-cni-file-name=*otes"], []),
    ],
)
def test_names_and_patterns_choose_the_candidates(tmp_path, flags, expected):
    node = Node(tmp_path, *flags)
    for name in ("10-b.conf", "20-c.conf", "10-b.conf.bak", "notes"):
        node.put(name, FLANNEL)
    assert names(node) == expected


def test_a_pattern_leaves_files_out_without_a_word(tmp_path):
    node = Node(tmp_path, "--multus-master-cni-exclude=*podman*", "--multus-master-cni-exclude", "99-?.conf")
    node.put("10-podman-bridge.conflist", CRIO)
    node.put("99-x.conf", CRIO)
    assert "left out (--multus-master-cni-exclude)" in node.settle().waits
    node.put("99-yy.conf", FLANNEL)
    decision = node.settle()
    assert (node.delegate["name"], decision.warnings) == ("cbr0", [])


@pytest.mark.parametrize(
    ("flags", "files", "why"),
    [
        ([], {}, "no .conf or .conflist file is there"),
        (["--multus-autoconfig-dir={root}/later"], {}, "the directory does not exist"),
        (
            ["--multus-master-cni-file-name=nope.conf"],
            {"10-a.conf": FLANNEL},
            "nope.conf is not there; there are: 10-a",
        ),
        ([], {"20-x.conf": MULTUS}, "'20-x.conf' is itself a Multus configuration"),
        (
            [],
            {"20-x.conflist": {"name": "n", "plugins": [{"type": "bridge"}, {"type": "multus"}]}},
            "'20-x.conflist' is itself a Multus configuration",
        ),
        ([], {"20-x.conf": {"name": "n", "type": "multus-shim"}}, "'20-x.conf' is itself a Multus configuration"),
        ([], {"05-a.conf": b"[]"}, "'05-a.conf' may still be being written"),
    ],
)
def test_what_is_waited_for_is_said_with_what_was_found_instead(tmp_path, flags, files, why):
    node = Node(tmp_path, *(flag.format(root=tmp_path) for flag in flags))
    for name, content in files.items():
        node.put(name, content)
    decision = node.settle()
    assert not decision.able and not decision.ready
    assert str(node.settings.autoconfig_dir) in decision.waits
    assert why in decision.waits
    assert not any(name.startswith("00-multus") for name in node.names())


def test_a_link_that_leads_nowhere_here_is_told_of_though_another_was_chosen(node):
    (node.directory / "05-a.conf").symlink_to("/host/only")
    node.put("10-b.conf", FLANNEL)
    (warning,) = node.settle().warnings
    assert "'05-a.conf'" in warning and "though perhaps on the host" in warning


# ---- wrapping ----


def test_a_master_without_a_version_is_wrapped_with_a_warning_unless_the_flag_says_one(tmp_path):
    for flags, version, warned in (((), "0.1.0", 1), (("--cni-version=0.4.0",), "0.4.0", 0)):
        node = Node(tmp_path, *flags)
        node.put("10-aws.conflist", (MASTERS / "10-aws-no-cniversion.conflist").read_bytes())
        decision = node.settle()
        assert node.document()["cniVersion"] == node.delegate["cniVersion"] == version
        assert len(decision.warnings) == warned
        assert all("10-aws.conflist has no 'cniVersion'" in warning for warning in decision.warnings)


def test_a_version_conflict_ends_a_start_and_later_leaves_what_stands(tmp_path):
    node = Node(tmp_path, "--cni-version=1.0.0")
    node.put("10-a.conflist", FLANNEL)
    assert [fault.fatal for fault in node.decide().wishes[2].faults] == [True]
    node.put("10-a.conflist", CRIO)
    node.settle()
    node.put("10-a.conflist", FLANNEL)
    decision = node.settle()
    assert [fault.fatal for fault in decision.wishes[2].faults] == [False]
    assert decision.ready and node.delegate["name"] == "crio"


def test_a_list_with_the_name_of_a_file_is_refused(tmp_path):
    """libcni looks for more plugins in a directory of a list's name."""
    node = Node(tmp_path, "--override-network-name")
    node.put("10-a.conflist", CRIO)
    node.put("crio", b"")
    (fault,) = node.decide().wishes[2].faults
    assert fault.fatal and "a file has that name here" in fault.found


# ---- the patch ----


def test_a_patch_is_merged_into_the_multus_plugins_part(tmp_path):
    patch = '{"logOptions": {"maxSize": 10}, "capabilities": null, "kubeconfig": "/k"}'
    node = Node(tmp_path, f"--multus-conf-patch={patch}")
    for content in (FLANNEL, CRIO):
        node.put("10-a.conflist", content)
        node.settle()
        plugin = node.document().get("plugins", [node.document()])[0]
        assert (plugin["logOptions"], plugin["kubeconfig"], plugin.get("capabilities")) == ({"maxSize": 10}, "/k", None)


def test_a_patch_that_turns_bad_keeps_the_last_good_one_and_the_node_ready(tmp_path):
    path = tmp_path / "patch.json"
    path.write_text('{"retryDeleteOnError": true}')
    node = Node(tmp_path, f"--multus-conf-patch={path}")
    node.put("10-a.conflist", FLANNEL)
    node.settle()
    assert node.document()["retryDeleteOnError"] is True
    for name, bad in (("n1", "{"), ("n2", "[]"), ("n3", None)):
        path.unlink() if bad is None else path.write_text(bad)
        node.put("10-a.conflist", {**json.loads(FLANNEL), "name": name})  # which is followed nevertheless
        decision = node.settle()
        (fault,) = decision.wishes[2].faults
        assert fault.at_start and fault.found.startswith(f"--multus-conf-patch={path}")
        assert decision.ready and node.delegate["name"] == name
        assert node.document()["retryDeleteOnError"] is True
    path.write_text("{}")
    node.settle()
    assert "retryDeleteOnError" not in node.document()


@pytest.mark.parametrize(
    ("patch", "warned"),
    [
        ('{"defaultNetworks": ["a"]}', "defaultNetworks"),
        ('{"defaultNetworks": ["a"], "clusterNetwork": "b"}', None),
        ('{"logOptions": {"maxSize": 1}, "logFile": "/l"}', "logOptions"),
    ],
)
def test_a_patch_that_has_no_effect_is_warned_of(tmp_path, patch, warned):
    node = Node(tmp_path, f"--multus-conf-patch={patch}")
    node.put("10-a.conflist", FLANNEL)
    warnings = node.settle().warnings
    assert [warned in warning for warning in warnings] == [True] if warned else warnings == []
