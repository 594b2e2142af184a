"""The ValidatingAdmissionPolicy as a document; tests/e2e/35-policy.sh tries it on a real API server."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml

from tests.manifests import DEPLOYMENTS, charted, only, parse

POLICY = DEPLOYMENTS / "multus-policy.yml"
KINDS = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]


def plain():
    return parse(POLICY.read_text())


def in_chart(**values):
    return [document for document in charted(values) if document["kind"] in KINDS]


def test_both_objects_fit_the_schema_of_the_first_release_that_has_them_and_of_the_current_one():
    assert [document["kind"] for document in plain()] == KINDS
    for release in ("1.30", "1.37"):
        for document in plain():
            kubernetes_validate.validate(document, release, strict=True)


def test_the_binding_denies_what_the_policy_refuses_and_a_broken_expression_admits_nothing():
    policy, binding = plain()
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    assert policy["spec"]["failurePolicy"] == "Fail"


def test_it_is_for_the_accounts_of_the_manifests_and_for_nobody_else():
    (condition,) = only(plain(), KINDS[0])["spec"]["matchConditions"]
    accounts = set()
    for manifest in ("multus-daemonset.yml", "multus-uninstall.yml"):
        account = only(parse((DEPLOYMENTS / manifest).read_text()), "ServiceAccount")["metadata"]
        accounts.add(f"system:serviceaccount:{account['namespace']}:{account['name']}")
    accounts.add("system:serviceaccount:kube-system:multus-errands")
    assert condition["expression"].startswith("request.userInfo.username in [")
    assert set(re.findall(r"'([^']+)'", condition["expression"])) == accounts


def test_every_write_that_the_roles_allow_is_looked_at_but_for_events():
    """Also with what the manifest has off: a right that is added goes through the policy."""
    text = re.sub(r"^#(?=  +\S)", "", (DEPLOYMENTS / "multus-daemonset.yml").read_text(), flags=re.MULTILINE)
    written = {
        resource
        for rule in only(parse(text), "ClusterRole")["rules"]
        if set(rule["verbs"]) - {"get", "list"}
        for resource in rule["resources"]
    }
    (rule,) = only(plain(), KINDS[0])["spec"]["matchConstraints"]["resourceRules"]
    assert written == {"pods/status", "pods/eviction", "nodes", "events"}
    assert rule["resources"] == ["pods", "pods/*", "nodes", "nodes/*"]
    assert (rule["operations"], rule["apiVersions"]) == (["*"], ["*"])


def test_the_taint_that_may_be_removed_is_the_one_of_the_manifest():
    (taint,) = re.findall(r"--startup-taint=([^:]+):", (DEPLOYMENTS / "multus-daemonset.yml").read_text())
    assert f"old.key == '{taint}'" in POLICY.read_text()
    policy = only(in_chart(flags={"startup-taint": "example.com/cold:NoExecute"}), KINDS[0])
    assert "old.key == 'example.com/cold'" in str(policy)
    assert taint not in str(policy)


@pytest.mark.process
def test_the_chart_has_the_same_policy():
    assert in_chart() == plain()


@pytest.mark.process
@pytest.mark.parametrize(("wanted", "made"), [(False, []), (True, KINDS), (None, KINDS)])
def test_the_chart_makes_it_as_its_value_says(wanted, made):
    assert [document["kind"] for document in in_chart(admissionPolicy=wanted)] == made


def test_the_chart_asks_which_release_the_cluster_is_before_it_makes_it():
    """The engine that renders here has one version of Kubernetes and no other."""
    helpers = (DEPLOYMENTS / "helm/multus-entrypoint/templates/_helpers.tpl").read_text()
    assert 'semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version' in helpers


def test_the_component_has_a_copy_of_it():
    copy = DEPLOYMENTS / "components/policy" / POLICY.name
    assert copy.read_text() == POLICY.read_text(), "run `make manifests`"


def test_the_plain_manifest_has_none_so_that_older_clusters_take_it():
    text = (DEPLOYMENTS / "multus-daemonset.yml").read_text()
    assert not [document for document in yaml.safe_load_all(text) if document["kind"] in KINDS]
    assert "kubectl apply -f multus-policy.yml" in text
