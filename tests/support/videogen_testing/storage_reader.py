"""What lies in a claim, read by a pod of the trainer's image: files, and bundles with all that they were made from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from videogen_demo.kubectl import Cluster, Manifest
from videogen_testing.stories import CLAIM

READER = "reader"
LISTED = """
import sys
from pathlib import Path
folder = Path("/storage", sys.argv[1])
print(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()), sep="\\n")
"""
TEXT = 'import sys; sys.stdout.write(open("/storage/" + sys.argv[1]).read())'
# All bundles from one back to the first, newest first; every file of each has the sum that its manifest says.
LINEAGE = """
import json, sys
from pathlib import Path
from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, manifest_digest
from videogen_models.sealed import verify
digest, found = sys.argv[1], []
while digest:
    (folder,) = Path("/storage/bundles").glob("*/" + digest.removeprefix("sha256:"))
    data = (folder / MANIFEST).read_bytes()
    assert manifest_digest(data) == digest, folder
    manifest = Manifest.model_validate_json(data)
    verify(folder, manifest.files, ALLOWED_SUFFIXES)
    found.append(manifest.wire())
    digest = manifest.optimized_from or manifest.init_from
print(json.dumps(found))
"""


def reader(namespace: str, image: str, claim: str = CLAIM) -> Manifest:
    """The pod."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "storage", "mountPath": "/storage", "readOnly": True}],
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": claim}}],
        "terminationGracePeriodSeconds": 0,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": READER, "namespace": namespace}, "spec": spec}


@dataclass(frozen=True, slots=True)
class Storage:
    """The claim of a namespace whose reader runs. Paths are below the storage's root."""

    cluster: Cluster
    namespace: str
    _lineages: dict[str, list[Manifest]] = field(default_factory=dict)

    def files(self, folder: str) -> list[str]:
        """All files below a folder, relative to it; none if it is not there."""
        return self._read(LISTED, folder).splitlines()

    def text(self, path: str) -> str:
        """A text file."""
        return self._read(TEXT, path)

    def version(self, name: str, version: str) -> str:
        """The digest that a dataset version names."""
        return str(json.loads(self.text(f"datasets/{name}/versions/{version}.json"))["digest"])

    def dataset(self, name: str, digest: str) -> tuple[Manifest, set[str]]:
        """A dataset's manifest, and the files that lie beside and with it."""
        folder = f"datasets/{name}/{digest.removeprefix('sha256:')}"
        return json.loads(self.text(f"{folder}/manifest.json")), set(self.files(folder))

    def lineage(self, digest: str) -> list[Manifest]:
        """Manifests of a bundle and of those that it was made from, newest first, each verified. Raises CommandError."""
        if digest not in self._lineages:
            self._lineages[digest] = json.loads(self._read(LINEAGE, digest))
        return self._lineages[digest]

    def _read(self, code: str, *arguments: str) -> str:
        return self.cluster("exec", READER, "-n", self.namespace, "--", "python3", "-c", code, *arguments)
