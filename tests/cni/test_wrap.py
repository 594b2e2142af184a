import copy
import json

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from entrypoint.cni import wrap
from entrypoint.cni.document import MAX_DEPTH, MULTUS, MULTUS_TYPES, Master, equal, examine, field, parse
from tests.cni import wrapping
from tests.flags import DATA, MASTERS, settings_for

numbers = st.integers(-(10**60), 10**60) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec=None) | st.sampled_from('</script>"\\\u2028\ud800{{}}{%%}'), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=25,
)
versions = st.sampled_from([None, "0.1.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])


names = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}", fullmatch=True)
kinds = names.filter(lambda name: name not in MULTUS_TYPES)


@st.composite
def masters(draw):
    """A configuration as its owner may write it, with anything under keys that neither libcni nor Multus decodes."""
    others = texts.filter(lambda key: field({**MULTUS, "plugins": [], "cniVersions": []}, key) is None)
    document = draw(st.dictionaries(others, values, max_size=5))
    document["name"] = draw(names)
    plugin = {**draw(st.dictionaries(others, values, max_size=3)), "type": draw(kinds)}
    if draw(st.booleans()):
        document["plugins"] = [plugin, {"type": "portmap", "capabilities": {"portMappings": True}}]
    else:
        document["type"] = plugin["type"]
    version = draw(versions)
    if version:
        document["cniVersion"] = version
    keys = draw(st.permutations(list(document)))
    return {key: document[key] for key in keys}


def examined(document):
    verdict = examine(json.dumps(document).encode())
    assert isinstance(verdict, Master)
    return verdict


def wrapped(settings, master):
    return wrap.multus_configuration(master, wrapping(settings, {}))


def plugin_of(configuration):
    return configuration["plugins"][0] if "plugins" in configuration else configuration


@given(masters())
def test_the_delegate_is_the_master_with_its_keys_in_order(tmp_path_factory, document):
    master = examined(document)
    name, content = wrapped(settings_for(tmp_path_factory.getbasetemp()), master)
    configuration = json.loads(content)
    (delegate,) = plugin_of(configuration)["delegates"]
    if "cniVersion" not in document:
        assert delegate.pop("cniVersion") == configuration["cniVersion"] == "0.1.0"
    assert equal(delegate, document)
    assert list(delegate) == [*parse(json.dumps(document).encode())]
    assert name == ("00-multus.conflist" if configuration["cniVersion"].startswith("1") else "00-multus.conf")


@given(masters(), texts, texts)
def test_rendering_always_yields_what_can_be_parsed(tmp_path_factory, document, namespaces, path):
    assume(namespaces.isprintable() and path.isprintable())
    flags = [f"--global-namespaces={namespaces}", f"--multus-log-file=/log{path}", "--override-network-name"]
    settings = settings_for(tmp_path_factory.getbasetemp(), *flags)
    configuration = parse(wrapped(settings, examined(document))[1])
    assert configuration["name"] == document["name"]
    assert plugin_of(configuration).get("globalNamespaces", "") == namespaces
    assert plugin_of(configuration)["logFile"] == f"/log{path}"


def test_the_deepest_usable_master_can_be_wrapped(tmp_path):
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    master = examine(b'{"cniVersion": "0.3.1", "name": "n", "type": "t", "x": %s}' % nested.encode())
    assert isinstance(master, Master)
    content = wrapped(settings_for(tmp_path), master)[1]
    assert json.loads(content)["delegates"] == [master.document]


def test_a_master_without_a_version_gets_the_one_chosen(tmp_path):
    master = examine((MASTERS / "10-aws-no-cniversion.conflist").read_bytes())
    assert isinstance(master, Master)
    for flag, version in (("", "0.1.0"), ("0.3.1", "0.3.1"), ("1.0.0", "1.0.0")):
        settings = settings_for(tmp_path, f"--cni-version={flag}")
        configuration = json.loads(wrapped(settings, master)[1])
        (delegate,) = plugin_of(configuration)["delegates"]
        assert configuration["cniVersion"] == delegate["cniVersion"] == version
        assert {**delegate, "cniVersion": None} == {**master.document, "cniVersion": None}


def test_an_empty_version_in_the_master_is_filled_in_where_it_stands(tmp_path):
    master = examined({"name": "n", "cniVersion": "", "type": "t"})
    (delegate,) = json.loads(wrapped(settings_for(tmp_path), master)[1])["delegates"]
    assert list(delegate.items()) == [("name", "n"), ("cniVersion", "0.1.0"), ("type", "t")]


@pytest.mark.parametrize(("asked", "has"), [("0.4.0", "0.3.1"), ("1.0.0", "0.3.1"), ("1.1.0", "0.2.0")])
def test_a_version_that_calls_check_cannot_wrap_an_older_master_unless_forced(tmp_path, asked, has):
    master = examined({"name": "n", "cniVersion": has, "type": "t"})
    with pytest.raises(wrap.CannotWrapError, match=f"--cni-version={asked} .* {has}"):
        wrapped(settings_for(tmp_path, f"--cni-version={asked}"), master)
    forced = settings_for(tmp_path, f"--cni-version={asked}", "--force-cni-version")
    configuration = json.loads(wrapped(forced, master)[1])
    assert plugin_of(configuration)["delegates"][0]["cniVersion"] == asked


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), st.binary(min_size=1))
def test_the_kubeconfig_is_yaml_with_what_was_put_in(token, authority):
    import base64

    document = yaml.safe_load(wrap.kubeconfig("https://[fd00::1]:443", token, authority))
    (cluster,), (user,) = document["clusters"], document["users"]
    assert cluster["cluster"]["server"] == "https://[fd00::1]:443"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == authority
    assert "insecure-skip-tls-verify" not in cluster["cluster"]
    assert user["user"] == {"token": token}
    (context,) = document["contexts"]
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"]}
    assert document["current-context"] == context["name"]


