"""Each flag and each variable in each form: joined, apart, in the environment, empty, invalid.

What the real program does with them is in `process/test_flags.py`.
"""

from contextlib import suppress

import click
import pytest

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.cni.document import VERSIONS
from entrypoint.settings import InvalidSettingError, Taint
from tests.flags import BOOLEANS, VALUES, built, refused, variable

NAMES = [flag.opts[0] for flag in ENTRYPOINT]


def test_defaults_are_those_of_the_published_daemonsets():
    found = built()
    assert str(found.cni_conf_dir) == "/host/etc/cni/net.d"
    assert str(found.cni_bin_dir) == "/host/opt/cni/bin"
    assert str(found.multus_bin_file) == "/usr/src/multus-cni/bin/multus"
    assert str(found.static_conf_file) == "/usr/src/multus-cni/images/70-multus.conf"
    assert found.autoconfig_dir == found.cni_conf_dir
    assert found.kubeconfig_path_on_host == "/etc/cni/net.d/multus.d/multus.kubeconfig"
    assert str(found.token_file) == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert (found.log_to_stderr, found.wait_timeout, found.kubeconfig_mode) == (True, 600.0, 0o600)
    assert found.api_server == "https://10.96.0.1:443"


# ---- every flag ----


def another(name):
    """Return a value of the flag with which the settings are others; None where there is none."""
    for value in VALUES:
        with suppress(click.UsageError, InvalidSettingError):
            if built(f"{name}={value}") != built():
                return value
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_flag_changes_the_settings_joined_apart_and_from_the_environment_and_the_command_line_wins(name):
    value = another(name)
    assert value is not None, (
        f"nothing of the settings changes with {name}: give `Settings` a field and set it in `build` "
        "(entrypoint/settings.py); if it has one, give VALUES (tests/flags.py) a value that the flag takes"
    )
    changed = built(f"{name}={value}")
    assert built(**{variable(name): value}) == changed
    if name not in BOOLEANS:
        assert built(name, value) == changed
    elif value == "true":
        assert built(name) == changed
    assert built(f"{name}=", **{variable(name): value}) == built()


def test_an_empty_value_means_the_default_for_every_flag():
    assert built(*(f"{name}=" for name in NAMES)) == built()
    assert built(*(word for name in NAMES if name not in BOOLEANS for word in (name, ""))) == built()
    empty = ("SKIP_TLS_VERIFY", "KUBECONFIG_MODE", "KUBE_CA_FILE", *map(variable, NAMES))
    assert built(**dict.fromkeys(empty, "")) == built()
    assert built(*(f"{name}= " for name in BOOLEANS)) == built()  # as YAML makes of a folded line


@pytest.mark.parametrize("words", [("true", "false"), ("T", "F"), ("1", "0"), ("Yes", "nO"), ("TRUE", "FALSE")])
def test_a_boolean_takes_every_word_in_any_case(words):
    for name in BOOLEANS:
        for word, plain in zip(words, ("true", "false"), strict=True):
            assert built(f"{name}={word}") == built(**{variable(name): word}) == built(f"{name}={plain}")


def test_a_bare_boolean_takes_no_word_after_it_and_a_value_that_looks_like_one_stays_a_value():
    assert built("--namespace-isolation", "--cni-version", "1.0.0").namespace_isolation is True
    assert "--namespace-isolation=false" in refused("--namespace-isolation", "false")
    assert built("--global-namespaces", "--namespace-isolation").global_namespaces == "--namespace-isolation"


def test_tls_verification_is_skipped_by_the_environment_variable_of_3_9():
    assert built(SKIP_TLS_VERIFY="true").skip_tls_verify is True
    assert built("--skip-tls-verify=false", SKIP_TLS_VERIFY="true").skip_tls_verify is False


# ---- what is wrong usage ----

