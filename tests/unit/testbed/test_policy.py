"""NetworkPolicy objects become the rules that they mean."""

from __future__ import annotations

import random
from typing import Any

import pytest
from testbed.agents.policy import Pod, Verdicts, compile_policies, directions, read_pod
from testbed.agents.ruleset import render
from testbed.agents.selectors import matches
from testbed.manifests import policy

SOURCE, DESTINATION = "ct original ip saddr", "ct reply ip saddr"

WEB = Pod("shop", "node1", "10.244.1.2", {"app": "web"}, (("http", "TCP", 8080),))
DB = Pod("shop", "node2", "10.244.2.2", {"app": "db"}, (("http", "TCP", 9090),))
SPY = Pod("other", "node2", "10.244.2.3", {"app": "web"})
NAMESPACES = {"shop": {"team": "red"}, "other": {"team": "blue"}}


def verdicts(*policies: dict[str, Any]) -> dict[str, Verdicts]:
    for each in policies:
        each["metadata"]["namespace"] = "shop"
    return compile_policies([WEB, DB, SPY], NAMESPACES, list(policies))


def ingress_of_db(*rules: Any) -> tuple[str, ...]:
    return verdicts(policy("p", "db", ingress=list(rules)))["node2"].ingress[DB.ip]


def test_without_a_policy_every_pod_is_known_and_free() -> None:
    found = verdicts()
    assert found["node2"] == Verdicts(frozenset({DB.ip, SPY.ip}), {}, {})


def test_a_policy_isolates_only_what_it_selects_and_only_in_its_directions() -> None:
    found = verdicts(policy("p", "db", ingress=[]))
    assert found["node2"].ingress == {DB.ip: ()}
    assert found["node2"].egress == {}
    assert found["node1"] == Verdicts(frozenset({WEB.ip}), {}, {})


def test_a_pod_selector_stays_within_the_namespace() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    assert ingress_of_db(rule) == (f"{SOURCE} {{ {WEB.ip} }}",)


def test_a_namespace_selector_alone_means_all_pods_there() -> None:
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}
    assert ingress_of_db(rule) == (f"{SOURCE} {{ {SPY.ip} }}",)


def test_both_selectors_in_one_peer_must_hold() -> None:
    peer = {
        "namespaceSelector": {"matchLabels": {"team": "blue"}},
        "podSelector": {"matchLabels": {"app": "db"}},
    }
    assert ingress_of_db({"from": [peer]}) == ()


def test_an_empty_list_of_peers_is_everyone_and_no_match_is_no_one() -> None:
    assert ingress_of_db({}) == ("",)
    assert ingress_of_db({"from": [{"podSelector": {"matchLabels": {"app": "none"}}}]}) == ()


def test_an_address_block_has_holes() -> None:
    block = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}
    wanted = f"{SOURCE} 10.0.0.0/8 {SOURCE} != {{ 10.1.0.0/16, 10.2.0.0/16 }}"
    assert ingress_of_db({"from": [{"ipBlock": block}]}) == (wanted,)


@pytest.mark.parametrize(
    ("port", "wanted"),
    [
        ({"port": 80}, "meta l4proto tcp ct reply proto-src 80"),
        ({"port": 80, "protocol": "UDP"}, "meta l4proto udp ct reply proto-src 80"),
        ({"port": 80, "endPort": 90}, "meta l4proto tcp ct reply proto-src 80-90"),
        ({"protocol": "UDP"}, "meta l4proto udp"),
        ({"port": "http"}, "meta l4proto tcp ct reply proto-src 9090"),
    ],
)
def test_ports(port: dict[str, Any], wanted: str) -> None:
    assert ingress_of_db({"ports": [port]}) == (wanted,)


def test_a_named_port_that_the_pod_lacks_admits_nobody() -> None:
    assert ingress_of_db({"ports": [{"port": "metrics"}]}) == ()


