import json

import pytest
from entrypoint.node.choose import GRACE
from entrypoint.node.plan import decide, decide_removal
from entrypoint.node.values import Binary, Candidate, Record, Remove, Rename, Write
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entrypoint.cni.document import Unread
from entrypoint.disk.looks import Absent, File
from entrypoint.node import renaming
from tests.node import CRIO, DATA, FLANNEL, MASTERS, START, after, master, seen, settings_for

VECTORS = json.loads((DATA / "peer-vectors.json").read_text())
BROKEN = b'{"name": "cut o'
MULTUS = {"name": "m", "type": "multus"}


def vector_name(vector):
    return f"{vector['master']} {' '.join(vector['flags'])}"


def written(plan):
    return json.loads(plan.configuration.content)


@pytest.mark.parametrize("vector", [v for v in VECTORS if "conf" in v], ids=vector_name)
def test_the_configuration_is_the_one_that_multus_4_3_writes(tmp_path, vector):
    wanted = settings_for(tmp_path, *vector["flags"])
    content = (MASTERS / vector["master"]).read_bytes()
    node = seen(wanted, candidates=(master(vector["master"], content),))
    plan = decide(wanted, node, START)
    assert plan.problems == ()
    assert plan.configuration.path.name == vector["file"]
    assert written(plan) == vector["conf"]
    left = after(wanted, node, plan)
    names = [name for name, look in left.outputs.items() if isinstance(look, File)]
    names += [each.name for each in left.candidates] + [f"{each.name}.old" for each in left.retired] + ["multus.d"]
    assert sorted(names) == sorted(vector["files"])


names = st.sampled_from(["00-multus.conf", "05-a.conf", "10-b.conflist", "20-c.conf", "zz.conf"])
contents = st.sampled_from(
    [FLANNEL, CRIO, BROKEN, b"", json.dumps(MULTUS).encode(), (MASTERS / "10-aws-no-cniversion.conflist").read_bytes()]
)
digests = contents.map(lambda content: master("x", content).digest)
flag_sets = st.lists(
    st.sampled_from(
        [
            "--rename-conf-file",
            "--cleanup-config-on-exit",
            "--skip-config-watch",
            "--cni-version=1.0.0",
            "--override-network-name",
            "--skip-multus-binary-copy",
            "--multus-master-cni-file-name=10-b.conflist",
            "--skip-tls-verify",
            "--multus-conf-file=/c/70-multus.conf",
        ]
    ),
    unique=True,
)
looks = st.sampled_from([Absent(), Absent("is not a regular file", missing=False), File(b"{}", 0o644, (3, 3, 0))])


@st.composite
def nodes(draw, wanted):
    found = {draw(names): draw(contents) for _ in range(draw(st.integers(0, 4)))}
    old = {draw(names): draw(contents) for _ in range(draw(st.integers(0, 2)))} if wanted.rename_master else {}
    ages = st.sampled_from([0.0, 96.0, 100.0])
    records = st.builds(Record, st.dictionaries(names, st.tuples(digests)), st.dictionaries(names, digests)).map(
        lambda record: File(renaming.as_file(record), 0o600, (6, 6, 0))
    )
    static = st.sampled_from([File(b"{}", 0o644, (4, 4, 0)), File(b"{", 0o644, (4, 4, 0)), Absent()])
    return seen(
        wanted,
        candidates=tuple(master(name, found[name], draw(ages)) for name in sorted(found) if name != "00-multus.conf"),
        retired=tuple(master(name, old[name], draw(ages)) for name in sorted(old) if name != "00-multus.conf"),
        outputs={path.name: draw(looks) for path in wanted.output_files},
        record=draw(st.one_of(looks, records)) if wanted.rename_master else Absent(),
        static=draw(static) if wanted.static_conf_file else None,
        token=draw(st.sampled_from([File(b"t\n", 0o600, (1, 1, 0)), File(b" ", 0o600, (1, 1, 0)), Absent()])),
        kubeconfig=draw(looks),
        binary=draw(st.sampled_from([Binary(None, installed=False), Binary(Absent(), installed=False)])),
    )


@given(st.data())
@hypothesis_settings(max_examples=300)
def test_deciding_again_on_the_node_that_a_plan_leaves_behind_plans_nothing(tmp_path_factory, data):
    wanted = settings_for(tmp_path_factory.getbasetemp(), *data.draw(flag_sets))
    node = data.draw(nodes(wanted))
    memory = START._replace(configured=data.draw(st.booleans()))
    plan = decide(wanted, node, memory)
    again = decide(wanted, after(wanted, node, plan), plan.memory)
    assert again.steps == ()
    assert again.memory._replace(satisfied=plan.satisfied) == plan.memory


def test_the_order_is_kubeconfig_binary_configuration_removal_rename(tmp_path):
    wanted = settings_for(tmp_path, "--rename-conf-file")
    node = seen(wanted, candidates=(master("10-a.conflist", CRIO),))
    node.outputs["00-multus.conf"] = File(b"{}", 0o600, (3, 3, 0))
    steps = decide(wanted, node, START).steps
    assert [step.path.name for step in steps] == [
        "multus.kubeconfig",
        "multus",
        "00-multus.conflist",
        "00-multus.conf",
        "renamed-masters",
        "10-a.conflist",
    ]
    assert isinstance(steps[3], Remove)
    assert steps[5] == Rename(tmp_path / "net.d/10-a.conflist", tmp_path / "net.d/10-a.conflist.old")


