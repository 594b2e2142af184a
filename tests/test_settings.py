from contextlib import suppress

import click
import pytest

from entrypoint.cli.flags import ENTRYPOINT
from entrypoint.cli.options import Flag, FlagCommand, chosen
from entrypoint.cni.document import VERSIONS
from entrypoint.settings import InvalidSettingError, Taint, build
from tests.flags import IN_CLUSTER, click_error, options, settings_for


def built(*arguments, **environ):
    return build(options(*arguments), {**IN_CLUSTER, **environ})


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


def test_the_autoconfig_directory_follows_the_configuration_directory():
    assert str(built("--cni-conf-dir=/x").autoconfig_dir) == "/x"
    assert str(built("--cni-conf-dir=/x", "--multus-autoconfig-dir=/y").autoconfig_dir) == "/y"


@pytest.mark.parametrize("value", ["10-a.conf", "/host/etc/cni/net.d/10-a.conf", "./10-a.conf", "x/../10-a.conf"])
def test_a_master_may_be_named_by_a_path_that_lies_in_the_autoconfig_directory(value):
    assert built(f"--multus-master-cni-file-name={value}").master_names == ("10-a.conf",)


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


@pytest.mark.parametrize(
    "value",
    [
        "/etc/cni/net.d/10-a.conf",
        "10-a.conf,/etc/x.conf",
        "*/10-a.conf",
        "../10-a.conf",
        "x/10-a.conf",
        "x/",
        "/",
        "..",
        ".",
    ],
)
def test_a_master_elsewhere_is_a_usage_error_that_names_the_directory(value):
    with pytest.raises(InvalidSettingError, match=r"/host/etc/cni/net\.d") as caught:
        built(f"--multus-master-cni-file-name={value}")
    assert caught.value.name == "--multus-master-cni-file-name"


@pytest.mark.parametrize("value", ["00-multus.conf", "00-multus.conflist", "/host/etc/cni/net.d/00-multus.conf"])
def test_what_this_program_writes_cannot_be_the_master(value):
    with pytest.raises(InvalidSettingError, match="wrap itself"):
        built(f"--multus-master-cni-file-name={value}")


HOST_PATHS = {
    "--multus-kubeconfig-file-host": "kubeconfig_path_on_host",
    "--multus-cni-conf-dir": "multus_conf_dir_on_host",
    "--additional-bin-dir": "additional_bin_dir",
    "--readiness-indicator-file": "readiness_indicator_file",
    "--multus-log-file": "log_file",
}


@pytest.mark.parametrize("flag", HOST_PATHS)
@pytest.mark.parametrize(
    ("given", "on_host"),
    [("/host/etc/x", "/etc/x"), ("/host", "/"), ("/hostile/x", "/hostile/x"), ("/etc/x", "/etc/x")],
)
def test_a_path_on_the_host_loses_the_directory_at_which_this_container_has_it(flag, given, on_host):
    assert getattr(built(f"{flag}={given}"), HOST_PATHS[flag]) == on_host


@pytest.mark.parametrize("flag", HOST_PATHS)
@pytest.mark.parametrize("value", ["x", "./x", "host/x", "~/x"])
def test_a_relative_path_on_the_host_is_refused(flag, value):
    with pytest.raises(InvalidSettingError, match="absolute") as caught:
        built(f"{flag}={value}")
    assert caught.value.name == flag


@pytest.mark.parametrize("value", ["Auto", "AUTO", " auto"])
def test_auto_in_other_letters_is_no_file_and_the_message_says_how_it_is_written(value):
    with pytest.raises(InvalidSettingError, match="'auto'"):
        built(f"--multus-conf-file={value}")


@pytest.mark.parametrize("value", VERSIONS)
def test_a_cni_version_is_one_that_multus_knows(value):
    assert built(f"--cni-version={value}").cni_version == value


@pytest.mark.parametrize("value", ["x", "1.0", "0.3", "v1.0.0", "1.2.0", "0.4.0 ", "00.4.0", "2.0.0"])
def test_for_any_other_the_known_ones_are_listed(value):
    known = r"0\.1\.0, 0\.2\.0, 0\.3\.0, 0\.3\.1, 0\.4\.0, 1\.0\.0, 1\.1\.0"
    with pytest.raises(InvalidSettingError, match=known) as caught:
        built(f"--cni-version={value}", "--force-cni-version")
    assert caught.value.name == "--cni-version"


