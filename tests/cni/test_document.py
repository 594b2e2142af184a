import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.cni.document import (
    MAX_CONFIGURATION,
    MAX_DEPTH,
    InvalidJsonError,
    Master,
    Multus,
    Unusable,
    equal,
    examine,
    is_candidate_name,
    parse,
    version_key,
)
from tests.flags import MASTERS
from tests.meshes import go_format, go_parse


def test_the_largest_that_is_read_is_as_large_as_the_message_says():
    content = b'{"name": "n", "type": "t", "x": ""}'
    content = content.replace(b'""', b'"%s"' % (b"x" * (MAX_CONFIGURATION - len(content))))
    assert isinstance(examine(content), Master)


@pytest.mark.parametrize("path", sorted(MASTERS.iterdir()), ids=lambda path: path.name)
def test_configurations_of_real_networks_are_usable_as_they_stand(path):
    verdict = examine(path.read_bytes(), path.name)
    assert isinstance(verdict, Master)
    assert verdict.document == json.loads(path.read_bytes())
    assert list(verdict.document) == list(json.loads(path.read_bytes()))


def test_only_enabled_capabilities_count_and_a_disabled_one_hides_nothing():
    plugins = [
        {"type": "a", "capabilities": {"x": True, "y": False, "odd": None}},
        {"type": "b", "capabilities": {"x": False, "y": True}},
        {"type": "c", "Capabilities": {"z": True}, "capabilities": {"z": False}},
    ]
    verdict = examine(json.dumps({"name": "n", "plugins": plugins}).encode())
    assert isinstance(verdict, Master)
    assert verdict.capabilities == ("x", "y")


BOTH = b'{"name": "n", "type": "t", "plugins": [{"type": "a"}, {"type": "b"}]}'


@pytest.mark.parametrize(
    ("name", "types"), [("x.conf", ("t",)), ("x.json", ("t",)), ("x.conflist", ("a", "b")), ("", ("a", "b"))]
)
def test_where_a_type_stands_beside_plugins_the_suffix_decides_as_for_the_runtime(name, types):
    verdict = examine(BOTH, name)
    assert isinstance(verdict, Master)
    assert (verdict.types, "type" in verdict.document) == (types, types == ("t",))


@pytest.mark.parametrize(
    "document",
    [
        {"name": "n", "type": "multus"},
        {"type": "multus-shim"},
        {"name": "n", "plugins": [{"type": "bridge"}, {"Type": "multus"}, {"type": "portmap"}]},
        {"plugins": [{"type": "multus-shim"}, None]},
    ],
)
def test_multus_is_known_wherever_it_stands(document):
    assert isinstance(examine(json.dumps(document).encode()), Multus)


LIST = b'{"name": "n", "plugins": [{"type": "t"}]'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"name": "n",\n "type": ', "line 2 column 10"),
        (b'{"name": "n", "type": "t"} x', "line 1 column 28"),
        (b'\xef\xbb\xbf{"name": "n", "type": "t"}', "BOM"),
        (b'{"name": "n", "type": "t", "mtu": NaN}', "NaN"),
        (b'{"name": "n", "type": "t", "mtu": 1e999}', "number 1e999 is beyond what a double holds at line 1 column 35"),
        (b'{"name": "n", "type": "t",\n "mtu": ' + b"9" * 400 + b"}", "beyond what a double holds at line 2 column 9"),
        (b'{"name": "n", "type": "t", "mtu": -' + b"9" * 5000 + b"}", "beyond what a double holds at line 1 column 35"),
        (b'{"name": "n", "type": "t",\n\n "x": NaN}', "NaN is no JSON number at line 3 column 7"),
        (b'{"name": "n", "type": "t", "x": "' + b"x" * (256 << 10) + b'"}', "262144 are the most"),
        (b'{"name": "n", "type": "t", "x": "' + "\u00e9".encode() * 50_000 + b'"}', "262144 are the most"),
        (b"[]", "expected a JSON object, found a list"),
        (b"true", "found a boolean"),
        (LIST + b', "cniVersions": "1.0.0"}', "'cniVersions' is a string, expected a list: libcni does not load it"),
        (LIST + b', "cniVersions": ["1.0.0", 1]}', "'cniVersions[1]' is a number, expected a string"),
        (LIST + b', "cniVersions": [null]}', "'cniVersions' is null"),
        (LIST + b', "cniVersions": ["x"]}', "'cniVersions': 'x' is not a CNI version"),
        (LIST + b', "cniVersion": "1.0"}', "'1.0' is none of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0: Multus"),
        (LIST + b', "cniVersion": 1}', "'cniVersion' is a number, expected a string"),
        (LIST + b', "disableGC": "yes"}', "its 'disableGC' is \"yes\", expected true or false: libcni"),
        (LIST + b', "loadOnlyInlinedPlugins": null}', "'loadOnlyInlinedPlugins' is null, expected true or false"),
        (b'{"type": "t"}', "has no 'name'"),
        (b'{"name": 1, "plugins": [{"type": "t"}]}', "has no 'name'"),
        (b'{"name": 1, "type": "t"}', "'name' is a number, expected a string: libcni"),
        (b'{"name": "a b", "type": "t"}', "its 'name' 'a b' is not at most 185 letters"),
        (b'{"name": "n", "type": "a/b"}', "the 'type' 'a/b' is not the name of a program"),
        (b'{"name": "n"}', "neither a 'type' nor"),
        (b'{"name": "n", "plugins": []}', "'plugins' is no list with a plugin in it"),
        (b'{"name": "n", "plugins": {}}', "'plugins' is no list with a plugin in it"),
        (b'{"name": "n", "plugins": [{"type": "t"}, {}]}', "plugin 2 of its 'plugins' has no 'type'"),
        (b'{"name": "n", "plugins": [{"type": "t"}, "x"]}', "'plugins[1]' is a string, expected an object"),
        (b'{"name": "n", "plugins": [{"type": "t", "ipam": {"TYPE": 5}}]}', "'plugins[0].ipam.TYPE' is a number"),
        (b'{"name": "n", "type": "t", "dns": {"search": [5]}}', "'dns.search[0]' is a number, expected a string"),
        (b'{"name": "n", "type": "t", "dns": 5, "dns": {}}', "'dns' is a number, expected an object"),
        (b'{"name": "n", "cniVersion": "0.4.0", "plugins": [{"type": "t", "cniversion": "0.3.1"}]}', "asks more of it"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": "n", "type": "t", "x": ' + b"[" * 500 + b"]" * 500 + b"}", "nested more than"),
    ],
)
def test_an_unusable_file_says_what_is_wrong_where_and_for_which_of_the_two(content, reason):
    verdict = examine(content)
    assert isinstance(verdict, Unusable)
    assert reason in verdict.reason


