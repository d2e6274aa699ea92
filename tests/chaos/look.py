"""What a pod can see of the store's nodes. Runs inside pods of the image, standard library only.

python look.py status HOST:PORT...      {"HOST:PORT": status of the node, or null if no answer}
python look.py connect HOST:PORT...     {"HOST:PORT": whether a new connection is accepted}
"""

import json
import socket
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 2.0


def status(target):
    try:
        with urllib.request.urlopen(f"http://{target}/v1/status", timeout=PATIENCE) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def connect(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    look = {"status": status, "connect": connect}[sys.argv[1]]
    with ThreadPoolExecutor(16) as pool:
        print(json.dumps(dict(zip(sys.argv[2:], pool.map(look, sys.argv[2:]), strict=True))))
