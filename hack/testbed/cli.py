"""The command line of the test bed: `hack/kube`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.choose import PROVIDERS, choose, make
from testbed.errors import LabError
from testbed.paths import cluster_root
from testbed.progress import Progress
from testbed.provider import CONTROL_DAEMONS, NODE_VERBS, Provider

DESCRIPTION = """\
A real Kubernetes of several nodes to test on.

  hack/kube up                    six worker nodes in three zones
  hack/kube kubectl get nodes     any kubectl command
  export KUBECONFIG=$(hack/kube kubeconfig)      for helm, k9s and programs of your own
  hack/kube down                  leaves nothing behind
"""

UP = """\
Providers:
  kind        nodes are containers; needs Docker or Podman, and the programs kind and kubectl
  namespaces  nodes are Linux namespaces of this machine; needs root, Debian's packages (installed
              when missing) and, the first time, Go and about ten minutes to build Kubernetes
  current     whatever cluster KUBECONFIG points at, if DISTKV_TESTBED_CONTEXTS names its context
  auto        kind if a container daemon answers, else namespaces if you are root

An interrupted `up` can be repeated; on a cluster that is up already it changes nothing.
"""

NODE = """\
  stop       power off at once: every process of the node is gone, its disk stays
             (with --wipe its disk is gone too: volumes, images, everything)
  start      power on a stopped node, with what its disk still holds
  freeze     every process stops where it is, and answers nothing
  partition  the node's link loses every packet, in both directions
  heal       undoes freeze and partition
"""


def cluster_name() -> str:
    """Of the cluster that is meant where none is named."""
    return os.environ.get("DISTKV_TESTBED_NAME", "distkv")


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("hack/kube", description=DESCRIPTION, formatter_class=raw)
    top.add_argument(
        "--name",
        default=cluster_name(),
        help="which cluster, if there are several (default: $DISTKV_TESTBED_NAME or distkv)",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start a cluster", description=UP, formatter_class=raw)
    up.add_argument("--nodes", type=int, default=6, help="worker nodes (default: 6)")
    up.add_argument("--provider", choices=("auto", *PROVIDERS), default="auto")
    verbs.add_parser("down", help="end the cluster and remove all that it left")
    verbs.add_parser("status", help="what runs, and where")
    verbs.add_parser("kubeconfig", help="print the path of the kubeconfig file")
    image = verbs.add_parser("load-image", help="make an image known to every node")
    image.add_argument("archive", type=Path, help="an OCI or Docker archive, as hack/image writes")
    verbs.add_parser("kubectl", help="run kubectl on the cluster, with all that follows")
    verbs.add_parser("helm", help="run helm on the cluster, with all that follows")
    node = verbs.add_parser(
        "node", help="take a node away, bring it back", description=NODE, formatter_class=raw
    )
    node.add_argument("action", choices=NODE_VERBS)
    node.add_argument("node", metavar="NAME", help="as in `hack/kube kubectl get nodes`")
    node.add_argument("--wipe", action="store_true", help="with stop: the disk is lost as well")
    control = verbs.add_parser("control", help="an outage of the control plane, and its end")
    control.add_argument("action", choices=("freeze", "heal"))
    control.add_argument("daemon", choices=CONTROL_DAEMONS)
    logs = verbs.add_parser("logs", help="what the daemons of the cluster say")
    logs.add_argument("what", nargs="?", help="a node, a daemon, or NODE/DAEMON (default: all)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as more is said")
    return top


def split_foreign(words: list[str]) -> tuple[list[str], list[str]]:
    """Ours, and what belongs to kubectl or helm: options after those are not ours to understand."""
    verb = 0
    while verb < len(words) and words[verb].startswith("-"):
        verb += 2 if words[verb] == "--name" else 1
    if words[verb : verb + 1] in (["kubectl"], ["helm"]):
        return words[: verb + 1], words[verb + 1 :]
    return words, []


def main(arguments: Sequence[str] | None = None) -> int:
    words, rest = split_foreign(list(sys.argv[1:] if arguments is None else arguments))
    options = parser().parse_args(words)
    options.arguments = rest
    try:
        code = _carry_out(options)
        sys.stdout.flush()
        return code
    except LabError as error:
        print(f"hack/kube: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough, as in `hack/kube status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("hack/kube: interrupted; the same command can be given again", file=sys.stderr)
        return 130


def _carry_out(options: argparse.Namespace) -> int:
    progress = Progress()
    if options.verb == "up":
        provider = choose(options.provider, options.name, recorded_provider(options.name), progress)
        _record(options.name, provider.name)
        provider.up(options.nodes)
        progress.step(f"export KUBECONFIG={provider.kubeconfig()}")
        return 0
    recorded = recorded_provider(options.name)
    if recorded is None:
        if options.verb in ("down", "status"):
            print("no cluster is up")
            return 0
        raise LabError("no cluster is up", "start one: hack/kube up")
    return _on_cluster(make(recorded, options.name, progress), options)


def _on_cluster(provider: Provider, options: argparse.Namespace) -> int:
    match options.verb:
        case "down":
            provider.down()
            _provider_file(options.name).unlink(missing_ok=True)
        case "status":
            print(f"provider {provider.name}", *provider.status(), sep="\n")
        case "kubeconfig":
            print(provider.kubeconfig())
        case "load-image":
            if not options.archive.is_file():
                raise LabError(f"there is no file {options.archive}", "make one: hack/image")
            provider.load_image(options.archive)
        case "node":
            if options.wipe and options.action != "stop":
                raise LabError("--wipe goes with stop only", "a running node uses its disk")
            provider.node(options.action, options.node, options.wipe)
        case "control":
            provider.control(options.action, options.daemon)
        case "helm":
            os.environ["KUBECONFIG"] = str(provider.kubeconfig())
            _become([str(provider.helm()), *options.arguments])
        case "kubectl":
            _become([*provider.kubectl(), *options.arguments])
        case "logs":
            _become(provider.logs(options.what, options.follow))
    return 0


def _become(command: Sequence[str]) -> None:
    """Turns this process into another, so that signals and exit codes need no passing on."""
    sys.stdout.flush()
    os.execvp(command[0], list(command))


def _provider_file(name: str) -> Path:
    return cluster_root(name).with_suffix(".provider")


def recorded_provider(name: str) -> str | None:
    """The provider that the cluster of this name was started with."""
    try:
        return str(json.loads(_provider_file(name).read_text())["provider"])
    except FileNotFoundError:
        return None


def _record(name: str, provider: str) -> None:
    path = _provider_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"provider": provider}))