@pytest.mark.parametrize(("value", "mode"), [("600", 0o600), ("0640", 0o640), ("0o644", 0o644), ("", 0o600)])
def test_the_kubeconfig_mode_is_octal(value, mode):
    assert built(KUBECONFIG_MODE=value).kubeconfig_mode == mode


@pytest.mark.parametrize("value", ["rw", "888", "0x10", "77777"])
def test_a_kubeconfig_mode_that_is_not_octal_is_refused(value):
    with pytest.raises(InvalidSettingError, match="octal"):
        built(KUBECONFIG_MODE=value)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
        ({"KUBERNETES_SERVICE_HOST": "[fd00::1]"}, "https://[fd00::1]:443"),
        ({"KUBERNETES_SERVICE_HOST": "api.example"}, "https://api.example:443"),
        ({"KUBERNETES_SERVICE_PROTOCOL": "http"}, "http://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_PROTOCOL": "HTTPS"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": ""}, None),
        ({"KUBERNETES_SERVICE_PORT": ""}, None),
    ],
)
def test_the_api_server_comes_from_the_environment(environ, url):
    assert built(**environ).api_server == url


@pytest.mark.parametrize("port", ["abc", "tcp://1.2.3.4:443", "0", "65536", "-1", "443 "])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(InvalidSettingError, match="port number"):
        built(KUBERNETES_SERVICE_PORT=port)


@pytest.mark.parametrize("host", ["https://1.2.3.4", "10.96.0.1 ", "10.96.0.1\n", "[fd00::1", "fe80::1%eth0", "a/b"])
def test_a_host_that_is_none_is_refused(host):
    """Multus could not read the kubeconfig, and every pod would fail on a node that is called configured."""
    with pytest.raises(InvalidSettingError, match="a name or an IP address") as caught:
        built(KUBERNETES_SERVICE_HOST=host)
    assert caught.value.name == "KUBERNETES_SERVICE_HOST"


@pytest.mark.parametrize("protocol", ["foo", "https:", "tcp", " https"])
def test_a_protocol_other_than_http_is_refused(protocol):
    with pytest.raises(InvalidSettingError, match="http or https") as caught:
        built(KUBERNETES_SERVICE_PROTOCOL=protocol)
    assert caught.value.name == "KUBERNETES_SERVICE_PROTOCOL"


def test_log_levels_are_known_in_any_case_and_written_in_lower_case():
    assert built("--multus-log-level=DEBUG").log_level == "debug"
    with pytest.raises(click.UsageError, match="'debug', 'verbose', 'error', 'panic'"):
        built("--multus-log-level=chatty")


@pytest.mark.parametrize(
    ("value", "taint"),
    [
        ("", None),
        ("multus/starting", Taint("multus/starting", None)),
        ("a.b/c:NoSchedule", Taint("a.b/c", "NoSchedule")),
    ],
)
def test_a_taint_is_a_key_with_or_without_an_effect(value, taint):
    assert built(f"--startup-taint={value}").startup_taint == taint


@pytest.mark.parametrize("value", ["a:b", "a:", ":NoSchedule", "a b", "/x", "a=b:NoSchedule"])
def test_anything_else_is_no_taint(value):
    with pytest.raises(InvalidSettingError, match="KEY:EFFECT"):
        built(f"--startup-taint={value}")


@pytest.mark.parametrize("word", ["true", "TRUE", "t", "T", "1", "yes", "Yes"])
def test_words_for_true(word):
    assert built(f"--namespace-isolation={word}").namespace_isolation is True


@pytest.mark.parametrize("word", ["false", "False", "f", "0", "no", "NO"])
def test_words_for_false(word):
    assert built(f"--multus-log-to-stderr={word}").log_to_stderr is False


def test_a_bare_boolean_means_true_and_takes_no_word_after_it():
    assert built("--namespace-isolation", "--cni-version", "1.0.0").namespace_isolation is True
    assert "--namespace-isolation=false" in click_error("--namespace-isolation", "false")


def test_a_value_that_looks_like_a_boolean_flag_stays_a_value():
    assert built("--global-namespaces", "--namespace-isolation").global_namespaces == "--namespace-isolation"


