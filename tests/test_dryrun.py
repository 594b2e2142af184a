import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.cli.dryrun import MASK, masked
from entrypoint.cni.wrap import kubeconfig
from tests.flags import MASTERS


@pytest.mark.parametrize(
    "secret",
    [
        *('"psk": "hush"', '"etcd_key":\n "hush"', '"pin": 1234', '"pin": -1.5e3', '"community": "hush"'),
        *('"Authorization": "Basic aHVzaA=="', '"t\\u006fken": "hu\\"sh"', '"Name": "hush"', '"x": ["hush", ["hush"]]'),
        *('"headers": {"name": 1, "x": "hush"}', '"args": {"cni": {"key": "hush"}}', '"value": "hush"'),
        '"x": [{"mtu": 1}, "hush"]',
    ],
)
def test_what_no_specification_knows_is_masked_and_the_rest_stays_as_it_is(secret):
    before, after = '{"type": "calico",\n   "x": {"type": "k8s", ', '}, "mtu":  1450, "ipam": {"type": "host-local"}}'
    shown = masked(f"{before}{secret}{after}".encode())
    assert shown.startswith(before + secret.partition(":")[0] + ":")
    assert shown.endswith(after)
    assert MASK in shown
    assert not any(word in shown for word in ("hush", "hu\\", "1234", "1.5", "aHV"))
    json.loads(shown)


def test_a_number_or_string_gives_way_to_one_word():
    text = '{"psk" : %s, "pin":%s , "on": true, "off": null, "x": {}}'
    assert masked((text % ('"hush"', "12")).encode()) == text % (MASK, MASK)


def test_what_the_specification_the_reference_plugins_and_multus_define_stays():
    for name in ("10-bridge-single.conf", "10-kindnet.conflist", "10-flannel.conflist"):
        text = (MASTERS / name).read_bytes()
        assert masked(text) == text.decode()
    text = '{"logFile": "/x", "logOptions": {"maxSize": 1}, "delegates": [{"ranges": [[{"subnet": "s"}]]}]}'
    assert masked(text.encode()) == text


def test_of_an_address_only_who_logs_in_is_masked():
    text = '{"master": "https://%s10.0.0.1:2379,https://%s10.0.0.2:2379"}'
    for who in ("root:hush@", "root:p@ss/word@", "root\\u0040:hush@"):
        assert masked((text % (who, who)).encode()) == text % ("(masked)@", "(masked)@")
    assert masked((text % ("", "")).encode()) == text % ("", "")


def test_the_token_of_our_kubeconfig_is_masked_and_nothing_else():
    before = kubeconfig("https://10.96.0.1:443", "hush", b"CA").decode()
    assert masked(before.encode()) == before.replace('"hush"', MASK)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["mode", "psk"]), inner),
)


@given(st.dictionaries(st.text(), documents), st.sampled_from([None, 2]))
def test_a_document_stays_json_of_the_same_shape(document, indent):
    def outline(value):
        if isinstance(value, dict):
            return {key: outline(each) for key, each in value.items()}
        return [outline(each) for each in value] if isinstance(value, list) else None

    assert outline(json.loads(masked(json.dumps(document, indent=indent).encode()))) == outline(document)


@given(st.binary())
def test_nothing_that_is_no_json_makes_it_fail(content):
    masked(content)