def test_a_broken_first_file_is_waited_for_and_then_skipped_with_its_reason(tmp_path):
    wanted = settings_for(tmp_path)
    node = seen(wanted, candidates=(master("05-a.conf", BROKEN, since=98.0), master("10-b.conflist", FLANNEL)))
    plan = decide(wanted, node, START)
    assert plan.configuration is None
    assert plan.deadline == 98.0 + GRACE
    assert "'05-a.conf' may still be being written" in plan.waiting
    plan = decide(wanted, node._replace(now=103.0), plan.memory)
    assert written(plan)["delegates"][0]["name"] == "cbr0"
    (warning,) = plan.warnings
    assert "'05-a.conf'" in warning
    assert "line 1 column" in warning


def test_a_usable_first_file_is_taken_whatever_is_being_written_after_it(tmp_path):
    wanted = settings_for(tmp_path)
    node = seen(wanted, candidates=(master("05-b.conflist", FLANNEL), master("10-a.conf", BROKEN, since=100.0)))
    assert decide(wanted, node, START).configuration is not None


def test_while_a_master_is_rewritten_the_configuration_stays(tmp_path):
    wanted = settings_for(tmp_path, "--cleanup-config-on-exit")
    node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
    plan = decide(wanted, node, START)
    node = after(wanted, node, plan)._replace(candidates=(master("10-a.conflist", BROKEN, since=100.0),))
    again = decide(wanted, node, plan.memory)
    assert again.steps == ()
    assert again.satisfied


def test_multus_itself_is_never_wrapped_and_the_reason_is_told(tmp_path):
    wanted = settings_for(tmp_path)
    in_the_middle = {"name": "n", "plugins": [{"type": "bridge"}, {"type": "multus"}, {"type": "portmap"}]}
    node = seen(wanted, candidates=(master("20-x.conflist", in_the_middle), master("70-multus.conf", MULTUS)))
    plan = decide(wanted, node, START)
    assert plan.configuration is None
    assert "'20-x.conflist' is itself a Multus configuration" in plan.waiting
    assert "'70-multus.conf' is itself" in plan.waiting


def test_waiting_ends_at_the_time_out_with_the_directory_and_every_reason(tmp_path):
    wanted = settings_for(tmp_path, "--wait-timeout=30")
    node = seen(wanted, candidates=(master("05-a.conf", b"[]", since=0.0), master("70-multus.conf", MULTUS)))
    plan = decide(wanted, node, START)
    assert (plan.deadline, plan.problems) == (130.0, ())
    (problem,) = decide(wanted, node._replace(now=130.0), plan.memory).problems
    assert problem.fatal
    for part in ("30 s", str(tmp_path / "net.d"), "'05-a.conf'", "found a list", "'70-multus.conf'"):
        assert part in problem.message


def test_a_file_that_never_stops_breaking_does_not_outlast_the_time_out(tmp_path):
    wanted = settings_for(tmp_path, "--wait-timeout=30")
    flapping = master("05-a.conf", BROKEN, since=129.9)
    node = seen(wanted, now=130.0, candidates=(flapping,))
    assert any(problem.fatal for problem in decide(wanted, node, START).problems)
    node = seen(wanted, now=130.0, candidates=(flapping, master("10-b.conflist", FLANNEL)))
    assert decide(wanted, node, START).configuration is not None


def test_once_configured_a_missing_master_is_waited_for_without_limit(tmp_path):
    wanted = settings_for(tmp_path, "--wait-timeout=0")
    node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
    plan = decide(wanted, node, START)
    node = after(wanted, node, plan)._replace(candidates=(), now=1e6)
    again = decide(wanted, node, plan.memory)
    assert (again.problems, again.steps, again.satisfied) == ((), (), False)
    assert any("no usable master any more" in warning for warning in again.warnings)


def test_with_cleanup_the_configuration_goes_with_its_master_and_comes_back_with_it(tmp_path):
    wanted = settings_for(tmp_path, "--cleanup-config-on-exit")
    node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
    plan = decide(wanted, node, START)
    node = after(wanted, node, plan)
    gone = decide(wanted, node._replace(candidates=(), now=1e6), plan.memory)
    assert [step.path.name for step in gone.steps] == ["00-multus.conf"]
    assert gone.problems == ()
    back = decide(wanted, after(wanted, node, gone)._replace(now=2e6), gone.memory)
    assert back.configuration.content == plan.configuration.content


def test_with_cleanup_what_an_earlier_run_left_goes_too(tmp_path):
    wanted = settings_for(tmp_path, "--cleanup-config-on-exit")
    node = seen(wanted)
    node.outputs["00-multus.conflist"] = File(b"{}", 0o600, (3, 3, 0))
    assert [step.path.name for step in decide(wanted, node, START).removals] == ["00-multus.conflist"]


