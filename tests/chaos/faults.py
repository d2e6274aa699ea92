"""All faults by name. A seed draws from this table.

A fault names the members that it takes away; the promise covers it while those of all faults at
once are at most f.
"""

from __future__ import annotations

from chaos import faults_control as control
from chaos import faults_disks as disks
from chaos import faults_network as network
from chaos import faults_nodes as nodes
from chaos import faults_pods as pods
from chaos.plan import Draw

TABLE: dict[str, Draw] = {
    "isolate-one": network.isolate_one,
    "minority-leader": network.minority_leader,
    "majority-leader": network.majority_leader,
    "split": network.split,
    "one-way": network.one_way,
    "isolate-gateways": network.isolate_gateways,
    "isolate-operator": control.isolate_operator,
    "delete-pod": pods.delete_pod,
    "force-delete-pod": pods.force_delete_pod,
    "kill-9": pods.kill,
    "freeze": pods.freeze,
    "node-stop": nodes.node_stop,
    "node-partition": nodes.node_partition,
    "node-freeze": nodes.node_freeze,
    "drain": nodes.drain,
    "cordon": nodes.cordon,
    "claim-deleted": disks.claim_deleted,
    "disk-gone": disks.disk_gone,
    "disk-full": disks.disk_full,
    "disk-slow": disks.disk_slow,
    "api-outage": control.api_outage,
    "etcd-outage": control.etcd_outage,
    "operator-killed": control.operator_killed,
    "image-roll": control.image_roll,
}
