import json

from localcluster import images, queueing
from localcluster.versions import IMAGES


def test_kueue_looks_at_pytorch_jobs_of_namespaces_with_our_label_alone() -> None:
    values = queueing.values()
    configuration = json.loads(values["managerConfig"]["controllerManagerConfigYaml"])
    assert configuration["integrations"]["frameworks"] == ["kubeflow.org/pytorchjob"]
    assert configuration["managedJobsNamespaceSelector"] == {"matchLabels": {queueing.MANAGED: "true"}}
    image = values["controllerManager"]["manager"]["image"]
    assert f"{image['repository']}:{image['tag']}" == IMAGES["kueue"]


def test_no_start_of_a_cluster_brings_kueue() -> None:
    assert set(images.ON_DEMAND) == {"kueue"}
    assert not images.ON_DEMAND.keys() & images.STATIC.keys()
