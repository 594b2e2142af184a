"""What an operator said in vain, or means otherwise than it works, is a warning."""

import click
import pytest

from entrypoint.cli import flags
from entrypoint.cli.options import FlagCommand, PeerCommand
from entrypoint.cli.remarks import remarks
from tests.flags import VALUES, context

AUTO = "--multus-conf-file=auto"
STATIC = "--multus-conf-file=/image/70-multus.conf"
USEFUL_BESIDE_STATIC = ("--multus-kubeconfig-file-host", "--wait-timeout", "--wait-for-readiness-indicator")


def said(*arguments, kind=FlagCommand, **environ):
    return list(remarks(context(*arguments, kind=kind), environ))


@pytest.mark.parametrize("flag", flags.OF_AUTO, ids=lambda flag: flag.name)
def test_a_flag_of_the_generated_configuration_is_in_vain_beside_a_static_one(flag):
    name, usual = flag.opts[0], flag.usual(context())

    def differs(value):
        try:
            return context(f"{name}={value}").params[flag.name] != usual
        except click.UsageError:
            return False

    value = next(value for value in VALUES if differs(value))
    about_it = [remark for remark in said(STATIC, f"{name}={value}") if name in remark]
    if name in USEFUL_BESIDE_STATIC:
        assert about_it == []
    else:
        (remark,) = about_it
        assert "no effect" in remark and "/image/70-multus.conf" in remark


def test_several_flags_in_vain_are_one_remark():
    (remark,) = said(STATIC, "--namespace-isolation", "--cni-version=1.0.0", "--rename-conf-file=false")
    assert remark.startswith("--cni-version, --namespace-isolation: no effect")


LOG_FILE = "--multus-log-file=/var/log/multus.log"
WORTH_ONE = [
    # Without effect.
    ([AUTO, "--global-namespaces=a"], ["--global-namespaces", "--namespace-isolation"]),
    ([AUTO, "--force-cni-version"], ["--force-cni-version", "--cni-version"]),
    ([STATIC, "--readiness-indicator-file=/run/x"], ["--readiness-indicator-file", "no effect"]),
    # Another effect than the flag's name promises, as Multus 4.3's source has it.
    ([AUTO, "--namespace-isolation"], ["'default'", "--global-namespaces"]),
    ([AUTO, LOG_FILE], ["--multus-log-level"]),
    # Paths on the host.
    *(
        ([AUTO, f"--{name}=/host/opt/x", "--multus-log-level=debug"], [f"--{name}=/host/opt/x is taken as /opt/x"])
        for name in (
            *("multus-kubeconfig-file-host", "multus-cni-conf-dir", "additional-bin-dir", "readiness-indicator-file"),
            "multus-log-file",
        )
    ),
]
WORTH_NONE = [
    [],
    [AUTO, "--cni-version=0.3.1", "--namespace-isolation=true", "--global-namespaces=a,b"],
    ["--multus-kubeconfig-file-host=/etc/cni/net.d/multus.d/multus.kubeconfig"],
    [AUTO, "--force-cni-version", "--cni-version=1.0.0"],
    [STATIC, "--readiness-indicator-file=/run/x", "--wait-for-readiness-indicator"],
    [AUTO, LOG_FILE, "--multus-log-level=error"],
    [AUTO, LOG_FILE, '--multus-conf-patch={"logLevel": "error"}'],
    [AUTO, "--multus-cni-conf-dir=/opt/x", "--additional-bin-dir=/opt/x", "--readiness-indicator-file=/opt/x"],
]


@pytest.mark.parametrize(("arguments", "words"), WORTH_ONE)
def test_what_works_otherwise_than_it_seems_is_told_with_what_to_say(arguments, words):
    (remark,) = said(*arguments)
    assert all(word in remark for word in words), remark


@pytest.mark.parametrize("arguments", WORTH_NONE)
def test_what_makes_sense_is_worth_no_remark(arguments):
    assert said(*arguments) == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ENTRYPOINT_NAMESPACE_ISOLATON", "ENTRYPOINT_NAMESPACE_ISOLATION"),
        ("ENTRYPOINT_CNI_CONFIG_DIR", "ENTRYPOINT_CNI_CONF_DIR"),
        ("ENTRYPOINT_READYFILE", "ENTRYPOINT_READY_FILE"),
        ("ENTRYPOINT_XYZZYXYZZYXYZZY", None),
    ],
)
def test_a_variable_that_names_no_flag_is_told_with_the_nearest_and_without_its_value(name, near):
    advice = f"did you mean {near}?" if near else "`multus-entrypoint --help` lists the flags"
    assert said(**{name: "hush"}) == [f"the environment variable {name} names no flag and has no effect: {advice}"]


def test_what_kubernetes_sets_for_a_service_of_that_name_and_what_is_meant_is_passed_over():
    of_a_service = (
        *("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_PROTO"),
        *("PORT_80_TCP_PORT", "PORT_53_UDP_ADDR", "BLUE_SERVICE_HOST", "BLUE_PORT_80_TCP_ADDR"),
    )
    known = [variable for flag in flags.ALL for variable in flag.variables]
    others = ["HOME", "ENTRYPOINTS", "KUBERNETES_SERVICE_HOST"]
    assert said(**dict.fromkeys([*known, *others, *(f"ENTRYPOINT_{name}" for name in of_a_service)], "x")) == []


def test_a_word_that_belongs_to_no_flag_is_told_and_what_follows_counts():
    (remark,) = said("stray", AUTO, kind=PeerCommand)
    assert "'stray'" in remark