def test_an_empty_value_means_the_default_for_every_flag():
    names = [param.opts[0] for param in ENTRYPOINT]
    assert built(*(f"{name}=" for name in names)) == built()
    assert built(*(word for name in names if name not in BOOLEANS for word in (name, ""))) == built()


VALUES = ("true", "false", "/elsewhere/x", "1.0.0", "debug", "a.example/b", "7", "json", "report", '{"a": 1}')
"""Among them every flag finds one that it takes and that is not its default."""


def unread(declared):
    """Return the flags that change nothing of the settings, whatever is said."""

    def settings_with(*arguments):
        command = FlagCommand("x", params=[*declared])
        return build(chosen(command.make_context("x", list(arguments))), IN_CLUSTER)

    def outcome(argument):
        with suppress(InvalidSettingError, click.UsageError):
            return settings_with(argument)

    usual = settings_with()
    names = [flag.opts[0] for flag in declared]
    return [name for name in names if {outcome(f"{name}={value}") for value in VALUES} <= {usual, None}]


def test_every_flag_changes_the_settings():
    left = unread(ENTRYPOINT)
    assert not left, (
        f"nothing of the settings changes with {left}: give `Settings` a field and set it in `build` "
        "(entrypoint/settings.py); if it has one, give VALUES above a value that the flag takes"
    )


def test_a_flag_that_is_declared_and_read_by_nobody_is_found():
    assert unread([*ENTRYPOINT, Flag("--read-by-nobody", "")])[-1:] == ["--read-by-nobody"]


BOOLEANS = {
    "--cleanup-config-on-exit",
    "--dry-run",
    "--force-cni-version",
    "--multus-log-to-stderr",
    "--namespace-isolation",
    "--override-network-name",
    "--rename-conf-file",
    "--restart-crio",
    "--skip-config-watch",
    "--skip-multus-binary-copy",
    "--skip-tls-verify",
    "--wait-for-readiness-indicator",
}


@pytest.mark.parametrize("name", sorted(BOOLEANS))
def test_every_boolean_works_bare(name):
    assert built(name) == built(f"{name}=true")


def test_flags_come_from_the_environment_too_and_the_command_line_wins(monkeypatch):
    monkeypatch.setenv("ENTRYPOINT_CNI_VERSION", "1.0.0")
    monkeypatch.setenv("ENTRYPOINT_NAMESPACE_ISOLATION", "yes")
    assert (built().cni_version, built().namespace_isolation) == ("1.0.0", True)
    assert built("--cni-version=0.4.0").cni_version == "0.4.0"
    assert built("--cni-version=").cni_version is None


def test_tls_verification_is_skipped_by_the_environment_variable_of_3_9(monkeypatch):
    monkeypatch.setenv("SKIP_TLS_VERIFY", "true")
    assert built().skip_tls_verify is True
    assert built("--skip-tls-verify=false").skip_tls_verify is False


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("600", 600), ("1.5", 1.5), ("0", 0), ("1e2", 100), ("", 600)),
        *(
            ("10m", 600),
            ("90s", 90),
            ("1h30m", 5400),
            ("1.5h", 5400),
            (".5s", 0.5),
            ("250ms", 0.25),
            ("2h45m30.5s", 9930.5),
        ),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_as_in_go(value, seconds):
    assert built(f"--wait-timeout={value}").wait_timeout == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "ten", "10x", "m", "10m ", "1h-5m", "-10m", "10 m", "1d", "1m5"])
def test_anything_else_is_no_duration_and_the_message_shows_some(value):
    said = click_error(f"--wait-timeout={value}")
    for part in (repr(value), "600", "10m", "1h30m"):
        assert part in said


def test_an_unknown_flag_suggests_the_nearest_known_one():
    assert "--cni-conf-dir" in click_error("--cni-config-dir=/x")


def test_the_kubeconfig_path_counts_as_given_only_with_a_value(tmp_path):
    assert settings_for(tmp_path).kubeconfig_path_given is False
    assert settings_for(tmp_path, "--multus-kubeconfig-file-host=").kubeconfig_path_given is False
    assert settings_for(tmp_path, "--multus-kubeconfig-file-host=/x").kubeconfig_path_given is True
