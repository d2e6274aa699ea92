"""A limit of the whole machine that clusters outgrow: raised while one is up, then put back.

Every kubelet, containerd and kube-proxy watches files, some nine inotify instances a node; the
kernel's default for all processes of a user is 128. A kubelet that gets none ends at once.
"""

from __future__ import annotations

import json
from pathlib import Path

SETTING = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH = 1024


def raise_limit(state: Path, setting: Path = SETTING) -> bool:
    """Raises it if need be. What it was is written down first, so that no crash can lose it."""
    now = int(setting.read_text())
    if now >= ENOUGH:
        return False
    _record(state).write_text(json.dumps({"before": now, "raised": ENOUGH}))
    setting.write_text(f"{ENOUGH}\n")
    return True


def restore_limit(state: Path, setting: Path = SETTING) -> bool:
    """Puts it back once the last cluster is gone, unless somebody else has changed it since."""
    record = _record(state)
    if not record.exists() or any(state.glob("*/run")):
        return False
    kept = json.loads(record.read_text())
    unchanged = int(setting.read_text()) == kept["raised"]
    if unchanged:
        setting.write_text(f"{kept['before']}\n")
    record.unlink()
    return unchanged


def _record(state: Path) -> Path:
    """Beside the folders of all clusters of this user."""
    return state / "inotify.json"
