import base64

import pytest

from entrypoint.disk.looks import MAX_BYTES
from tests.node import Node


def wish(node):
    return node.decide().wishes[0]


def content(node):
    (step,) = wish(node).steps
    return step.content


def test_it_says_what_the_account_has_and_follows_it(tmp_path):
    node = Node(tmp_path)
    assert b"token-1" in content(node)
    node.once()
    assert (wish(node).steps, wish(node).stands) == ((), (node.settings.kubeconfig_file,))
    (tmp_path / "sa/token").write_text("token-2\n")
    assert b'token: "token-2"' in content(node)
    node.once()
    (tmp_path / "sa/ca.crt").write_text("CA 2\n")
    assert base64.b64encode(b"CA 2\n") in content(node)


def test_another_mode_or_another_content_is_put_right(tmp_path):
    node = Node(
        tmp_path, environ={"KUBECONFIG_MODE": "640", "KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "1"}
    )
    node.once()
    path = node.settings.kubeconfig_file
    assert path.stat().st_mode & 0o777 == 0o640
    assert b"https://[::1]:1" in path.read_bytes()
    for damage in (lambda: path.chmod(0o600), lambda: path.write_text("x"), path.unlink):
        damage()
        assert wish(node).steps
        node.once()
        assert not wish(node).steps


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path):
    node = Node(tmp_path)
    path = node.settings.kubeconfig_file
    path.parent.mkdir()
    path.symlink_to("nowhere")
    node.once()
    assert path.is_file() and not path.is_symlink()


def test_without_a_token_the_first_pass_ends_the_program(tmp_path):
    node = Node(tmp_path)
    (tmp_path / "sa/token").unlink()
    (fault,) = wish(node).faults
    assert fault.at_start and fault.identifier == "kubeconfig.current"
    assert str(tmp_path / "sa/token") in fault.found


def test_without_a_token_a_kubeconfig_that_is_there_stays_with_a_warning(tmp_path):
    node = Node(tmp_path)
    node.once()
    (tmp_path / "sa/token").unlink()
    found = wish(node)
    assert (found.steps, found.faults, found.stands) == ((), (), (node.settings.kubeconfig_file,))
    assert "no service account token" in found.warnings[0]


@pytest.mark.parametrize(
    ("path", "faults"), [("/etc/k", 0), ("/etc/cni/net.d/multus.d/multus.kubeconfig", 1)], ids=["another's", "ours"]
)
def test_without_a_token_only_what_others_write_is_trusted_unseen(tmp_path, path, faults):
    node = Node(tmp_path, f"--multus-kubeconfig-file-host={path}")
    (tmp_path / "sa/token").unlink()
    found = wish(node)
    assert (len(found.faults), len(found.warnings)) == (faults, 1 - faults)
    assert not any(fault.at_start for fault in found.faults)
    assert "multus.kubeconfig" in str(found.faults) or path in found.warnings[0]


@pytest.mark.parametrize(
    ("file", "raw", "environ", "message"),
    [
        ("token", b" \n", None, "token is empty"),
        ("token", "tökn".encode(), None, "is no token"),
        ("token", b"two words", None, "is no token"),
        ("token", b"SECRET1\nSECRET2", None, "is no token"),
        ("ca.crt", None, None, "does not exist"),
        ("ca.crt", b"", None, "is empty"),
        ("ca.crt", b"x" * (MAX_BYTES - 100), None, "bytes"),
        ("ca.crt", b"x", {}, "KUBERNETES_SERVICE_HOST"),
        ("ca.crt", b"x", {"KUBERNETES_SERVICE_HOST": "x"}, "KUBERNETES_SERVICE_PORT"),
    ],
)
def test_what_is_missing_or_no_good_is_named_and_the_last_good_one_stays(tmp_path, file, raw, environ, message):
    Node(tmp_path).once()
    path = tmp_path / "sa" / file
    path.unlink() if raw is None else path.write_bytes(raw)
    found = wish(Node(tmp_path, environ=environ))
    assert found.steps == ()
    (fault,) = found.faults
    assert fault.at_start
    assert message in str(fault)
    assert "SECRET" not in str(fault)


def test_skipping_tls_verification_needs_no_certificate_authority(tmp_path):
    node = Node(tmp_path, "--skip-tls-verify")
    (tmp_path / "sa/ca.crt").unlink()
    assert wish(node).faults == ()
    assert b"insecure-skip-tls-verify: true" in content(node)


def test_at_the_end_it_stays_unless_all_goes_or_a_hook_had_removed_it(tmp_path):
    node = Node(tmp_path)
    node.once()
    path = node.settings.kubeconfig_file
    assert node.leave() == [] and path.exists()
    assert node.leave(hooked={path}) == [path.name] and not path.exists()
    node.once()
    assert path.name in node.uninstall() and not path.exists()
    assert path.name not in node.uninstall()