def test_without_a_certificate_authority_the_kubeconfig_does_not_verify():
    (cluster,) = yaml.safe_load(wrap.kubeconfig("https://x:1", "t", None))["clusters"]
    assert cluster["cluster"] == {"server": "https://x:1", "insecure-skip-tls-verify": True}


@pytest.mark.parametrize(("written", "copied"), [("True", True), ("false", False), (True, True), (False, False)])
def test_the_switches_of_a_list_survive_as_multus_reads_them(tmp_path, written, copied):
    keys = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")
    document = {"cniVersion": "1.0.0", "name": "n", **dict.fromkeys(keys, written), "plugins": [{"type": "t"}]}
    configuration = json.loads(wrapped(settings_for(tmp_path), examined(document))[1])
    (delegate,) = plugin_of(configuration)["delegates"]
    assert delegate == {**document, **dict.fromkeys(keys[:2], copied)}  # Multus does not decode the third
    # The runtime asks our list, too, before it takes what it does not know for garbage.
    assert configuration.get("disableGC") == (copied or None)
    assert "disableCheck" not in configuration


@pytest.mark.parametrize(("flags", "carried"), [((), None), (("--override-network-name",), True)])
def test_a_list_with_the_name_of_the_master_loads_no_more_plugins_than_that(tmp_path, flags, carried):
    document = {"cniVersion": "1.0.0", "name": "n", "loadOnlyInlinedPlugins": True, "plugins": [{"type": "t"}]}
    configuration = json.loads(wrapped(settings_for(tmp_path, *flags), examined(document))[1])
    assert configuration.get("loadOnlyInlinedPlugins") == carried


