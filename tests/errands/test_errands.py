"""What the short-lived processes are given to do, and what is said before."""

import logging
import threading
from types import SimpleNamespace

import click
import pytest

from entrypoint.cli.commands import cli
from entrypoint.errands import errands
from entrypoint.settings import build

ENVIRONMENT = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "NODE_NAME": "node-1"}


def settings_of(*arguments):
    return build(cli.make_context("multus-entrypoint", list(arguments)).params, ENVIRONMENT)


class Children(list):
    """What was started, as name, order, and whether it still goes on."""

    def make(self, module, order, _what, **_):
        made = SimpleNamespace(name=module.rpartition(".")[2], order=order, ended=threading.Event())
        made.start = lambda after=None: self.append(made)
        made.stop = made.ended.set
        return made

    def orders(self):
        return {each.name: each.order for each in self}


@pytest.fixture
def children(monkeypatch):
    made = Children()
    monkeypatch.setattr(errands, "Child", made.make)
    return made


@pytest.fixture
def started(children):
    """Return the name and the order of each process that a configured node has for these flags."""

    def start(*arguments, changed=True):
        children.clear()
        run = errands.Errands(settings_of(*arguments))
        if changed:
            run.configuration_changed()
        run.pass_done(configured=True, now=100.0)
        return children.orders()

    return start


def test_on_a_node_that_flips_what_is_broken_off_is_started_again_after_a_while_and_what_is_done_is_not(children):
    run = errands.Errands(settings_of("--restart-crio", "--startup-taint=example.com/x", "--repair-pods=report"))
    run.configuration_changed()

    def passes(*, configured, now):
        before = len(children)
        return run.pass_done(configured=configured, now=now), [each.name for each in children[before:]]

    assert passes(configured=False, now=0.0) == (None, ["crio"])
    assert passes(configured=True, now=1.0) == (None, ["taint", "pods"])
    crio, taint, pods = children
    taint.ended.set()
    assert passes(configured=False, now=2.0) == (7.0, [])
    assert pods.ended.is_set()
    assert not crio.ended.is_set()
    assert passes(configured=True, now=3.0) == (7.0, [])
    assert passes(configured=True, now=7.0) == (None, ["pods"])
    assert passes(configured=True, now=8.0) == (None, [])


def test_errands_use_the_pods_own_account_or_the_one_of_their_own(started, monkeypatch):
    flags = ["--startup-taint=example.com/x", "--repair-pods=report"]
    for order in started(*flags).values():
        assert order["token_file"] == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    monkeypatch.setenv("ERRANDS_ACCOUNT_DIR", "/var/run/secrets/errands")
    orders = started(*flags)
    assert set(orders) == {"taint", "pods"}
    for order in orders.values():
        assert order["token_file"] == "/var/run/secrets/errands/token"
        assert order["ca_file"] == "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"


def test_the_repair_of_pods_looks_for_plugins_where_multus_does(started):
    assert started("--repair-pods=delete")["pods"]["bin_dirs"] == ["/host/opt/cni/bin"]
    orders = started("--repair-pods=delete", "--additional-bin-dir=/opt/more")
    assert orders["pods"]["bin_dirs"] == ["/host/opt/cni/bin", "/host/opt/more"]


@pytest.mark.parametrize(
    ("arguments", "changed", "warned"),
    [
        (["--multus-conf-file=auto"], True, True),
        (["--multus-conf-file=auto"], False, False),
        (["--multus-conf-file=auto", "--override-network-name"], True, False),
        ([], True, False),  # the name in a static configuration is its author's
    ],
)
def test_a_restart_of_cri_o_that_takes_eth0_from_older_pods_is_warned_of_before(
    started, caplog, arguments, changed, warned
):
    caplog.set_level(logging.WARNING, "entrypoint")
    orders = started("--restart-crio", *arguments, changed=changed)
    assert ("crio" in orders) is changed
    assert ("takes eth0 from pods that were set up before Multus came" in caplog.text) is warned
    assert ("set --override-network-name" in caplog.text) is warned


@pytest.mark.parametrize(
    ("key", "is_ours"),
    [
        ("node.kubernetes.io/unschedulable", False),
        ("node-role.kubernetes.io/control-plane:NoSchedule", False),
        ("multus-cni.io/not-ready", True),
        ("startup-taint.cluster-autoscaler.kubernetes.io/multus", True),
    ],
)
def test_a_taint_that_kubernetes_sets_for_reasons_of_its_own_is_refused(key, is_ours):
    if is_ours:
        assert settings_of(f"--startup-taint={key}").startup_taint.key == key
    else:
        with pytest.raises(click.UsageError, match=r"such as multus-cni\.io/not-ready, got Kubernetes' own"):
            settings_of(f"--startup-taint={key}")