def test_a_network_with_the_name_of_its_file_is_none_for_libcni_looks_for_a_directory():
    content = b'{"name": "x.conflist", "plugins": [{"type": "t"}]%s}'
    verdict = examine(content % b"", "x.conflist")
    assert isinstance(verdict, Unusable)
    assert "libcni looks for a directory of that name" in verdict.reason
    assert isinstance(examine(content % b', "loadOnlyInlinedPlugins": true', "x.conflist"), Master)


def test_a_plugins_version_in_letters_that_would_win_is_left_out_of_the_copy():
    verdict = examine(b'{"name": "n", "plugins": [{"type": "t", "cniversion": "0.3.1", "CniVersion": "0.1.0"}]}')
    assert isinstance(verdict, Master)
    assert verdict.document["plugins"] == [{"type": "t", "CniVersion": "0.1.0"}]


def test_a_version_that_will_be_written_over_may_be_any():
    content = LIST + b', "cniVersion": "0.4"}'
    assert isinstance(examine(content), Unusable)
    assert isinstance(examine(content, any_version=True), Master)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xe2\x82", "\ufffd\ufffd"),
        (b"\xc0\x80", "\ufffd\ufffd"),
        (b"\\ud800", "\ufffd"),
        (b"\\ud83d\\ude00", "\U0001f600"),
    ],
)
def test_what_is_no_character_is_read_as_go_reads_it(content, text):
    assert parse(b'{"%s": ["%s"]}' % (content, content)) == {text: [text]}


def test_what_is_not_utf8_outside_a_string_is_no_json():
    with pytest.raises(InvalidJsonError, match="line 1 column 3"):
        parse(b"{}\xff")


def test_nesting_up_to_the_bound_is_usable():
    deep = b'{"name": "n", "type": "t", "x": ' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert isinstance(examine(deep), Master)


def test_which_names_may_be_masters():
    assert all(map(is_candidate_name, ["10-x.conf", "10-x.conflist", ".conf", "\udcff.conf"]))
    none = ["00-multus.conf", "00-multus.conflist", "x.json", "x.conf.old", "conf", "x.CONF"]
    assert not any(map(is_candidate_name, none))


@given(st.binary(max_size=200))
def test_any_bytes_get_a_verdict(content):
    assert isinstance(examine(content), Master | Unusable | Multus)


@given(st.text(max_size=60).map(str.encode) | st.binary(max_size=60))
def test_parse_agrees_with_the_standard_parser_on_what_it_accepts(content):
    try:
        found = parse(content)
    except InvalidJsonError:
        return
    assert equal(found, json.loads(content.decode("utf-8", "replace"))) or b"\\u" in content or not valid(content)


def valid(content):
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_versions_compare_by_number_as_in_libcni():
    assert version_key("0.10.0") > version_key("0.4.0") > version_key("0.3") > version_key("") == version_key("0.1")
    assert version_key("1") == version_key("+1.00.0")
    for wrong in ("x", "1.", "v1.0.0", "1.0.0.0", "1.0.0-rc1", "1 ", "\u0663.0", "1_0"):
        with pytest.raises(ValueError, match="CNI version"):
            version_key(wrong)


# ---- equality ----

go_documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Go's parser and ours differ in nothing else that a document may hold.
    | st.text(st.characters(codec="utf-8") | st.sampled_from("\ud800\udc00<>&\u2028"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab<\u00e9", max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(go_documents)
def test_what_an_installer_written_in_go_has_rewritten_is_equal(document):
    assert equal(document, json.loads(go_format(go_parse(json.dumps(document).encode()))))


@given(go_documents, go_documents)
def test_what_is_equal_is_the_same_to_go(one, other):
    same = go_format(go_parse(json.dumps(one).encode())) == go_format(go_parse(json.dumps(other).encode()))
    assert equal(one, other) == same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        (1, 1.0, True),
        (True, 1, False),
        (False, 0, False),
        (None, False, False),
        (None, [None], False),
        (True, [True], False),
        ("1", 1, False),
        (2**53, 2**53 + 1, True),
        (2**53, 2**53 + 2, False),
        ("\ud800", "\ufffd", True),
        ("\ud83d\ude00", "\U0001f600", True),
        ({"a": None}, {}, False),
        (3.5, 3, False),
        (0, -0.0, True),
    ],
)
def test_equal_as_go_sees_it(one, other, same):
    assert equal(one, other) is same
    assert equal({"x": [one]}, {"x": [other]}) is same