KNOWN_VERSIONS = ("'0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'",)
REFUSED = {
    "--multus-log-level": (["chatty", "debugg", "info"], ("'debug', 'verbose', 'error', 'panic'",)),
    "--cni-version": (["x", "1.0", "v1.0.0", "1.2.0", "0.4.0 ", "00.4.0", "1.2.3.4", "1.", "-1", " "], KNOWN_VERSIONS),
    "--wait-timeout": (
        ["-1", "nan", "inf", "soon", "10x", "m", "10m ", "1h-5m", "-10m", "10 m", "1d", "1m5", "1e10", "1e300", "9e9h"],
        ("600", "10m", "1h30m", "4611686018"),
    ),
    "--log-format": (["xml"], ("'text', 'json'",)),
    "--repair-pods": (["remove"], ("'report', 'delete'",)),
    "--startup-taint": (["a:b", "a:", ":NoSchedule", "a b", "/x", "a=b:NoSchedule", "key:Never"], ("KEY:EFFECT",)),
    "--multus-conf-file": (["Auto", "AUTO", " auto", "/"], ("'auto'",)),
    "--multus-master-cni-file-name": (
        [
            "/etc/cni/net.d/10-a.conf",
            "10-a.conf,/etc/x.conf",
            "*/a.conf",
            "../a.conf",
            "x/a.conf",
            "x/",
            "/",
            "..",
            ".",
        ],
        ("/host/etc/cni/net.d", "--multus-autoconfig-dir"),
    ),
    **{name: (["maybe", "2", "truee"], ("true", "false")) for name in BOOLEANS},
    **{name: (["x", "./x", "host/x", "~/x"], ("absolute",)) for name in ("--multus-log-file", "--additional-bin-dir")},
    **{name: (["x"], ("absolute",)) for name in ("--multus-kubeconfig-file-host", "--multus-cni-conf-dir")},
    "--readiness-indicator-file": (["run/x"], ("absolute",)),
    "KUBECONFIG_MODE": (["rw", "888", "0x10", "77777", "000", "200", "2600", "1777", "600x", "-1"], ("octal", "600")),
    "SKIP_TLS_VERIFY": (["maybe"], ("--skip-tls-verify",)),
    "KUBERNETES_SERVICE_PORT": (["abc", "tcp://1.2.3.4:443", "0", "65536", "-1", "443 "], ("port number",)),
    "KUBERNETES_SERVICE_PROTOCOL": (["foo", "https:", "tcp", " https"], ("http or https",)),
    # Multus could not read the kubeconfig, and every pod would fail on a node that is called configured.
    "KUBERNETES_SERVICE_HOST": (
        ["https://1.2.3.4", "10.96.0.1 ", "10.96.0.1\n", "[fd00::1", "fe80::1%eth0", "a/b"],
        ("a name or an IP address",),
    ),
}
"""What is not taken, and what the message holds beside the name and the value."""


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_value_is_wrong_usage_wherever_it_is_said_and_the_message_says_what_is_expected(name):
    values, words = REFUSED[name]
    for value in values:
        by_variable = {variable(name) if name.startswith("--") else name: value}
        said = [refused(**by_variable)]
        if name.startswith("--"):
            said.append(refused(f"{name}={value}"))
        for each in said:
            assert name in each
            assert all(word in each for word in (repr(value.rpartition(",")[2]), *words)), each


def test_a_wrong_value_from_the_environment_is_told_with_the_variable():
    assert "ENTRYPOINT_CNI_VERSION" in refused(ENTRYPOINT_CNI_VERSION="7")
    assert "ENTRYPOINT_CNI_VERSION" not in refused("--cni-version=7", ENTRYPOINT_CNI_VERSION="8")


@pytest.mark.parametrize("value", ["00-multus.conf", "00-multus.conflist", "/host/etc/cni/net.d/00-multus.conf"])
def test_what_this_program_writes_cannot_be_the_master(value):
    assert "wrap itself" in refused(f"--multus-master-cni-file-name={value}")


def test_a_taint_that_kubernetes_sets_itself_is_refused():
    assert "Kubernetes' own" in refused("--startup-taint=node.kubernetes.io/unschedulable:NoSchedule")


def test_an_unknown_flag_suggests_the_nearest_known_one():
    assert "--cni-conf-dir" in refused("--cni-config-dir=/x")


# ---- what a value means ----