def test_without_cleanup_what_an_earlier_run_left_stays(tmp_path):
    wanted = settings_for(tmp_path)
    node = seen(wanted)
    node.outputs["00-multus.conf"] = File(b"{}", 0o600, (3, 3, 0))
    assert decide(wanted, node, START).removals == ()


def test_a_master_of_another_version_leaves_exactly_one_configuration(tmp_path):
    wanted = settings_for(tmp_path)
    node, memory = seen(wanted), START
    for content, expected in ((FLANNEL, "00-multus.conf"), (CRIO, "00-multus.conflist"), (FLANNEL, "00-multus.conf")):
        node = node._replace(candidates=(master("10-a.conflist", content),))
        plan = decide(wanted, node, memory)
        node, memory = after(wanted, node, plan), plan.memory
        assert [name for name, look in node.outputs.items() if isinstance(look, File)] == [expected]


def test_a_version_conflict_is_fatal_before_the_node_is_configured_and_an_error_after(tmp_path):
    wanted = settings_for(tmp_path, "--cni-version=1.0.0")
    good = seen(wanted, candidates=(master("10-a.conflist", CRIO),))
    bad = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
    (problem,) = decide(wanted, bad, START).problems
    assert problem.fatal
    plan = decide(wanted, good, START)
    changed = after(wanted, good, plan)._replace(candidates=bad.candidates)
    again = decide(wanted, changed, plan.memory)
    assert [each.fatal for each in again.problems] == [False]
    assert again.steps == ()


def test_a_master_without_a_version_is_wrapped_with_a_warning(tmp_path):
    wanted = settings_for(tmp_path)
    content = (MASTERS / "10-aws-no-cniversion.conflist").read_bytes()
    plan = decide(wanted, seen(wanted, candidates=(master("10-aws.conflist", content),)), START)
    assert written(plan)["cniVersion"] == written(plan)["delegates"][0]["cniVersion"] == "0.1.0"
    assert any("has no 'cniVersion'" in warning for warning in plan.warnings)
    quiet = settings_for(tmp_path, "--cni-version=0.4.0")
    plan = decide(quiet, seen(quiet, candidates=(master("10-aws.conflist", content),)), START)
    assert plan.warnings == ()


class TestRename:
    def test_a_renamed_master_is_no_removal(self, tmp_path):
        wanted = settings_for(tmp_path, "--rename-conf-file", "--cleanup-config-on-exit")
        node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
        plan = decide(wanted, node, START)
        node = after(wanted, node, plan)
        assert node.candidates == ()
        for memory in (plan.memory, START):  # in the same run, and after a restart
            again = decide(wanted, node, memory)
            assert (again.steps, again.satisfied) == ((), True)

    def test_a_live_master_that_reappears_is_wrapped_and_renamed_again(self, tmp_path):
        wanted = settings_for(tmp_path, "--rename-conf-file")
        node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
        node = after(wanted, node, decide(wanted, node, START))._replace(candidates=(master("10-a.conflist", CRIO),))
        plan = decide(wanted, node, START)
        assert written(plan)["plugins"][0]["delegates"][0]["name"] == "crio"
        assert plan.rename.over

    def test_after_a_restart_the_wrapped_one_is_taken_and_not_an_operators_copy(self, tmp_path):
        wanted = settings_for(tmp_path, "--rename-conf-file")
        copy, ours = master("05-copy.conflist", CRIO), master("10-a.conflist", FLANNEL)
        node = seen(wanted, candidates=(ours,))
        node = after(wanted, node, decide(wanted, node, START))._replace(retired=(copy, ours))
        assert decide(wanted, node, START).steps == ()


