import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.cni.document import (
    MAX_DEPTH,
    InvalidJsonError,
    Master,
    Multus,
    Unusable,
    examine,
    is_candidate_name,
    parse,
)
from tests.node import MASTERS


@pytest.mark.parametrize("path", sorted(MASTERS.iterdir()), ids=lambda path: path.name)
def test_configurations_of_real_networks_are_usable(path):
    verdict = examine(path.read_bytes())
    assert isinstance(verdict, Master)
    assert verdict.document == json.loads(path.read_bytes())


def test_only_enabled_capabilities_count_and_a_disabled_one_hides_nothing():
    plugins = [
        {"type": "a", "capabilities": {"x": True, "y": False, "odd": "true"}},
        {"type": "b", "capabilities": {"x": False, "y": True}},
        {"type": "c", "capabilities": ["z"]},
    ]
    verdict = examine(json.dumps({"name": "n", "plugins": plugins}).encode())
    assert isinstance(verdict, Master)
    assert verdict.capabilities == ("x", "y")


@pytest.mark.parametrize(
    "document",
    [
        {"name": "n", "type": "multus"},
        {"type": "multus-shim"},
        {"name": "n", "plugins": [{"type": "bridge"}, {"type": "multus"}, {"type": "portmap"}]},
        {"plugins": [{"type": "multus-shim"}, None]},
    ],
)
def test_multus_is_known_wherever_it_stands(document):
    assert isinstance(examine(json.dumps(document).encode()), Multus)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"name": "n",\n "type": ', "line 2 column 10"),
        (b'{"name": "n", "type": "t"} x', "line 1 column 28"),
        (b'\xef\xbb\xbf{"name": "n", "type": "t"}', "BOM"),
        (b'{"name": "\xff"}', "not UTF-8: byte 0xff at offset 10"),
        (b'{"name": "n", "type": "t", "mtu": NaN}', "NaN"),
        (b'{"name": "n", "type": "t", "mtu": -Infinity}', "-Infinity"),
        (b'{"name": "n", "type": "t", "mtu": 1e999}', "number 1e999 is beyond what a double holds at line 1 column 35"),
        (b'{"name": "n", "type": "t",\n "mtu": ' + b"9" * 400 + b"}", "beyond what a double holds at line 2 column 9"),
        (b'{"name": "n", "type": "t", "mtu": -' + b"9" * 5000 + b"}", "beyond what a double holds at line 1 column 35"),
        (b'{"name": "n", "type": "t",\n\n "x": NaN}', "NaN is no JSON number at line 3 column 7"),
        (b'{"name": "n", "type": "t", "x": "' + b"x" * (256 << 10) + b'"}', "262144 are the most"),
        (b'{"name": "n", "type": "t", "x": "' + "\u00e9".encode() * 50_000 + b'"}', "262144 are the most"),
        (b"[]", "expected a JSON object, found a list"),
        (
            b'{"name": "n", "plugins": [{"type": "t"}], "cniVersions": "1.0.0"}',
            "'cniVersions' is a string, expected a list",
        ),
        (b'{"name": "n", "plugins": [{"type": "t"}], "cniVersions": ["1.0.0", 1]}', "1 of its 'cniVersions' is not"),
        (
            b'{"name": "n", "plugins": [{"type": "t"}], "cniVersions": ["x"]}',
            "'x' of its 'cniVersions' is not a version",
        ),
        (b'{"name": "n", "plugins": []}', "Multus loads none from a directory of its name"),
        (b"true", "found a boolean"),
        (b"null", "found null"),
        (b'{"type": "t"}', "has no 'name'"),
        (b'{"name": "", "type": "t"}', "has no 'name'"),
        (b'{"name": 1, "type": "t"}', "has no 'name'"),
        (b'{"name": "n"}', "neither a 'type' nor"),
        (b'{"name": "n", "plugins": []}', "its list of 'plugins' is empty"),
        (b'{"name": "n", "plugins": {}}', "neither a 'type' nor"),
        (b'{"name": "n", "plugins": [{"type": "t"}, {}]}', "plugin 2"),
        (b'{"name": "n", "plugins": [{"type": "t"}, "x"]}', "plugin 2"),
        (b'{"name": "n", "type": "t", "cniVersion": 1}', "expected a string"),
        (b'{"name": "n", "type": "t", "cniVersion": "one"}', "is not a version"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": "n", "type": "t", "x": ' + b"[" * 500 + b"]" * 500 + b"}", "nested more than"),
    ],
)
def test_an_unusable_file_says_why(content, reason):
    verdict = examine(content)
    assert isinstance(verdict, Unusable)
    assert reason in verdict.reason


def test_nesting_up_to_the_bound_is_usable():
    deep = b'{"name": "n", "type": "t", "x": ' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert isinstance(examine(deep), Master)


@pytest.mark.parametrize("name", ["10-x.conf", "10-x.conflist", ".conf", "\udcff.conf"])
def test_names_that_may_be_masters(name):
    assert is_candidate_name(name)


@pytest.mark.parametrize("name", ["00-multus.conf", "00-multus.conflist", "x.json", "x.conf.old", "conf", "x.CONF"])
def test_names_that_may_not(name):
    assert not is_candidate_name(name)


@given(st.binary(max_size=200))
def test_any_bytes_get_a_verdict(content):
    assert isinstance(examine(content), Master | Unusable | Multus)


@given(st.text(max_size=60).map(str.encode) | st.binary(max_size=60))
def test_parse_agrees_with_the_standard_parser_on_what_it_accepts(content):
    try:
        found = parse(content)
    except InvalidJsonError:
        return
    assert found == json.loads(content)
