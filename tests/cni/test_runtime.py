import json

import pytest

from entrypoint.cni import runtime

OURS = {"cniVersion": "1.0.0", "name": "n", "type": "multus", "delegates": [{"type": "t"}]}
LISTED = {"cniVersion": "1.0.0", "name": "n", "plugins": [{**OURS, "name": "n"}, {"type": "istio-cni"}]}


def test_files_are_read_in_the_order_of_their_bytes_and_only_by_three_suffixes():
    names = ["b.conf", "B.conflist", "\udcff.json", "\u00e9.conf", "a.cfg", "\U0001f40d.conf", "a.conf.old", ".conf"]
    assert runtime.in_order(names) == [
        ".conf",
        "B.conflist",
        "b.conf",
        "\u00e9.conf",
        "\U0001f40d.conf",
        "\udcff.json",  # a byte that is no UTF-8; as a character it would come before the snake
    ]


@pytest.mark.parametrize(
    ("name", "document"),
    [("a.conf", OURS), ("a.json", OURS), ("a.conflist", LISTED), ("a.conf", {**OURS, "plugins": 5})],
)
def test_a_configuration_of_multus_is_well_under_the_suffix_of_its_kind(name, document):
    assert runtime.fault(name, json.dumps(document).encode()) is None


@pytest.mark.parametrize(
    ("name", "document", "why"),
    [
        ("a.cfg", OURS, "ends in none of .conf, .conflist, .json"),
        ("a.conflist", OURS, "must hold a list of 'plugins': give the file the suffix .conf"),
        ("a.conf", LISTED, "only read from a .conflist: give the file that suffix"),
        ("a.conf", [], "expected a JSON object, found a list"),
        ("a.conf", {**OURS, "name": "a b"}, "libcni sets up no pod"),
        ("a.conf", {**OURS, "cniVersion": "1.0"}, "is none of 0.1.0"),
        ("a.conf", {**OURS, "dns": 5}, "'dns' is a number, expected an object: libcni does not load it"),
        ("a.conf", {**OURS, "LogLevel": 5}, "'LogLevel' is a number, expected a string: Multus refuses it"),
        ("a.conflist", {**LISTED, "disableGC": "x"}, "'disableGC' is \"x\""),
        ("a.conf", {"name": "n", "type": "bridge"}, "it runs 'bridge' and not Multus"),
        ("a.conf", {**OURS, "type": "multus-shim"}, "'multus-shim' and not the 'multus' of the thin plugin"),
    ],
)
def test_what_keeps_the_runtime_from_using_multus_is_named(name, document, why):
    assert why in runtime.fault(name, json.dumps(document).encode())


def test_what_is_no_json_is_named():
    assert "line 1 column 2" in runtime.fault("a.conf", b"{")