class TestRenamedMasterKeepsItsPlace:
    FLAGS = ("--rename-conf-file", "--cleanup-config-on-exit")

    def configured(self, tmp_path, *candidates):
        wanted = settings_for(tmp_path, *self.FLAGS)
        node = seen(wanted, candidates=candidates)
        plan = decide(wanted, node, START)
        return wanted, after(wanted, node, plan), plan.memory

    @pytest.mark.parametrize("restarted", [False, True])
    def test_before_a_live_one_that_stood_beside_it(self, tmp_path, restarted):
        wanted, node, memory = self.configured(tmp_path, master("05-a.conf", FLANNEL), master("10-b.conf", CRIO))
        assert [each.name for each in node.candidates] == ["10-b.conf"]
        again = decide(wanted, node, START if restarted else memory)
        assert again.steps == ()
        assert again.memory.output.master == "05-a.conf"

    def test_but_not_before_a_new_one_that_sorts_before_it(self, tmp_path):
        wanted, node, memory = self.configured(tmp_path, master("05-a.conf", FLANNEL))
        again = decide(wanted, node._replace(candidates=(master("01-x.conf", CRIO),)), memory)
        assert again.memory.output.master == "01-x.conf"

    def test_and_not_before_another_network_that_came_later(self, tmp_path):
        wanted, node, memory = self.configured(tmp_path, master("05-a.conf", FLANNEL))
        later = master("10-b.conf", CRIO)
        again = decide(wanted, node._replace(candidates=(later,)), memory)
        assert again.memory.output.master == "10-b.conf"
        assert again.rename is not None

    def test_and_not_before_itself_written_anew(self, tmp_path):
        wanted, node, memory = self.configured(tmp_path, master("05-a.conf", FLANNEL))
        again = decide(wanted, node._replace(candidates=(master("05-a.conf", CRIO),)), memory)
        assert json.loads(again.configuration.content)["plugins"][0]["delegates"][0]["name"] == "crio"
        assert again.rename is not None

    def test_a_copy_of_an_operators_has_no_place_among_the_live(self, tmp_path):
        wanted = settings_for(tmp_path, *self.FLAGS)
        node = seen(wanted, candidates=(master("10-b.conf", CRIO),), retired=(master("05-copy.conf", FLANNEL),))
        assert decide(wanted, node, START).memory.output.master == "10-b.conf"

    def test_every_name_that_this_run_took_is_given_back(self, tmp_path):
        wanted, node, memory = self.configured(tmp_path, master("05-a.conf", FLANNEL))
        node = node._replace(candidates=(master("01-x.conf", CRIO),))
        plan = decide(wanted, node, memory)
        node = after(wanted, node, plan)
        for memory in (plan.memory, START._replace(output=plan.memory.output)):  # in the same run, and after a restart
            renames, removals = decide_removal(wanted, node, memory, plan.configuration.content)
            assert [rename.to.name for rename in renames] == ["01-x.conf", "05-a.conf"]
            assert [removal.path.name for removal in removals] == ["00-multus.conflist", "renamed-masters"]


class TestLeaving:
    def left(self, tmp_path, *flags, ours=None, **changes):
        wanted = settings_for(tmp_path, *flags)
        node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
        plan = decide(wanted, node, START)
        left = after(wanted, node, plan)._replace(**changes)
        return decide_removal(wanted, left, plan.memory, plan.configuration.content if ours is None else ours)

    def test_what_this_run_wrote_is_removed(self, tmp_path):
        renames, (removal,) = self.left(tmp_path)
        assert renames == ()
        assert removal.path == tmp_path / "net.d/00-multus.conf"

    def test_another_content_is_a_successors(self, tmp_path):
        other = {"00-multus.conf": File(b"{}", 0o600, (9, 2, 5)), "00-multus.conflist": Absent()}
        assert self.left(tmp_path, outputs=other) == ((), ())

    def test_what_was_written_last_goes_although_another_content_was_wanted_since(self, tmp_path):
        written = {"00-multus.conf": File(b"{}", 0o600, (9, 2, 0)), "00-multus.conflist": Absent()}
        _, (removal,) = self.left(tmp_path, outputs=written, ours=b"{}")
        assert removal.path.name == "00-multus.conf"

    def test_a_renamed_master_gets_its_name_back(self, tmp_path):
        (rename,), removals = self.left(tmp_path, "--rename-conf-file")
        assert rename == Rename(tmp_path / "net.d/10-a.conflist.old", tmp_path / "net.d/10-a.conflist")
        assert [removal.path.name for removal in removals] == ["00-multus.conf", "renamed-masters"]

    def test_a_renamed_master_whose_name_is_taken_is_still_known_as_ours_at_the_next_start(self, tmp_path):
        live = (master("10-a.conflist", CRIO),)
        _, removals = self.left(tmp_path, "--rename-conf-file", candidates=live)
        assert [removal.path.name for removal in removals] == ["00-multus.conf"]


class TestKubeconfig:
    def plan(self, tmp_path, *flags, environ=None, memory=START, **changes):
        wanted = settings_for(tmp_path, *flags, environ=environ)
        return decide(wanted, seen(wanted, **changes), memory)

    def test_without_a_token_the_program_gives_up(self, tmp_path):
        (problem,) = self.plan(tmp_path, token=Absent()).problems
        assert problem.fatal
        assert str(tmp_path / "sa/token") in problem.message

    def test_without_a_token_a_kubeconfig_that_is_there_is_kept_with_a_warning(self, tmp_path):
        plan = self.plan(tmp_path, token=Absent(), kubeconfig=File(b"x", 0o600, (5, 5, 0)))
        assert (plan.problems, plan.kubeconfig) == ((), None)
        assert "no service account token" in plan.warnings[0]

    def test_without_a_token_a_kubeconfig_of_the_operators_is_trusted_with_a_warning(self, tmp_path):
        plan = self.plan(tmp_path, "--multus-kubeconfig-file-host=/etc/k", token=Absent())
        assert (plan.problems, plan.kubeconfig) == ((), None)
        assert "/etc/k" in plan.warnings[0]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"token": File(b" \n", 0o600, (1, 1, 0))}, "token is empty"),
            ({"token": File("tökn".encode(), 0o600, (1, 1, 0))}, "is no token"),
            ({"token": File(b"two words", 0o600, (1, 1, 0))}, "is no token"),
            ({"token": File(b"SECRET1\nSECRET2", 0o600, (1, 1, 0))}, "is no token"),
            ({"token": Absent("cannot be read: x", missing=False)}, "cannot be read"),
            ({"certificate_authority": Absent()}, "does not exist"),
            ({"certificate_authority": File(b"", 0o600, (1, 1, 0))}, "is empty"),
            ({"environ": {}}, "KUBERNETES_SERVICE_HOST"),
            ({"environ": {"KUBERNETES_SERVICE_HOST": "x"}}, "KUBERNETES_SERVICE_PORT"),
        ],
    )
    def test_what_is_missing_is_fatal_at_start_and_an_error_later(self, tmp_path, changes, message):
        (problem,) = self.plan(tmp_path, **changes).problems
        assert message in problem.message
        assert problem.fatal
        plan = self.plan(tmp_path, memory=START._replace(first=False), **changes)
        assert [each.fatal for each in plan.problems] == [False]
        assert plan.kubeconfig is None
        assert not plan.satisfied

    def test_skipping_tls_verification_needs_no_certificate_authority(self, tmp_path):
        plan = self.plan(tmp_path, "--skip-tls-verify", certificate_authority=Absent())
        assert plan.problems == ()
        assert b"insecure-skip-tls-verify: true" in plan.kubeconfig.content

    def test_another_mode_is_put_right(self, tmp_path):
        content = self.plan(tmp_path).kubeconfig.content
        assert self.plan(tmp_path, kubeconfig=File(content, 0o600, (5, 5, 0))).kubeconfig is None
        assert self.plan(tmp_path, kubeconfig=File(content, 0o644, (5, 5, 0))).kubeconfig is not None


