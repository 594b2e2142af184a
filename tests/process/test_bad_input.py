"""Every row of the bad-input table, from the command line, with the message that a user needs."""

from __future__ import annotations

import base64
import json
import os
import shutil

import pytest

from tests.process.scratch import FLANNEL, MULTUS, overwrite, settled
from tests.waiting import until

TOKENLESS = "no service account token"


# ---- at the start: exit 1, nothing written ----


def nothing(_):
    """All is there."""


def a_file(host):
    (host.root / "absent").touch()


def no_binary(host):
    host.multus.unlink()


def a_pipe(host):
    host.multus.unlink()
    os.mkfifo(host.multus)


def no_token(host):
    shutil.rmtree(host.account.path)


def of_account(**files):
    return lambda host: host.account.update(**files)


ABSENT, BINARY, TOKEN, CA = (
    "{root}/absent",
    "{root}/image/multus",
    "{root}/serviceaccount/token",
    "ca.crt does not exist",
)
SPOILT = [
    *(
        (spoil, f"{flag}={ABSENT}", [flag, ABSENT, "mounted"])
        for flag in ("--cni-conf-dir", "--cni-bin-dir")
        for spoil in (nothing, a_file)
    ),
    (no_binary, "", [f"--multus-bin-file={BINARY} does not exist"]),
    (a_pipe, "", ["not a regular file"]),
    (lambda host: host.multus.write_bytes(b""), "", [f"--multus-bin-file={BINARY} is empty"]),
    (lambda host: host.multus.chmod(0o644), "", [f"--multus-bin-file={BINARY} is not executable"]),
    (nothing, f"--multus-conf-file={ABSENT}", [f"--multus-conf-file={ABSENT}: does not exist"]),
    (nothing, f"--ready-file={ABSENT}/ready", ["--ready-file", ABSENT]),
    (no_token, "", [TOKENLESS, TOKEN, "automountServiceAccountToken", "--multus-kubeconfig-file-host"]),
    (of_account(**{"token": "", "ca.crt": "CA"}), "", [TOKEN, "is empty"]),
    (of_account(**{"token": "\n", "ca.crt": "CA"}), "", [TOKEN, "is empty"]),
    (of_account(**{"token": b"\xff\xfe", "ca.crt": "CA"}), "", ["is no token"]),
    (of_account(**{"token": "t", "ca.crt": "\n"}), "", ["ca.crt", "is empty"]),
    (of_account(token="t"), "", ["{root}/serviceaccount/" + CA]),
    (nothing, "KUBE_CA_FILE={root}/none.crt", ["{root}/none.crt does not exist"]),
    (nothing, "KUBERNETES_SERVICE_HOST=", ["KUBERNETES_SERVICE_HOST"]),
    (nothing, "KUBERNETES_SERVICE_PORT=", ["KUBERNETES_SERVICE_PORT"]),
    (no_binary, f"--cni-bin-dir={ABSENT} KUBERNETES_SERVICE_HOST=", [BINARY, ABSENT, "KUBERNETES_SERVICE_HOST"]),
]


@pytest.mark.parametrize(("spoil", "said", "words"), SPOILT)
def test_what_is_missing_or_wrong_is_named_with_what_to_do_and_nothing_is_written(host, spoil, said, words):
    host.master()
    spoil(host)
    said = [each.format(root=host.root) for each in said.split()]
    flags = [f"--multus-autoconfig-dir={host.conf_dir}", *(each for each in said if each.startswith("--"))]
    before = host.snapshot()
    outcome = host.run(*flags, env=dict(each.split("=", 1) for each in said if not each.startswith("--")))
    assert outcome.returncode == 1
    assert all(word.format(root=host.root) in outcome.stderr for word in words), outcome.stderr
    assert host.snapshot() == before


def test_the_bin_dir_need_not_be_there_when_nothing_is_copied(host):
    host.master()
    shutil.rmtree(host.bin_dir)
    host.multus.unlink()
    with host.start("--skip-multus-binary-copy") as program:
        program.says("waiting for an executable file", str(host.installed), "does not exist")
        assert not host.conf.exists()
        host.bin_dir.mkdir()
        overwrite(host.installed, "somebody else's")
        settled(program, waiting=True)
        assert not host.conf.exists()
        host.installed.chmod(0o755)
        host.until_ready(program)


# ---- no token, a bad token, a bad CA, no API server ----


def test_without_a_token_it_goes_on_with_a_kubeconfig_that_is_there(host):
    host.master()
    shutil.rmtree(host.account.path)
    host.kubeconfig.parent.mkdir()
    host.kubeconfig.write_text("mine")
    with host.start() as program:
        host.until_ready(program)
        program.says("warning", TOKENLESS)
        assert host.kubeconfig.read_text() == "mine"


def test_without_a_token_it_goes_on_with_a_kubeconfig_of_the_hosts(host):
    host.master()
    shutil.rmtree(host.account.path)
    with host.start("--multus-kubeconfig-file-host=/etc/kubernetes/multus.kubeconfig") as program:
        host.until_ready(program)
        program.says("warning", TOKENLESS, "/etc/kubernetes/multus.kubeconfig")
        assert not host.kubeconfig.exists()
        assert json.loads(host.conf.read_text())["kubeconfig"] == "/etc/kubernetes/multus.kubeconfig"


