"""A small process beside the cluster: gives claims their volumes, nodes their GPUs, and Prometheus its targets.

Twice a second it looks at the world and does what is missing, so that nothing depends on an event it might have
missed:

- a claim of our storage class that waits for its volume gets a folder and a PersistentVolume bound to it;
- a volume whose claim is gone is removed with its folder;
- a node without `nvidia.com/gpu` gets eight of them. The GPUs are not there: scheduling, quota and capacity checks are
  then real, and the pods compute on the CPU.

Pods are many and are watched instead; see targets.py.

Run as `python3 -m localcluster.keeper <kubeconfig> <volumes> <gpus> <folder of targets>`.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localcluster import files, targets
from localcluster.apiclient import Api
from localcluster.objects import PROVISIONER, STORAGE_CLASS

PERIOD_SECONDS = 0.5
GPU = "nvidia.com/gpu"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
CLAIM_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
# Answered from the server's memory: as fresh as a watch, and cheap.
CACHED = "?resourceVersion=0"


def volume_for(claim: dict[str, Any], volumes: Path) -> dict[str, Any]:
    """The volume that a claim gets: a folder of its own, bound to this very claim."""
    meta, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{meta['uid']}", "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Delete",
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "volumeMode": "Filesystem",
            "hostPath": {"path": str(folder_of(claim, volumes)), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
        },
    }


def folder_of(claim: dict[str, Any], volumes: Path) -> Path:
    """Where a claim's files lie: with its name, so that a person finds them."""
    meta = claim["metadata"]
    return volumes / f"{meta['namespace']}-{meta['name']}-{meta['uid']}"


def wants_volume(claim: dict[str, Any]) -> bool:
    """Whether a claim is ours and still has no volume."""
    meta: dict[str, Any] = claim["metadata"]
    spec: dict[str, Any] = claim["spec"]
    ours: bool = meta.get("annotations", {}).get(CLAIM_PROVISIONER) == PROVISIONER
    return ours and "volumeName" not in spec and "deletionTimestamp" not in meta


def is_released(volume: dict[str, Any]) -> bool:
    """Whether a volume is ours and its claim is gone."""
    ours: bool = volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) == PROVISIONER
    return ours and volume.get("status", {}).get("phase") == "Released"


def lacks_gpus(node: dict[str, Any], gpus: str) -> bool:
    """Whether a node does not offer the GPUs that it should."""
    status = node.get("status", {})
    return any(status.get(part, {}).get(GPU) != gpus for part in ("capacity", "allocatable"))


def visit(api: Api, volumes: Path, gpus: str) -> None:
    """One look at claims, volumes and nodes."""
    existing = api.call("GET", f"/api/v1/persistentvolumes{CACHED}")["items"]
    names = {volume["metadata"]["name"] for volume in existing}
    for claim in api.call("GET", f"/api/v1/persistentvolumeclaims{CACHED}")["items"]:
        volume = volume_for(claim, volumes) if wants_volume(claim) else None
        if volume and volume["metadata"]["name"] not in names:
            folder = folder_of(claim, volumes)
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)  # pods run as any user
            api.call("POST", "/api/v1/persistentvolumes", volume)
    for volume in existing:
        if is_released(volume):
            folder = Path(volume["spec"]["hostPath"]["path"])
            if folder.parent == volumes:
                shutil.rmtree(folder, ignore_errors=True)
            api.call("DELETE", f"/api/v1/persistentvolumes/{volume['metadata']['name']}")
    for node in api.call("GET", f"/api/v1/nodes{CACHED}")["items"]:
        if gpus != "0" and lacks_gpus(node, gpus):
            patch = {"status": {"capacity": {GPU: gpus}, "allocatable": {GPU: gpus}}}
            path = f"/api/v1/nodes/{node['metadata']['name']}/status"
            api.call("PATCH", path, patch, "application/strategic-merge-patch+json")


def follow_pods(api: Api, folder: Path) -> None:
    """Keeps the files of targets until the server ends the watch."""
    pods = targets.Pods()
    for event in api.watch("/api/v1/pods", targets.SELECTOR):
        if event["type"] == "ERROR":
            raise OSError(f"watch of pods: {event['object'].get('message')}")
        pods.take(event)
        for job, entries in pods.files().items():
            files.write_json(folder / f"{job}.json", entries)


def for_ever(work: Callable[[], None]) -> None:
    """Repeats; a server that is down is a reason to wait, not to end. A complaint is printed once."""
    complaint = ""
    while True:
        try:
            work()
            complaint = ""
        except OSError as error:
            if str(error) != complaint:
                complaint = str(error)
                print(f"{time.strftime('%H:%M:%S')} {complaint}", flush=True)
        time.sleep(PERIOD_SECONDS)


def main(kubeconfig: str, volumes: str, gpus: str, target_folder: str) -> None:
    """Both loops, with a connection each."""
    follower, visitor = Api(Path(kubeconfig)), Api(Path(kubeconfig))
    follow = threading.Thread(target=for_ever, args=(lambda: follow_pods(follower, Path(target_folder)),), daemon=True)
    follow.start()
    for_ever(lambda: visit(visitor, Path(volumes), gpus))


if __name__ == "__main__":
    main(*sys.argv[1:5])