STATIC = b'{"name": "multus-cni-network", "type": "multus", "delegates": []}'


class TestStatic:
    FLAGS = ("--multus-conf-file=/c/70-multus.conf", "--cleanup-config-on-exit")

    def test_it_is_copied_under_its_name_with_its_mode(self, tmp_path):
        wanted = settings_for(tmp_path, *self.FLAGS)
        plan = decide(wanted, seen(wanted, static=File(b'{"x": 1}', 0o640, (4, 4, 0))), START)
        assert plan.configuration == Write(tmp_path / "net.d/70-multus.conf", b'{"x": 1}', 0o640)

    def test_one_that_breaks_later_leaves_the_last_good_one(self, tmp_path):
        wanted = settings_for(tmp_path, *self.FLAGS)
        node = seen(wanted, static=File(STATIC, 0o640, (4, 4, 0)))
        plan = decide(wanted, node, START)
        assert plan.satisfied
        node = after(wanted, node, plan)
        for broken in (File(b'{"x": ', 0o640, (4, 5, 0)), Absent()):
            again = decide(wanted, node._replace(static=broken), plan.memory)
            assert again.steps == ()
            assert [problem.fatal for problem in again.problems] == [False]

    def test_one_that_is_broken_at_start_is_fatal(self, tmp_path):
        wanted = settings_for(tmp_path, *self.FLAGS)
        (problem,) = decide(wanted, seen(wanted, static=File(b'{"x": ', 0o640, (4, 4, 0))), START).problems
        assert problem.fatal
        assert "/c/70-multus.conf: not JSON" in problem.message

    def test_with_a_file_that_the_runtime_reads_first_the_node_is_not_configured(self, tmp_path):
        wanted = settings_for(tmp_path, *self.FLAGS)
        node = seen(wanted, static=File(STATIC, 0o640, (4, 4, 0)), names=("10-flannel.conflist", "80-later.conf"))
        plan = decide(wanted, node, START)
        assert not plan.satisfied
        (problem,) = plan.problems
        assert "'10-flannel.conflist'" in problem.message
        assert "80-later" not in problem.message
        assert "remove or rename" in problem.message

    @pytest.mark.parametrize(
        ("name", "content", "why"),
        [
            ("00-multus.cfg", STATIC, "no CNI runtime reads"),
            ("00-multus.conf", b'{"name": "n", "plugins": [{"type": "multus"}]}', "only read from a .conflist"),
            ("00-multus.conflist", STATIC, "must hold a list"),
            ("00-multus.conf", b'{"name": "n", "type": "bridge"}', "runs 'bridge' and not Multus"),
            ("00-multus.conf", b'{"name": "n", "type": "multus-shim"}', "runs 'multus-shim' and not the 'multus'"),
            ("00-multus.conf", b'{"type": "multus"}', "has no 'name'"),
            ("00-multus.conf", b"[]", "found a list"),
        ],
    )
    def test_one_that_no_runtime_uses_leaves_the_node_not_configured(self, tmp_path, name, content, why):
        wanted = settings_for(tmp_path, f"--multus-conf-file=/c/{name}")
        plan = decide(wanted, seen(wanted, static=File(content, 0o640, (4, 4, 0))), START)
        assert plan.configuration is not None
        assert not plan.satisfied
        (problem,) = plan.problems
        assert why in problem.message


def test_the_master_that_is_frozen_is_not_followed_but_repaired(tmp_path):
    wanted = settings_for(tmp_path, "--skip-config-watch")
    node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
    plan = decide(wanted, node, START)
    changed = after(wanted, node, plan)._replace(candidates=(master("05-b.conflist", CRIO),))
    assert decide(wanted, changed, plan.memory).steps == ()
    changed.outputs["00-multus.conf"] = Absent()
    assert decide(wanted, changed, plan.memory).configuration == plan.configuration