def test_a_forced_version_is_the_only_one_in_the_copy():
    document = {"name": "n", "cniVersions": ["1.1.0"], "cniversion": "0.4", "plugins": [{"type": "t"}]}
    master = examine(json.dumps(document).encode(), any_version=True)
    content = wrap.multus_configuration(master, wrap.Wrapping(cni_version="0.4.0", force_cni_version=True))[1]
    assert json.loads(content)["delegates"] == [{"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "t"}]}]


# ---- the patch: every example of RFC 7386, and what `--multus-conf-patch` needs beside them ----

EXAMPLES = json.loads((DATA / "merge-patch.json").read_text())


@pytest.mark.parametrize(
    ("target", "patch", "result"), [each[1:] for each in EXAMPLES], ids=[each[0] for each in EXAMPLES]
)
def test_the_examples_of_the_rfc_and_that_neither_target_nor_patch_is_changed(target, patch, result):
    before = copy.deepcopy((target, patch))
    assert wrap.merged(target, patch) == result
    assert (target, patch) == before


def test_true_and_one_are_two_values():
    assert wrap.merged({"compress": True}, {"compress": 1})["compress"] is not True


def test_what_was_there_keeps_its_place_and_what_is_new_comes_last():
    assert list(wrap.merged({"a": 1, "b": 2, "c": 3}, {"d": 4, "b": 5, "a": None})) == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[]", "expected a JSON object"),
        (b'{"x": ', "not JSON"),
        (b'{"x": NaN}', "no JSON number"),
        (b'{"type": "x", "name": null}', "type, name: what this program decides itself"),
        (b'{"delegates": []}', "delegates"),
        (b'{"Type": "x", "CNIVERSION": "1.0.0"}', "Type, CNIVERSION: what this program"),  # Go ignores the case
        (b'{"cniVersion": "1.0.0"}', "cniVersion"),
        (b'{"x": "__NODE_NAME__"}', "needs the environment variable NODE_NAME"),
        ('{"cniVer\u017fion": "1.0.0"}'.encode(), "cniVer\u017fion: what this program"),
        (b'{"AuxiliaryCNIChainName": "vendor"}', "every pod fails with it"),
        (b'{"auxiliaryCNIChainName": "vendor", "clusterNetwork": "name"}', "every pod fails with it"),
        (b'{"binDir": 7}', "'binDir' is a number, expected a string: Multus"),
        (b'{"BINDIR": 7}', "'binDir' is a number, expected a string: Multus"),
        (b'{"logOptions": {"maxSize": 1.5}}', "'logOptions.maxSize' is 1.5, expected a whole number"),
        (b'{"systemNamespaces": ["a", 5]}', r"'systemNamespaces\[1\]' is a number, expected a string"),
        (b'{"prevResult": {}}', "prevResult: .* comes from the runtime"),
        (b'{"cniDir": ""}', "cniDir is empty"),
        (b'{"x": ' + b"[" * 500 + b"]" * 500 + b"}", "nested more than"),
    ],
)
def test_a_patch_that_cannot_be_applied_says_why(content, why):
    with pytest.raises(wrap.InvalidPatchError, match=why):
        wrap.read_patch(content, None)


@pytest.mark.parametrize(
    "content",
    [b'["' + b'__NODE_NAME__","' * 10_000 + b'"]', b'["' + "\u00e9".encode() * 60_000 + b'"]'],
    ids=["names of nodes", "escapes"],
)
def test_a_patch_that_grows_too_large_when_it_is_filled_in_and_written_is_refused(content):
    """The configuration would be larger than what is read back, and would be written for ever."""
    assert len(content) < 256 << 10
    with pytest.raises(wrap.InvalidPatchError, match="262144 are the most"):
        wrap.read_patch(b'{"x": ' + content + b"}", "n" * 200)


def test_the_name_of_the_node_is_filled_in_wherever_it_stands_in_a_value():
    content = b'{"logFile": "/var/log/__NODE_NAME__.log", "x": {"y": ["__NODE_NAME__", 1, null]}}'
    assert wrap.read_patch(content, "node-1") == {"logFile": "/var/log/node-1.log", "x": {"y": ["node-1", 1, None]}}


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b'{"__NODE_NAME__": []}', "delegates", "delegates: what this program decides itself"),
        (b'{"__NODE_NAME__": 7}', "kubeconfig", "'kubeconfig' is a number"),
    ],
)
def test_a_patch_is_judged_as_it_is_once_it_is_filled_in(content, name, why):
    with pytest.raises(wrap.InvalidPatchError, match=why):
        wrap.read_patch(content, name)


@pytest.mark.parametrize(
    ("content", "patch"),
    [
        (b'{"KubeConfig": "/x", "LOGOPTIONS": {"maxSize": 1e2}}', {"kubeconfig": "/x", "logOptions": {"maxSize": 100}}),
        (b'{"kubeconfig": "/a", "KUBECONFIG": "/b"}', {"kubeconfig": "/b"}),
        (b'{"ReadinessIndicatorFile": null, "Else": 1}', {"readinessindicatorfile": None, "Else": 1}),
        (b'{"auxiliaryCNIChainName": ""}', {"auxiliaryCNIChainName": ""}),
        (b'{"auxiliaryCNIChainName": "v", "clusterNetwork": "/etc/x"}', None),
    ],
)
def test_a_key_of_a_patch_gets_the_letters_that_multus_uses(content, patch):
    assert wrap.read_patch(content, None) == (json.loads(content) if patch is None else patch)
