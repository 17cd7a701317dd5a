"""NetworkPolicies that are enforced: the first packet of each connection waits in a queue for the verdict of an agent.

The agent (go/network-policies) watches policies, namespaces and pods. The rules here lead packets to it:

- between pods, from pods to Services (after their address was translated), and between the machine and pods: POSTROUTING;
- from a pod to a process in the cluster's network namespace, such as the API server or DNS: INPUT.

Processes of root are exempt, as the node's own are on other clusters: or the kubelet's probes would need a policy. Prometheus and
Alertmanager run in a group of their own, which is judged: so a policy that forgets to let monitoring in is noticed here.
All links of pods, of any node, lie in the one namespace, so an added node needs no further rule.

If the agent ends, new connections of pods wait and are dropped, until `up` starts it again: a queue that is bypassed would let
through what a policy forbids, and nobody would notice. Connections that exist go on.
"""

from localcluster import files, processes
from localcluster.commands import run, succeeds
from localcluster.faults import Fault
from localcluster.layout import Layout
from localcluster.processes import Part
from localcluster.versions import NETWORK_POLICIES

NAME = "network-policies"
QUEUE = 98
# Any number that no group of the machine has: only the rules below read it.
JUDGED_GROUP = 64998
OUTGOING, QUEUEING, PROBE = "LOCALCLUSTER-OUT", "LOCALCLUSTER-QUEUE", "LOCALCLUSTER-PROBE"
MISSING = "this kernel lacks what it takes (CONFIG_NETFILTER_XT_TARGET_NFQUEUE and CONFIG_NETFILTER_NETLINK_QUEUE)"


def in_judged_group(*argv: object) -> tuple[str, ...]:
    """A command line whose process stays root's, and whose connections are judged all the same."""
    return ("setpriv", f"--regid={JUDGED_GROUP}", "--clear-groups", "--", *(str(word) for word in argv))


def rules(pod_cidr: str) -> str:
    """What iptables-restore reads; the same rules again replace those that are there."""
    return f"""*mangle
:{OUTGOING} - [0:0]
:{QUEUEING} - [0:0]
-F {OUTGOING}
-F {QUEUEING}
-A {OUTGOING} -m owner --gid-owner {JUDGED_GROUP} -j {QUEUEING}
-A {OUTGOING} -m owner --uid-owner 0 -j RETURN
-A {OUTGOING} -j {QUEUEING}
-A {QUEUEING} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
-A {QUEUEING} -s {pod_cidr} -j NFQUEUE --queue-num {QUEUE}
-A {QUEUEING} -d {pod_cidr} -j NFQUEUE --queue-num {QUEUE}
COMMIT
"""


HOOKS = (("POSTROUTING", "-j", OUTGOING), ("INPUT", "-i", "veth+", "-j", QUEUEING))


def probe() -> str:
    """A chain that no packet comes through, made and removed: the kernel takes it only if it has what the rules need."""
    return f"*mangle\n:{PROBE} - [0:0]\n-A {PROBE} -m owner --uid-owner 0 -j NFQUEUE --queue-num {QUEUE}\nCOMMIT\n"


def part(layout: Layout) -> Part:
    """The agent; ready when the kernel knows its queue."""
    kubeconfig = layout.pki / f"{NAME}.kubeconfig"
    return Part(
        name=NAME,
        version=NETWORK_POLICIES,
        argv=(layout.bin / NAME, f"--kubeconfig={kubeconfig}", f"--queue={QUEUE}"),
        ready=lambda: listens(_inside(layout, "cat", "/proc/net/netfilter/nfnetlink_queue")),
        configs=(kubeconfig,),
    )


def listens(queues: str) -> bool:
    """Whether somebody listens to our queue, by the kernel's table of queues."""
    return any(line.split()[:1] == [str(QUEUE)] for line in queues.splitlines())


def start(layout: Layout) -> str:
    """Starts the agent and leads packets to it. Returns why policies are not enforced, empty if they are."""
    reason = _unsupported(layout)
    if not reason:
        processes.start(layout, part(layout))
        _restore(layout, rules(layout.pod_cidr))
        for chain, *words in HOOKS:
            if not succeeds(_command(layout, "iptables-nft", "-t", "mangle", "-C", chain, *words)):
                _inside(layout, "iptables-nft", "-t", "mangle", "-A", chain, *words)
    files.write(layout.state / NAME, reason)
    return reason


def missing(layout: Layout) -> str:
    """Why policies are not enforced, as the last `up` found it; empty if they are."""
    file = layout.state / NAME
    return file.read_text() if file.exists() else ""


def warning(reason: str) -> str:
    """What `up` and `status` say."""
    return f"WARNING: NetworkPolicies are not enforced in this cluster: {reason}"


def _unsupported(layout: Layout) -> str:
    try:
        _restore(layout, probe())
        for verb in ("-F", "-X"):
            _inside(layout, "iptables-nft", "-t", "mangle", verb, PROBE)
        _inside(layout, "cat", "/proc/net/netfilter/nfnetlink_queue")
    except Fault as fault:
        return f"{MISSING}: {' '.join(str(fault).split())[:200]}"
    return ""


def _restore(layout: Layout, text: str) -> None:
    run(_command(layout, "iptables-nft-restore", "--noflush"), stdin=text)


def _inside(layout: Layout, *words: str) -> str:
    return run(_command(layout, *words))


def _command(layout: Layout, *words: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{layout.netns}", "--", *words]