def test_nothing_is_written_into_a_directory_that_is_missing(tmp_path):
    wanted = settings_for(tmp_path)
    node = seen(wanted, missing_dirs=(("--cni-conf-dir", wanted.cni_conf_dir),))
    node = node._replace(candidates=(master("10-a.conflist", FLANNEL),))
    plan = decide(wanted, node, START._replace(first=False))
    assert [step.path.name for step in plan.steps] == ["multus"]
    assert "volume mounted" in plan.problems[0].message


def test_a_missing_source_of_the_binary_is_fatal_unless_it_is_not_copied(tmp_path):
    missing = Binary(Absent(), installed=False)
    wanted = settings_for(tmp_path)
    assert decide(wanted, seen(wanted, binary=missing), START).problems[0].fatal
    wanted = settings_for(tmp_path, "--skip-multus-binary-copy")
    plan = decide(wanted, seen(wanted, binary=missing), START)
    assert (plan.problems, plan.binary) == ((), None)


def test_candidates_are_records(tmp_path):
    assert master("a.conf", FLANNEL) == Candidate("a.conf", *master("b", FLANNEL)[1:])


class TestLooksThatFail:
    """A look that failed is no news: only "does not exist" means gone."""

    FLAGS = ("--cleanup-config-on-exit",)
    UNREAD = Candidate("05-a.conf", Unread("cannot be read: Too many open files"), 100.0)

    def configured(self, tmp_path):
        wanted = settings_for(tmp_path, *self.FLAGS)
        node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),))
        plan = decide(wanted, node, START)
        return wanted, after(wanted, node, plan), plan.memory

    @pytest.mark.parametrize(
        "failure",
        [
            {"unlisted": "cannot be read: Input/output error", "candidates": ()},
            {"candidates": (UNREAD, master("10-a.conflist", CRIO))},
            {"candidates": (UNREAD,)},
        ],
    )
    def test_what_is_there_stays_and_it_is_looked_at_again_ever_later(self, tmp_path, failure):
        wanted, node, memory = self.configured(tmp_path)
        waits = []
        for _ in range(7):
            plan = decide(wanted, node._replace(**failure), memory)
            assert plan.steps == ()
            assert not plan.satisfied
            assert any("cannot be read" in problem.message for problem in plan.problems)
            waits.append(plan.deadline - node.now)
            memory = plan.memory
        assert waits == [1, 2, 4, 8, 16, 30, 30]
        plan = decide(wanted, node, memory)
        assert (plan.steps, plan.satisfied, plan.deadline, plan.memory.retry) == ((), True, None, 0.0)

    def test_an_output_that_cannot_be_looked_at_is_not_written_over(self, tmp_path):
        wanted, node, memory = self.configured(tmp_path)
        failed = Absent("cannot be read: Too many open files", missing=False, failed=True)
        plan = decide(wanted, node._replace(kubeconfig=failed, outputs=dict.fromkeys(node.outputs, failed)), memory)
        assert plan.steps == ()
        assert not plan.satisfied

    def test_what_comes_after_the_master_need_not_be_readable(self, tmp_path):
        wanted = settings_for(tmp_path)
        unread = self.UNREAD._replace(name="20-b.conf")
        plan = decide(wanted, seen(wanted, candidates=(master("10-a.conflist", FLANNEL), unread)), START)
        assert plan.satisfied

    def test_before_there_was_a_configuration_it_is_waited_for_in_time(self, tmp_path):
        wanted = settings_for(tmp_path, "--wait-timeout=60")
        node = seen(wanted, candidates=(self.UNREAD,))
        plan = decide(wanted, node, START)
        assert not plan.satisfied
        assert not any(problem.fatal for problem in plan.problems)
        late = decide(wanted, node._replace(now=161.0), plan.memory)
        assert any(problem.fatal and "Too many open files" in problem.message for problem in late.problems)


class TestTheProgramThatTheConfigurationNames:
    @pytest.mark.parametrize(
        ("flags", "binary"),
        [
            (("--skip-multus-binary-copy",), Binary(None, installed=True, fault="does not exist")),
            (("--skip-multus-binary-copy",), Binary(None, installed=True, fault="is not executable")),
            ((), Binary(None, installed=False, source_fault="is not executable", fault="does not exist")),
            ((), Binary(None, installed=True, source_fault="is not executable", fault="is not executable")),
        ],
    )
    @pytest.mark.parametrize("mode", [(), ("--multus-conf-file=/c/00-multus.conf",)])
    def test_the_configuration_waits_for_it(self, tmp_path, flags, binary, mode):
        wanted = settings_for(tmp_path, *flags, *mode)
        static = File(STATIC, 0o640, (4, 4, 0)) if mode else None
        node = seen(wanted, static=static, candidates=(master("10-a.conflist", FLANNEL),), binary=binary)
        plan = decide(wanted, node, START)
        assert plan.configuration is None
        assert not plan.satisfied
        assert f"waiting for an executable file {wanted.binary_file}" in plan.waiting
        assert plan.deadline == START.started + wanted.wait_timeout
        (problem,) = decide(wanted, node._replace(now=plan.deadline), plan.memory).problems
        assert problem.fatal
        assert str(wanted.binary_file) in problem.message
        ready = decide(wanted, node._replace(binary=Binary(None, installed=True)), plan.memory)
        assert ready.configuration is not None
        assert ready.satisfied

    def test_when_it_goes_the_configuration_stays_and_the_node_is_not_configured(self, tmp_path):
        wanted = settings_for(tmp_path, "--skip-multus-binary-copy", "--cleanup-config-on-exit")
        node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),), binary=Binary(None, installed=True))
        plan = decide(wanted, node, START)
        gone = after(wanted, node, plan)._replace(binary=Binary(None, installed=True, fault="does not exist"))
        again = decide(wanted, gone, plan.memory)
        assert again.steps == ()
        assert not again.satisfied
        assert "waiting for an executable file" in again.problems[0].message


