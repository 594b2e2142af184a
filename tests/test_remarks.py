import click
import pytest

from entrypoint.cli import flags, options
from entrypoint.cli.options import FlagCommand, PeerCommand
from entrypoint.cli.remarks import remarks


def said(*arguments, kind=FlagCommand, **environ):
    command = kind("x", params=[*flags.ENTRYPOINT])
    return list(remarks(command.make_context("x", list(arguments)), environ))


AUTO = "--multus-conf-file=auto"
STATIC = "--multus-conf-file=/image/70-multus.conf"


def test_what_the_published_manifests_say_is_worth_no_remark():
    assert said() == []
    assert said(AUTO, "--cni-version=0.3.1", "--namespace-isolation=true", "--global-namespaces=a,b") == []
    assert said("--multus-kubeconfig-file-host=/etc/cni/net.d/multus.d/multus.kubeconfig") == []


# ---- without effect ----


@pytest.mark.parametrize("flag", flags.OF_AUTO, ids=lambda flag: flag.name)
def test_a_flag_of_the_generated_configuration_is_in_vain_beside_a_static_one(flag):
    values = ("true", "false", "/x", "1.0.0", "debug", "7", '{"a": 1}')
    command = FlagCommand("x", params=[*flags.ENTRYPOINT])
    usual = flag.usual(command.make_context("x", []))

    def differs(value):
        try:
            return options.chosen(command.make_context("x", [f"{flag.opts[0]}={value}"]))[flag.name] != usual
        except click.UsageError:
            return False

    value = next(value for value in values if differs(value))
    remarks_on_it = [remark for remark in said(STATIC, f"{flag.opts[0]}={value}") if flag.opts[0] in remark]
    if flag.opts[0] in ("--multus-kubeconfig-file-host", "--wait-timeout", "--wait-for-readiness-indicator"):
        assert remarks_on_it == []  # of use there too
    else:
        assert len(remarks_on_it) == 1
        assert "no effect" in remarks_on_it[0]
        assert "/image/70-multus.conf" in remarks_on_it[0]


def test_a_readiness_indicator_that_is_waited_for_is_of_use_beside_a_static_configuration_too():
    flag = "--readiness-indicator-file=/run/x"
    assert said(STATIC, flag, "--wait-for-readiness-indicator") == []
    assert len(said(STATIC, flag)) == 1


def test_several_flags_in_vain_are_one_remark():
    (remark,) = said(STATIC, "--namespace-isolation", "--cni-version=1.0.0", "--rename-conf-file=false")
    assert remark.startswith("--cni-version, --namespace-isolation: no effect")


@pytest.mark.parametrize(
    ("flag", "without"),
    [
        ("--global-namespaces=a", "--namespace-isolation"),
        ("--force-cni-version", "--cni-version=1.0.0"),
    ],
)
def test_a_flag_that_needs_another_is_in_vain_without_it(flag, without):
    (remark,) = said(AUTO, flag)
    assert flag.partition("=")[0] in remark
    assert without.partition("=")[0] in remark
    assert said(AUTO, flag, without) == []


# ---- another effect than the flag's name promises, as Multus 4.3's source has it ----


def test_isolation_leaves_the_namespace_default_open_until_others_are_named():
    (remark,) = said(AUTO, "--namespace-isolation")
    assert "'default'" in remark
    assert "--global-namespaces" in remark
    assert said(AUTO, "--namespace-isolation", "--global-namespaces=infra") == []


def test_a_log_file_without_a_level_gets_panics_only():
    (remark,) = said(AUTO, "--multus-log-file=/var/log/multus.log")
    assert "--multus-log-level" in remark
    assert said(AUTO, "--multus-log-file=/var/log/multus.log", "--multus-log-level=error") == []
    assert said(AUTO, "--multus-log-file=/var/log/multus.log", '--multus-conf-patch={"logLevel": "error"}') == []


# ---- paths on the host ----


@pytest.mark.parametrize(
    "flag",
    [
        *(
            "--multus-kubeconfig-file-host",
            "--multus-cni-conf-dir",
            "--additional-bin-dir",
            "--readiness-indicator-file",
        ),
        "--multus-log-file",
    ],
)
def test_a_path_of_the_container_in_the_place_of_one_of_the_host_is_told_with_what_it_is_taken_for(flag):
    assert said(AUTO, f"{flag}=/opt/x", "--multus-log-level=debug") == []
    (remark,) = said(AUTO, f"{flag}=/host/opt/x", "--multus-log-level=debug")
    assert remark.startswith(f"{flag}=/host/opt/x is taken as /opt/x")


# ---- the environment ----


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ENTRYPOINT_NAMESPACE_ISOLATON", "ENTRYPOINT_NAMESPACE_ISOLATION"),
        ("ENTRYPOINT_CNI_CONFIG_DIR", "ENTRYPOINT_CNI_CONF_DIR"),
        ("ENTRYPOINT_READYFILE", "ENTRYPOINT_READY_FILE"),
    ],
)
def test_a_variable_that_names_no_flag_is_told_with_the_nearest(name, near):
    (remark,) = said(**{name: "hush"})
    assert name in remark
    assert f"did you mean {near}?" in remark
    assert "hush" not in remark


def test_a_variable_that_is_near_to_none_is_told_without():
    assert said(ENTRYPOINT_XYZZYXYZZYXYZZY="1") == [
        "the environment variable ENTRYPOINT_XYZZYXYZZYXYZZY names no flag and has no effect"
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("ENTRYPOINT_SERVICE_HOST", "ENTRYPOINT_SERVICE_PORT", "ENTRYPOINT_SERVICE_PORT_HTTP", "ENTRYPOINT_PORT"),
        *("ENTRYPOINT_PORT_80_TCP", "ENTRYPOINT_PORT_80_TCP_PROTO", "ENTRYPOINT_PORT_80_TCP_PORT"),
        *("ENTRYPOINT_PORT_53_UDP_ADDR", "ENTRYPOINT_BLUE_SERVICE_HOST", "ENTRYPOINT_BLUE_PORT_80_TCP_ADDR"),
    ],
)
def test_what_kubernetes_sets_for_a_service_of_that_name_is_passed_over(name):
    assert said(**{name: "10.0.0.1"}) == []


def test_a_variable_of_any_flag_or_of_something_else_is_passed_over():
    known = {variable: "x" for flag in flags.ALL for variable in flag.variables}
    assert said(**known, HOME="/", ENTRYPOINTS="x", KUBERNETES_SERVICE_HOST="x") == []


# ---- words ----


def test_a_word_that_belongs_to_no_flag_is_told_and_what_follows_counts():
    (remark,) = said("stray", AUTO, kind=PeerCommand)
    assert "'stray'" in remark