def test_a_named_port_of_egress_is_looked_up_in_each_destination() -> None:
    found = verdicts(policy("p", "web", egress=[{"ports": [{"port": "http"}]}]))
    prefix = "meta l4proto tcp ct reply proto-src"
    assert found["node1"].egress[WEB.ip] == (
        f"{prefix} 8080 {DESTINATION} {WEB.ip}",
        f"{prefix} 9090 {DESTINATION} {DB.ip}",
    )


def test_policies_add_up() -> None:
    first = policy("a", "db", ingress=[{"ports": [{"port": 1}]}])
    second = policy("b", "db", ingress=[{"ports": [{"port": 2}]}])
    rules = verdicts(first, second)["node2"].ingress[DB.ip]
    assert [rule.split()[-1] for rule in rules] == ["1", "2"]


def test_the_order_of_objects_does_not_matter() -> None:
    policies = [policy(name, "db", ingress=[{"ports": [{"port": 1}]}]) for name in "abcdef"]
    pods = [WEB, DB, SPY]
    for each in policies:
        each["metadata"]["namespace"] = "shop"
    first = compile_policies(pods, NAMESPACES, policies)
    generator = random.Random(1)
    generator.shuffle(policies)
    generator.shuffle(pods)
    assert compile_policies(pods, NAMESPACES, policies) == first


def test_policy_types_are_guessed_as_the_api_server_does() -> None:
    assert directions({"spec": {}}) == {"ingress"}
    assert directions({"spec": {"egress": []}}) == {"ingress", "egress"}
    assert directions({"spec": {"policyTypes": ["Egress"]}}) == {"egress"}


def item(**status: Any) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": "web", "uid": "1", "labels": {"app": "web"}}
    return {"metadata": meta, "spec": {"nodeName": "node1"}, "status": status}


def test_what_was_announced_is_newer_than_the_status() -> None:
    found = read_pod(item(podIP="10.244.1.9"), "10.244.1.2")
    assert found is not None
    assert found.ip == "10.244.1.2"


def test_pods_without_an_address_of_their_own_are_left_out() -> None:
    assert read_pod(item(), None) is None
    assert read_pod(item(podIP="10.244.1.9", phase="Succeeded"), None) is None
    on_host = item(podIP="10.240.0.1")
    on_host["spec"]["hostNetwork"] = True
    assert read_pod(on_host, None) is None


def test_a_node_drops_what_it_does_not_know() -> None:
    text = render(Verdicts(), "10.244.1.0/24")
    for side in (SOURCE, DESTINATION):
        assert f"{side} 10.244.1.0/24 {side} != {{ 10.244.1.1 }} counter drop" in text
    known = render(Verdicts(frozenset({WEB.ip})), "10.244.1.0/24")
    assert f"!= {{ 10.244.1.1, {WEB.ip} }}" in known


def test_nothing_passes_for_being_established() -> None:
    text = render(verdicts(policy("p", "db", ingress=[]))["node2"], "10.244.2.0/24")
    assert "established" not in text
    assert f"{DESTINATION} vmap {{ {DB.ip} : jump c" in text


@pytest.mark.parametrize(
    ("expression", "labels", "wanted"),
    [
        ({"operator": "In", "values": ["a"]}, {"k": "a"}, True),
        ({"operator": "In", "values": ["a"]}, {}, False),
        ({"operator": "NotIn", "values": ["a"]}, {}, True),
        ({"operator": "NotIn", "values": ["a"]}, {"k": "a"}, False),
        ({"operator": "Exists"}, {"k": ""}, True),
        ({"operator": "Exists"}, {}, False),
        ({"operator": "DoesNotExist"}, {}, True),
        ({"operator": "DoesNotExist"}, {"k": ""}, False),
    ],
)
def test_selectors(expression: dict[str, Any], labels: dict[str, str], wanted: bool) -> None:
    assert matches({"matchExpressions": [{"key": "k", **expression}]}, labels) is wanted