class TestNoNetworkByItself:
    @pytest.mark.parametrize(
        "plugin", ["loopback", "portmap", "bandwidth", "firewall", "tuning", "sbr", "vrf", "istio-cni", "linkerd-cni"]
    )
    def test_what_only_changes_another_ones_work_is_never_the_master_unless_it_is_named(self, tmp_path, plugin):
        alone = {"cniVersion": "0.3.1", "name": "x", "type": plugin}
        chain = {"cniVersion": "0.3.1", "name": "x", "plugins": [{"type": plugin}, {"type": "bridge"}]}
        for document in (alone, chain):
            wanted = settings_for(tmp_path)
            only = seen(wanted, candidates=(master("05-x.conf", document),))
            plan = decide(wanted, only, START)
            assert plan.configuration is None
            assert f"no network by itself: {plugin!r}" in plan.waiting
            both = only._replace(candidates=(*only.candidates, master("10-a.conflist", FLANNEL)))
            assert decide(wanted, both, START).memory.output.master == "10-a.conflist"
            wanted = settings_for(tmp_path, "--multus-master-cni-file-name=05-x.conf")
            assert decide(wanted, only, START).memory.output.master == "05-x.conf"

    def test_a_pattern_leaves_files_out(self, tmp_path):
        flags = ("--multus-master-cni-exclude=*podman*", "--multus-master-cni-exclude", "99-?.conf")
        wanted = settings_for(tmp_path, *flags)
        files = (master("10-podman-bridge.conflist", CRIO), master("99-x.conf", CRIO), master("99-yy.conf", FLANNEL))
        plan = decide(wanted, seen(wanted, candidates=files), START)
        assert plan.memory.output.master == "99-yy.conf"
        assert plan.warnings == ()


def test_a_named_master_that_is_not_there_is_told_of_with_what_is(tmp_path):
    wanted = settings_for(tmp_path, "--multus-master-cni-file-name=nope.conflist")
    plan = decide(wanted, seen(wanted, beside=("10-flannel.conflist",)), START)
    assert "nope.conflist is not there; there are: 10-flannel.conflist" in plan.waiting
    assert "the directory does not exist" in decide(wanted, seen(wanted, beside=None), START).waiting


def test_a_kubeconfig_that_nobody_writes_and_that_is_not_there_leaves_the_node_not_configured(tmp_path):
    flag = "--multus-kubeconfig-file-host=/etc/cni/net.d/multus.d/multus.kubeconfig"
    wanted = settings_for(tmp_path, flag)
    node = seen(wanted, token=Absent(), candidates=(master("10-a.conflist", FLANNEL),))
    plan = decide(wanted, node, START)
    assert plan.configuration is not None
    assert not plan.satisfied
    assert not any(problem.fatal for problem in plan.problems)
    there = decide(wanted, node._replace(kubeconfig=File(b"x", 0o600, (5, 5, 0))), plan.memory)
    assert there.satisfied
    elsewhere = settings_for(tmp_path, "--multus-kubeconfig-file-host=/etc/multus/kubeconfig")
    assert decide(elsewhere, node, START).satisfied