MEANT = [
    *(("--cni-version", value, "cni_version", value) for value in VERSIONS),
    ("--cni-version", "", "cni_version", None),
    ("--multus-log-level", "DEBUG", "log_level", "debug"),
    ("--startup-taint", "", "startup_taint", None),
    ("--startup-taint", "multus/starting", "startup_taint", Taint("multus/starting", None)),
    ("--startup-taint", "a.b/c:NoSchedule", "startup_taint", Taint("a.b/c", "NoSchedule")),
    *(
        ("--wait-timeout", value, "wait_timeout", pytest.approx(seconds))
        for value, seconds in [("600", 600), ("1.5", 1.5), ("0", 0), ("1e2", 100), ("", 600), ("10m", 600), ("90s", 90)]
    ),
    *(
        ("--wait-timeout", value, "wait_timeout", pytest.approx(seconds))
        for value, seconds in [("1h30m", 5400), ("1.5h", 5400), (".5s", 0.5), ("250ms", 0.25), ("2h45m30.5s", 9930.5)]
    ),
    *(
        ("--multus-master-cni-file-name", value, "master_names", ("10-a.conf",))
        for value in ("10-a.conf", "/host/etc/cni/net.d/10-a.conf", "./10-a.conf", "x/../10-a.conf")
    ),
    *(
        (flag, given, field, on_host)
        for flag, field in (
            ("--multus-kubeconfig-file-host", "kubeconfig_path_on_host"),
            ("--multus-cni-conf-dir", "multus_conf_dir_on_host"),
            ("--additional-bin-dir", "additional_bin_dir"),
            ("--readiness-indicator-file", "readiness_indicator_file"),
            ("--multus-log-file", "log_file"),
        )
        for given, on_host in (("/host/etc/x", "/etc/x"), ("/host", "/"), ("/hostile/x", "/hostile/x"), ("/x", "/x"))
    ),
    ("--multus-kubeconfig-file-host", "", "kubeconfig_path_given", False),
    ("--multus-kubeconfig-file-host", "/x", "kubeconfig_path_given", True),
    *(
        ("KUBECONFIG_MODE", value, "kubeconfig_mode", mode)
        for value, mode in [("600", 0o600), ("0640", 0o640), ("0o644", 0o644), ("", 0o600), ("0440", 0o440)]
    ),
    *(
        ("KUBERNETES_SERVICE_HOST", host, "api_server", url)
        for host, url in [
            *(("fd00::1", "https://[fd00::1]:443"), ("[fd00::1]", "https://[fd00::1]:443")),
            *(("api.example", "https://api.example:443"), ("", None)),
        ]
    ),
    ("KUBERNETES_SERVICE_PROTOCOL", "http", "api_server", "http://10.96.0.1:443"),
    ("KUBERNETES_SERVICE_PROTOCOL", "HTTPS", "api_server", "https://10.96.0.1:443"),
    ("KUBERNETES_SERVICE_PROTOCOL", "", "api_server", "https://10.96.0.1:443"),
    ("KUBERNETES_SERVICE_PORT", "6443", "api_server", "https://10.96.0.1:6443"),
    ("KUBERNETES_SERVICE_PORT", "", "api_server", None),
]


@pytest.mark.parametrize(("name", "value", "field", "meant"), MEANT)
def test_what_a_value_means(name, value, field, meant):
    found = built(f"{name}={value}") if name.startswith("--") else built(**{name: value})
    assert getattr(found, field) == meant


def test_the_autoconfig_directory_follows_the_configuration_directory():
    assert str(built("--cni-conf-dir=/x").autoconfig_dir) == "/x"
    assert str(built("--cni-conf-dir=/x", "--multus-autoconfig-dir=/y").autoconfig_dir) == "/y"


def test_several_masters_may_be_named_by_patterns_too():
    found = built("--multus-master-cni-file-name=10-azure.conflist, *cilium*,/host/etc/cni/net.d/x-[0-9].conf,x.json,")
    assert found.master_names == ("10-azure.conflist", "*cilium*", "x-[0-9].conf", "x.json")
    named = ("10-azure.conflist", "05-cilium.conflist", "x-1.conf", "x.json")
    for name in named:
        assert found.names_master(name)
    copies = ("05-cilium.conflist.old", "05-cilium.conflist.bak", "00-multus-cilium", "10-azure.conflist.old")
    for name in (*copies, "10-Azure.conflist", "05-CILIUM.conflist", "x-a.conf", "10-flannel.conflist", "x.conf"):
        assert not found.names_master(name)
    assert not built("--multus-master-cni-file-name=*").names_master("00-multus.conf")
    assert built("--multus-master-cni-file-name=,").master_names == ()


@pytest.mark.parametrize("name", ["10-a.conf", "00-multus.conf", "10-a.conflist", "10-a.json", "10-a.conf.old"])
def test_without_a_name_any_configuration_but_ours_may_be_the_master(name):
    assert built().names_master(name) is (name in {"10-a.conf", "10-a.conflist"})
