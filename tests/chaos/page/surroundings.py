"""On what a run was made: the build of the broker, the tree, the machine; and the command that repeats it.

May not know: faults, clients, the verdict.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import shlex
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]
# They say where the results go, not what is run.
NOT_REPEATED = {"report", "keep", "kinds", "tested"}


def command(given):
    """The command line of the arguments as they were in the end, the seed included."""
    words = [] if getattr(given, "bootstrap", None) else ["sudo"]
    # sudo takes no environment along.
    if installed := os.environ.get("TEST_CLIENTS_DIR"):
        words.append(f"TEST_CLIENTS_DIR={installed}")
    words.append("tests/chaos/run.py")
    for name, value in vars(given).items():
        if name in NOT_REPEATED or value is None or value is False:
            continue
        option = "--" + name.replace("_", "-")
        words += [option] if value is True else [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def said_by(*words):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, timeout=10).stdout.strip()
    return ""


def build(path):
    """Two builds of one version are told apart by their bytes."""
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16] if pathlib.Path(path).is_file() else "no such file"
    return f"{said_by(path, '--version') or 'no version'}, {path}, SHA-256 {digest}"


def tree():
    commit = said_by("git", "log", "-1", "--format=%h %cd", "--date=format:%Y-%m-%d %H:%M")
    changed = " (with changes that are not committed)" if said_by("git", "status", "--porcelain", "--untracked-files=no") else ""
    return f"{commit or 'unknown'}{changed}"


def machine():
    processor, memory = "", ""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        total = next(line for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
        memory = f"{int(total.split()[1]) / (1 << 20):.1f} GiB"
    parts = [f"{os.cpu_count()} cores", processor, memory, f"{platform.system()} {platform.release()}", platform.machine()]
    return ", ".join(filter(None, parts))


def about(builds, clients):
    """By name, for the page. `builds`: what each build is, by name."""
    return {**builds, "commit of the tree": tree(), "clients": clients, "machine": machine()}