class TestPatch:
    def plugin(self, tmp_path, patch, content=FLANNEL):
        wanted = settings_for(tmp_path, f"--multus-conf-patch={patch}")
        node = seen(wanted, candidates=(master("10-a.conflist", content),))
        return json.loads(decide(wanted, node, START).configuration.content)

    def test_it_is_merged_into_the_multus_plugins_part(self, tmp_path):
        patch = '{"logOptions": {"maxSize": 10}, "capabilities": null, "kubeconfig": "/k"}'
        document = self.plugin(tmp_path, patch)
        assert document["logOptions"] == {"maxSize": 10}
        assert "capabilities" not in document
        assert document["kubeconfig"] == "/k"
        (plugin,) = self.plugin(tmp_path, patch, CRIO)["plugins"]
        assert plugin["logOptions"] == {"maxSize": 10}

    def test_a_file_is_followed_and_one_that_turns_bad_keeps_the_last_good_one(self, tmp_path):
        wanted = settings_for(tmp_path, "--multus-conf-patch=/p/patch.json")
        good = File(b'{"retryDeleteOnError": true}', 0o644, (6, 6, 0))
        node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),), patch=good)
        plan = decide(wanted, node, START)
        assert json.loads(plan.configuration.content)["retryDeleteOnError"] is True
        node = after(wanted, node, plan)
        for bad in (File(b"{", 0o644, (6, 7, 0)), File(b"[]", 0o644, (6, 7, 0)), Absent()):
            again = decide(wanted, node._replace(patch=bad), plan.memory)
            assert (again.steps, again.satisfied) == ((), False)
            assert again.problems[0].message.startswith("--multus-conf-patch=/p/patch.json")
            assert not again.problems[0].fatal
            (problem,) = decide(wanted, node._replace(patch=bad), START).problems
            assert problem.fatal
        empty = decide(wanted, node._replace(patch=File(b"{}", 0o644, (6, 8, 0))), plan.memory)
        assert "retryDeleteOnError" not in json.loads(empty.configuration.content)
        failed = Absent("cannot be read: Input/output error", missing=False, failed=True)
        assert decide(wanted, node._replace(patch=failed), plan.memory).steps == ()


class TestReadinessGate:
    FLAGS = ("--wait-for-readiness-indicator", "--readiness-indicator-file=/run/x/ready", "--wait-timeout=60")

    def test_the_configuration_waits_for_the_indicator_once(self, tmp_path):
        wanted = settings_for(tmp_path, *self.FLAGS)
        node = seen(wanted, candidates=(master("10-a.conflist", FLANNEL),), readiness="/host/run/x/ready")
        plan = decide(wanted, node, START)
        assert plan.configuration is None
        assert plan.kubeconfig is not None
        assert "waiting for /host/run/x/ready (--wait-for-readiness-indicator)" in plan.waiting
        assert not plan.satisfied
        assert decide(wanted, node._replace(now=plan.deadline), plan.memory).problems[0].fatal
        ready = decide(wanted, node._replace(readiness=None), plan.memory)
        assert ready.satisfied
        gone = decide(wanted, after(wanted, node, ready), ready.memory)
        assert (gone.steps, gone.satisfied) == ((), True)

    def test_it_is_looked_for_where_the_host_is_mounted(self, tmp_path):
        assert str(settings_for(tmp_path, *self.FLAGS).readiness_gate) == "/host/run/x/ready"
        scratch = settings_for(tmp_path, *self.FLAGS, "--cni-conf-dir=/elsewhere/etc/cni/net.d")
        assert str(scratch.readiness_gate) == "/elsewhere/run/x/ready"
        assert settings_for(tmp_path, *self.FLAGS[1:]).readiness_gate is None


# ---- plugins in a directory of the list's name ----

WITH_DIRECTORY = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}]}


@pytest.mark.parametrize(
    ("name", "document", "flags", "warned"),
    [
        ("10-a.conflist", WITH_DIRECTORY, [], True),
        ("10-a.conflist", {**WITH_DIRECTORY, "cniVersion": "0.4.0"}, ["--override-network-name"], True),
        ("10-a.conflist", WITH_DIRECTORY, ["--override-network-name", "--multus-autoconfig-dir=/elsewhere"], True),
        ("10-a.conflist", WITH_DIRECTORY, ["--override-network-name"], False),
        ("10-a.conflist", {**WITH_DIRECTORY, "loadOnlyInlinedPlugins": "true"}, [], False),
        ("10-a.conflist", {**WITH_DIRECTORY, "name": "cbr1"}, [], False),
        ("10-a.conf", WITH_DIRECTORY, [], False),
    ],
)
def test_plugins_that_only_the_runtime_would_load_are_warned_of_by_name(tmp_path, name, document, flags, warned):
    wanted = settings_for(tmp_path, *flags)
    node = seen(wanted, candidates=(master(name, document),), directories={"cbr0": ("10-x.conf", "20-y.conf")})
    plan = decide(wanted, node, START)
    found = [warning for warning in plan.warnings if f"{wanted.autoconfig_dir}/cbr0" in warning]
    assert bool(found) is warned
    assert all("10-x.conf, 20-y.conf" in warning for warning in found)


@pytest.mark.parametrize(
    ("patch", "flags", "warned"),
    [
        ('{"defaultNetworks": ["a"]}', [], "defaultNetworks"),
        ('{"defaultNetworks": ["a"], "clusterNetwork": "b"}', [], None),
        ('{"logOptions": {"maxSize": 1}}', [], "logOptions"),
        ('{"logOptions": {"maxSize": 1}, "logFile": "/l"}', [], None),
        ('{"logOptions": {"maxSize": 1}}', ["--multus-log-file=/l"], None),
    ],
)
def test_a_patch_that_has_no_effect_is_warned_of(tmp_path, patch, flags, warned):
    wanted = settings_for(tmp_path, f"--multus-conf-patch={patch}", *flags)
    warnings = decide(wanted, seen(wanted, candidates=(master("10-a.conflist", FLANNEL),)), START).warnings
    assert [warned in warning for warning in warnings] == [True] if warned else warnings == ()
