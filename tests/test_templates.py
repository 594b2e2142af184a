"""The templates, and what is compiled from them for the nodes."""

import importlib.util
import json
import subprocess
import sys

import jinja2
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from entrypoint import compiled
from tests.manifests import ROOT

TOOL = ROOT / "tools/compile_templates.py"
tool_spec = importlib.util.spec_from_file_location("compile_templates", TOOL)
tool = importlib.util.module_from_spec(tool_spec)
tool_spec.loader.exec_module(tool)

texts = st.text() | st.sampled_from(["{{ x }}", "{% raw %}", '"', "\\", "\n", "\ud800", "</script>"])
pairs = st.lists(
    st.tuples(texts, st.booleans() | texts | st.dictionaries(texts, st.booleans(), max_size=2)), max_size=4
)
documents = st.fixed_dictionaries(
    {"name": texts, "plugins": st.lists(st.dictionaries(texts, texts, max_size=3), max_size=3)}
)
VALUES = {
    "kubeconfig": st.fixed_dictionaries({"server": texts, "token": texts, "certificate_authority": st.none() | texts}),
    "multus.conf": (
        configurations := st.fixed_dictionaries(
            {"cni_version": texts, "name": texts, "plugin": pairs, "master": documents}
        )
    ),
    "multus.conflist": configurations,
}


def rendered_by_jinja(source, values):
    environment = tool.environment()
    environment.filters["json"] = json_filter
    return environment.from_string(source).render(values)


def json_filter(value, indent=None):
    return json.dumps(value, indent=indent)


def test_the_compiled_templates_are_those_of_the_templates_beside_them():
    subprocess.run([sys.executable, TOOL, "--check"], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", sorted(path.stem for path in tool.TEMPLATES.glob("*.j2")))
@given(data=st.data())
def test_a_compiled_template_yields_what_jinja_makes_of_it(name, data):
    values = data.draw(VALUES[name])
    function = getattr(compiled, name.replace(".", "_"))
    assert "".join(function(json_filter, **values)) == rendered_by_jinja(
        (tool.TEMPLATES / f"{name}.j2").read_text(), values
    )


def test_a_value_that_is_missing_or_unknown_is_an_error():
    values = {"server": "s", "token": "t", "certificate_authority": None}
    with pytest.raises(TypeError):
        list(compiled.kubeconfig(json_filter, **{name: value for name, value in values.items() if name != "token"}))
    with pytest.raises(TypeError):
        list(compiled.kubeconfig(json_filter, **values, tokens="t"))


@pytest.mark.parametrize(
    "template",
    [
        "{{ value }}",  # would stand there unquoted
        "{{ value.name | json }}",
        "{{ value | upper }}",
        "{{ value | json | upper }}",
        "{% if value %}x{% endif %}",
        "{% if value is none %}x{% elif other is none %}y{% endif %}",
        "{% for each in values %}{{ each | json }}{% endfor %}",
        "{% for a, b in values if a is none %}x{% endfor %}",
        "{% for a, b in values %}x{% else %}y{% endfor %}",
        "{% include 'other' %}",
        "{% set a = 1 %}",
    ],
)
def test_what_is_not_compiled_is_refused(template):
    with pytest.raises((tool.UnsupportedError, jinja2.TemplateError)):
        tool.function("some", template)


@given(texts, texts)
def test_the_text_of_a_template_survives_being_written_as_python(before, after):
    assume("{" not in before + after)
    source = f"{before}{{{{ value | json }}}}{after}"
    scope = {"Json": object, "Any": object, "Iterator": list}
    exec(tool.function("some", source), scope)
    assert "".join(scope["some"](json_filter, value=[1])) == rendered_by_jinja(source, {"value": [1]})