@pytest.mark.parametrize("static", [False, True], ids=["auto", "static"])
@pytest.mark.parametrize("name", ["own.kubeconfig", "multus.d/own.kubeconfig"])
def test_a_kubeconfig_of_the_operators_that_is_not_there_leaves_the_node_not_configured(host, static, name):
    """Multus fails for every pod without the kubeconfig that it is told to read."""
    flag = f"--multus-kubeconfig-file-host=/etc/cni/net.d/{name}"
    if static:
        path = host.image / "00-multus.conf"
        path.write_text(json.dumps({**MULTUS, "kubeconfig": f"/etc/cni/net.d/{name}"}))
        flag = f"--multus-conf-file={path}"
    host.master()
    with host.start(flag) as program:
        program.says(
            "error", "kubeconfig that is not there", f"{host.conf_dir}/{name} does not exist", "who writes it?"
        )
        until(host.conf.exists)
        settled(program)
        assert not host.ready.exists()
        assert not program.lines("the node is configured")
        (host.conf_dir / name).write_text("theirs")
        until(host.ready.exists)
        (host.conf_dir / name).unlink()
        until(lambda: not host.ready.exists())


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"token": "", "ca.crt": "CA"}, "is empty"),
        ({"token": "t", "ca.crt": ""}, "is empty"),
        ({"token": "t"}, "does not exist"),
        ({"ca.crt": "CA"}, TOKENLESS),
    ],
    ids=["token empty", "CA empty", "CA missing", "token missing"],
)
def test_while_running_the_last_good_kubeconfig_is_kept(host, files, complaint):
    with host.configured() as program:
        before = host.snapshot(host.kubeconfig)
        host.account.update(**files)
        program.says(complaint, str(host.account.path))
        host.master(mtu=5)  # the rest goes on
        until(lambda: host.wraps(mtu=5))
        assert host.snapshot(host.kubeconfig) == before
        assert len(program.lines(complaint)) == 1
        host.rotate("good")
        until(lambda: host.has_token("good") and host.ready.exists())


# ---- the kubeconfig itself ----


def test_the_kubeconfig_holds_the_server_and_the_ca_or_does_not_verify(host):
    server = {"KUBERNETES_SERVICE_HOST": "fd00:10::1", "KUBERNETES_SERVICE_PROTOCOL": "http"}
    with host.configured(env=server):
        text = host.kubeconfig.read_text()
    assert 'server: "http://[fd00:10::1]:443"' in text
    assert base64.b64encode(b"CERTIFICATE 1\n").decode() in text
    assert "insecure-skip-tls-verify" not in text
    for flags, env in (["--skip-tls-verify"], {}), ([], {"SKIP_TLS_VERIFY": "true"}):
        host.account.update(token="t")
        host.ready.unlink(missing_ok=True)
        with host.start(*flags, env=env) as program:
            host.until_ready(program)
            text = host.kubeconfig.read_text()
        assert "insecure-skip-tls-verify: true" in text
        assert "certificate-authority" not in text
        host.kubeconfig.unlink()


# ---- file names that are not UTF-8 ----

ODD = os.fsdecode(b"10-\xff\xfe.conf")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_master_whose_name_is_not_utf8_is_wrapped(host, log_format):
    (host.conf_dir / ODD).write_text(json.dumps(FLANNEL))
    with host.start(f"--log-format={log_format}", "--rename-conf-file", "--cleanup-config-on-exit") as program:
        host.until_ready(program)
        assert host.wraps(**FLANNEL)
        program.says("renamed")
        program.stop()
        _parsable(program, log_format)
    assert host.names() == [ODD, "multus.d"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_names_that_are_not_utf8_in_flags_are_fine(host, log_format):
    odd = host.root / os.fsdecode(b"net-\xff.d")
    odd.mkdir()
    host.master(ODD, directory=odd)
    flags = [f"--log-format={log_format}", f"--cni-conf-dir={odd}", f"--multus-master-cni-file-name={ODD}"]
    flags.append(f"--multus-log-file={os.fsdecode(b'/var/log/m-')}\udcff.log")
    dry = host.run(*flags, "--dry-run", "--rename-conf-file")
    assert dry.returncode == 0, dry.stderr
    assert "would write" in dry.stdout and "would rename" in dry.stdout
    with host.start(*flags) as program:
        host.until_ready(program)
        program.stop()
        _parsable(program, log_format)
    assert (odd / "00-multus.conf").exists()
    assert host.run(f"--multus-master-cni-file-name=/x/{ODD}").returncode == 2


def _parsable(program, log_format):
    assert program.log
    for line in program.log.splitlines():
        if log_format == "json":
            assert json.loads(line).keys() == {"time", "level", "message"}


# ---- outputs that cannot be written ----


@pytest.mark.parametrize("name", ["conf", "kubeconfig", "installed"])
def test_a_directory_in_the_place_of_a_file_is_told(host, name):
    host.master()
    path = getattr(host, name)
    path.mkdir(parents=True)
    outcome = host.run()
    assert outcome.returncode == 1
    assert str(path) in outcome.stderr
    assert not host.conf.is_file()


def test_a_file_in_the_place_of_multus_d_is_told(host):
    host.master()
    overwrite(host.conf_dir / "multus.d", "")
    outcome = host.run()
    assert outcome.returncode == 1
    assert "multus.d" in outcome.stderr
    assert not host.conf.exists()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_whatever_else_stands_in_the_place_of_the_binary_is_replaced(host, make):
    make(host.installed)
    with host.configured():
        assert host.installed.is_file()
        assert not host.installed.is_symlink()


def test_an_unreadable_candidate_is_told(host):
    """Root reads everything, so a link to what even root cannot read stands in."""
    if not os.path.exists("/proc/self/mem"):
        pytest.skip("needs /proc")
    (host.conf_dir / "10-unreadable.conf").symlink_to("/proc/self/mem")
    with host.start("--wait-timeout=0.5") as program:
        assert program.ends() == 1
        program.says("10-unreadable.conf")
