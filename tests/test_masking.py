import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from entrypoint.cli.masking import MASK, masked
from entrypoint.cni.wrap import kubeconfig

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmVk"


@pytest.mark.parametrize(
    "name",
    [
        *("token", "Token", "k8s_auth_token", "bearerToken", "password", "etcd_password", "passwd", "secret"),
        *("client-secret", "credentials", "apiKey", "private_key", "client-key-data", "t\\u006fken", "passphrase"),
    ],
)
def test_what_has_the_name_of_a_secret_is_masked_and_the_rest_stays(name):
    before = '{"type": "calico",\n   "policy": {"%s":  %s, "mtu": 1}}'
    assert masked((before % (name, '"hush"')).encode()) == before % (name, MASK)


@pytest.mark.parametrize("value", ['"hu\\"sh"', "12345", '["hush", {"a": "hush"}]', '{"a": {"b": "hush"}}', '"hüsh"'])
def test_a_secret_may_be_any_value(value):
    assert masked(f'{{"a": 1, "secret" : {value} , "b": 2}}'.encode()) == f'{{"a": 1, "secret" : {MASK} , "b": 2}}'


@pytest.mark.parametrize(
    "name", ["type", "key", "mtu", "etcd_key_file", "tokenFile", "k8s_auth_token_path", "secretName"]
)
def test_what_says_where_a_secret_is_or_has_another_name_stays(name):
    text = f'{{"{name}": "/etc/cni/net.d/x"}}'
    assert masked(text.encode()) == text


@pytest.mark.parametrize("value", ["true", "false", "null", '""', "{}", "[]"])
def test_what_hides_nothing_stays(value):
    text = f'{{"token": {value}}}'
    assert masked(text.encode()) == text


@pytest.mark.parametrize("secret", [JWT, f"Bearer {JWT}", "-----BEGIN EC PRIVATE KEY-----\\nMHc"])
def test_what_looks_like_a_secret_is_masked_under_any_name(secret):
    assert masked(f'{{"x": ["{secret}"]}}'.encode()) == f'{{"x": [{MASK}]}}'


def test_of_an_address_only_who_logs_in_is_masked():
    text = '{"etcd_endpoints": "https://%s10.0.0.1:2379,https://%s10.0.0.2:2379"}'
    assert masked((text % ("root:hush@", "root:hush@")).encode()) == text % ("(masked)@", "(masked)@")
    assert masked((text % ("", "")).encode()) == text % ("", "")


def test_the_word_as_a_value_hides_nothing_of_what_follows():
    text = '{"a": "token", "b": ["password", "x"], "c": "\\"token\\": \\"x\\""}'
    assert masked(text.encode()) == text


def test_the_token_of_our_kubeconfig_is_masked_and_nothing_else():
    before = kubeconfig("https://10.96.0.1:443", "hush", b"CA").decode()
    assert masked(before.encode()) == before.replace('"hush"', MASK)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["token", "x_password"]), inner),
)


@given(documents, st.sampled_from([None, 2]))
def test_a_document_stays_json_and_only_secrets_differ(document, indent):
    text = json.dumps(document, indent=indent)
    assert open_part(json.loads(masked(text.encode()))) == open_part(document)


def open_part(value):
    """Return a document without its secrets."""
    if isinstance(value, dict):
        return {key: open_part(each) for key, each in value.items() if key not in ("token", "x_password")}
    return [open_part(each) for each in value] if isinstance(value, list) else value


@example(b'{"\\q": 1, "token": {')
@given(st.binary())
def test_nothing_that_is_no_json_makes_it_fail(content):
    masked(content)
