"""What real libcni 1.3.0 and Multus 4.3.0 said of 271 masters, flags and patches (docs/architecture.md says how)."""

import base64
import json

import click
import pytest

from entrypoint.cni.document import META_PLUGINS, Master, equal, examine, parse
from entrypoint.cni.wrap import CannotWrapError, InvalidPatchError, multus_configuration, read_patch
from entrypoint.settings import InvalidSettingError
from tests.cni import wrapping
from tests.flags import DATA, settings_for

CASES = json.loads((DATA / "acceptance.json").read_text())
OTHERWISE = {
    **dict.fromkeys(("switch-text-02", "switch-text-04", "switch-text-05", "switch-text-09"), "false is written out"),
    **dict.fromkeys(("version-case-01", "version-case-03"), "of two spellings the one that libcni reads is given"),
    **dict.fromkeys(("version-case-04", "name-twice-01"), "of two spellings another one is left out"),
    **dict.fromkeys(("control-patch-01", "control-patch-04"), "a patch's key gets the letters that Multus uses"),
}
"""Where our configuration is not the one in the file, which is one of several that both accept: they took these too."""


def written(case, directory):
    """Return the configuration that the program would write, its name first; a string says why none."""
    try:
        settings = settings_for(directory, *case["flags"])
        patch = read_patch(settings.conf_patch, None) if settings.conf_patch else {}
    except (click.UsageError, InvalidSettingError, InvalidPatchError) as error:
        return str(error)
    master = examine(base64.b64decode(case["content_base64"]), case["file"], any_version=settings.takes_any_version)
    if not isinstance(master, Master):
        return getattr(master, "reason", "Multus")
    if master.first_plugin in META_PLUGINS:
        return "no network by itself"
    try:
        return multus_configuration(master, wrapping(settings, patch))
    except CannotWrapError as error:
        return str(error)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_what_both_accept_is_wrapped_and_nothing_else(case, tmp_path):
    found = written(case, tmp_path)
    assert isinstance(found, str) == (case["expected"] == "refused"), (case["reason"], found)
    if isinstance(found, str):
        return
    name, content = found
    document, accepted, read = parse(content), case["accepted_document"], case["as_go_reads"]
    assert name == case["accepted_file"]
    assert equal(document, accepted) or case["id"] in OTHERWISE, (document, accepted)
    plugin = document.get("plugins", [document])[0]
    assert sorted(plugin.get("capabilities", {})) == sorted(read["capabilities"])
    delegate = examine(json.dumps(plugin["delegates"][0]).encode())
    assert (delegate.name, list(delegate.types), sorted(delegate.capabilities)) == (
        read["name"],
        read["plugins"],
        sorted(read["capabilities"]),
    )
    if not case["flags"] and read["cniVersion"]:
        assert document["cniVersion"] == delegate.cni_version == read["cniVersion"]
