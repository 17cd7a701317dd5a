"""Keys and certificates of one cluster, by the openssl program, and the kubeconfigs that carry them.

Everything is made once and kept: a second `up` finds the same identities, so running pods keep their tokens.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import files
from localcluster.commands import run
from localcluster.layout import Layout

DAYS = "3650"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
# Debian's default configuration would add extensions of an authority to every certificate.
CONFIG = "[req]\ndistinguished_name=name\nprompt=no\n[name]\nCN=unused\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a certificate names, and what it may be used for."""

    name: str  # file name
    user: str
    group: str = ""
    alt_names: tuple[str, ...] = ()  # "DNS:x" or "IP:x"; a server's
    authority: str = "ca"


def crt(layout: Layout, name: str) -> Path:
    """A certificate's file."""
    return layout.pki / f"{name}.crt"


def key(layout: Layout, name: str) -> Path:
    """A private key's file."""
    return layout.pki / f"{name}.key"


def control_plane_identities(layout: Layout) -> tuple[Identity, ...]:
    """Everybody who has a certificate, nodes apart."""
    api_names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    addresses = (layout.address, f"{layout.service_prefix}.0.1", "127.0.0.1")
    alt_names = (*(f"DNS:{name}" for name in (*api_names, "localhost")), *(f"IP:{address}" for address in addresses))
    return (
        Identity(name="apiserver", user="kube-apiserver", alt_names=alt_names),
        Identity(name="apiserver-kubelet-client", user="kube-apiserver-kubelet-client", group="system:masters"),
        Identity(name="front-proxy-client", user="front-proxy-client", authority="front-proxy-ca"),
        Identity(name="admin", user="localcluster-admin", group="system:masters"),
        Identity(name="controller-manager", user="system:kube-controller-manager"),
        Identity(name="scheduler", user="system:kube-scheduler"),
        Identity(name="kube-proxy", user="system:kube-proxy"),
        Identity(name="coredns", user="localcluster:coredns"),
        Identity(name="network-policies", user="localcluster:network-policies"),
    )


def node_identity(node: str, address: str) -> Identity:
    """A kubelet's one identity: it is both client of the API server and server of logs and exec."""
    alt_names = (f"DNS:{node}", f"IP:{address}")
    return Identity(name=f"kubelet-{node}", user=f"system:node:{node}", group="system:nodes", alt_names=alt_names)


def ensure(layout: Layout) -> None:
    """Makes authorities, the key that signs service account tokens, and all identities of the control plane."""
    layout.pki.mkdir(parents=True, exist_ok=True)
    layout.pki.chmod(0o700)
    files.write(layout.pki / "openssl.cnf", CONFIG)
    for authority in ("ca", "front-proxy-ca"):
        _ensure_authority(layout, authority)
    signing = layout.pki / "service-accounts.key"
    if not signing.exists():
        beside = signing.with_suffix(".new")
        run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", beside])
        run(["openssl", "pkey", "-in", beside, "-pubout", "-out", signing.with_suffix(".pub")])
        beside.replace(signing)
    for identity in control_plane_identities(layout):
        ensure_identity(layout, identity)
    for name in ("admin", "controller-manager", "scheduler", "kube-proxy", "coredns", "network-policies"):
        path = layout.kubeconfig if name == "admin" else layout.pki / f"{name}.kubeconfig"
        write_kubeconfig(layout, name, path)


def _ensure_authority(layout: Layout, name: str) -> None:
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
    _make(layout, name, f"/CN=localcluster-{name}", extensions, ())


def ensure_identity(layout: Layout, identity: Identity) -> None:
    """Makes one certificate, unless it is there."""
    usage = "clientAuth,serverAuth" if identity.alt_names else "clientAuth"
    extensions = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={usage}",
    ]
    if identity.alt_names:
        extensions.append(f"subjectAltName={','.join(identity.alt_names)}")
    subject = (f"/O={identity.group}" if identity.group else "") + f"/CN={identity.user}"
    signer = ("-CA", str(crt(layout, identity.authority)), "-CAkey", str(key(layout, identity.authority)))
    _make(layout, identity.name, subject, extensions, signer)


def _make(layout: Layout, name: str, subject: str, extensions: Sequence[str], signer: tuple[str, ...]) -> None:
    certificate, private = crt(layout, name), key(layout, name)
    if certificate.exists() and private.exists():
        return
    new_certificate, new_private = (path.with_name(f".{path.name}") for path in (certificate, private))
    words = ["openssl", "req", "-x509", "-new", "-config", str(layout.pki / "openssl.cnf"), *KEY, "-days", DAYS]
    words += ["-subj", subject, "-keyout", str(new_private), "-out", str(new_certificate), *signer]
    for extension in extensions:
        words += ["-addext", extension]
    run(words)
    new_private.chmod(0o600)
    # The certificate last: both files exist only if both are complete.
    new_private.replace(private)
    new_certificate.replace(certificate)


def write_kubeconfig(layout: Layout, name: str, path: Path) -> None:
    """A kubeconfig with everything inside it, so that it can be copied."""

    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    context = f"localcluster-{layout.index}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": name}}],
        "clusters": [
            {
                "name": context,
                "cluster": {"server": layout.api_url, "certificate-authority-data": inline(crt(layout, "ca"))},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": inline(crt(layout, name)),
                    "client-key-data": inline(key(layout, name)),
                },
            }
        ],
    }
    files.write_json(path, config, 0o600)
