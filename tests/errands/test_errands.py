"""What the short-lived processes are given to do, and what is said before."""

import logging
from types import SimpleNamespace

import click
import pytest

from entrypoint.cli.commands import cli
from entrypoint.errands import errands
from entrypoint.settings import build

ENVIRONMENT = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "NODE_NAME": "node-1"}


def settings_of(*arguments):
    return build(cli.make_context("multus-entrypoint", list(arguments)).params, ENVIRONMENT)


@pytest.fixture
def started(monkeypatch):
    """Return the module and the order of each process that a configured node has for these flags."""

    def start(*arguments, changed=True):
        orders = {}

        def child(module, order, _what, **_):
            orders[module.rpartition(".")[2]] = order
            return SimpleNamespace(start=lambda after=None: None)

        monkeypatch.setattr(errands, "Child", child)
        run = errands.Errands(settings_of(*arguments))
        if changed:
            run.configuration_changed()
        run.pass_done(configured=True, now=100.0)
        return orders

    return start


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
    "key", ["node.kubernetes.io/unschedulable", "node-role.kubernetes.io/control-plane:NoSchedule"]
)
def test_a_taint_that_kubernetes_sets_for_reasons_of_its_own_is_refused(key):
    with pytest.raises(click.UsageError, match=r"such as multus-cni\.io/not-ready, got Kubernetes' own"):
        settings_of(f"--startup-taint={key}")


@pytest.mark.parametrize("key", ["multus-cni.io/not-ready", "startup-taint.cluster-autoscaler.kubernetes.io/multus"])
def test_a_taint_for_the_start_is_taken_whoever_reads_it(key):
    assert settings_of(f"--startup-taint={key}").startup_taint.key == key
