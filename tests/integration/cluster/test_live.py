"""Real nodes take over a changed configuration file without a restart."""

from __future__ import annotations

import json
import os

from integration.cluster.harness import HOST, Cluster, Node, wait_until


def rewrite(node: Node, section: str, field: str, value: object) -> None:
    """Replace the file at once, as the kubelet does."""
    config = dict(node.config)
    config[section] = config.get(section, {}) | {field: value}
    node.config = config
    new = node.home / "config.new"
    new.write_text(json.dumps(config))
    os.replace(new, node.home / "config.json")


def test_nodes_that_do_not_know_each_other_meet_once_their_files_say_where() -> None:
    lost = f"{HOST}:9"
    cluster = Cluster(1, 1)
    try:
        right = cluster.nodes[0].config["peers"]["addresses"]
        cluster.nodes[0].config["peers"] = {"addresses": [right[0]]}
        cluster.nodes[1].config["peers"] = {"addresses": [lost, right[1]]}
        cluster.start()
        pids = [node.pid for node in cluster.nodes]
        request = cluster.found_request(cluster.founders())
        assert cluster.nodes[0].admin("POST", "/v1/admin/found", request).status == 200
        assert cluster.nodes[1].admin("GET", "/v1/admin/identity").json["founded"] is False
        rewrite(cluster.nodes[0], "peers", "addresses", right)
        cluster.form()
        cluster.wait_serving()
        assert [node.pid for node in cluster.nodes] == pids

        rewrite(cluster.nodes[0], "repair", "rate", "1 MiB")
        rewrite(cluster.nodes[1], "logging", "level", "debug")
        wait_until(
            lambda: "repair.rate taken over" in cluster.nodes[0].log_text(), "the rate to be taken"
        )
        health = cluster.nodes[0].status()["health"]
        assert health["background_rate_max"] == 1024 * 1024
        assert health["background_rate"] <= 1024 * 1024
        wait_until(lambda: "logging.level taken over" in cluster.nodes[1].log_text(), "the level")
        assert cluster.nodes[0].redis().set("key", "value")
        assert cluster.nodes[1].redis().get("key") == b"value"
    finally:
        cluster.__exit__()
