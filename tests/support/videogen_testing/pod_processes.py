"""Python for `kubectl exec` into a pod that shares its process namespace: there PID 1 is the pod's pause process."""

# Sets `first`, the container's first process, and `parents` by PID. Like PID 1 and this process it has its parent outside of the pod.
FIND_FIRST = """
import os, pathlib, signal
parents = {}
for pid in (int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()):
    try:
        parents[pid] = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        pass  # it has ended meanwhile
(first,) = (pid for pid, parent in parents.items() if parent == 0 and pid not in (1, os.getpid()))
"""
END_FIRST = FIND_FIRST + "os.kill(first, signal.SIGTERM)\n"
KILL_A_CHILD = FIND_FIRST + "os.kill(min(pid for pid, parent in parents.items() if parent == first), signal.SIGKILL)\n"
