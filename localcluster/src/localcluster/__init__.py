"""A real Kubernetes cluster on one Linux machine, from package registries alone.

Nothing here is simulated except the GPUs: real etcd, API server, kubelet, containers, webhooks and proxies. The
package uses Python's standard library only, so that a bare Debian machine can run it.
"""
