"""A Docker engine for the tests, and images to build with where no registry can be reached.

Uses the engine that answers; else, as root on Debian, installs one and starts it on a directory, a socket and a bridge of its own.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

OFFICIAL = "docker.io/library/rust:1.95-slim-bookworm"
OWN = "ottla-test-build"
PACKAGES = {"ip": "iproute2", "dockerd": "docker.io", "iptables": "iptables", "docker-compose": "docker-compose", "kcat": "kcat"}
DEBIAN = "bookworm"
START_SECONDS_MAX = 60


class Skip(Exception):
    """Why there is nothing to test here."""


def run(*command, check=True, input=None, quiet=True, **more):
    """What a command says on standard output; an AssertionError with all that it said, if it fails. Unchecked: how it ended."""
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(command, input=input, stdout=pipe, stderr=pipe, text=True, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout or ''}{done.stderr or ''}")
    return done.stdout or "" if check else done


def docker(*words, **more):
    return run("docker", *words, **more)


def answers():
    try:
        return shutil.which("docker") is not None and docker("info", check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def install(commands):
    """Installs the Debian packages of commands that are missing."""
    missing = [PACKAGES.get(command, command) for command in commands if not shutil.which(command)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Skip(f"{', '.join(missing)} cannot be installed here")
    # Run level 1: the packages start no service.
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    run("apt-get", "update", "-qq", check=False, env=quiet)
    done = run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, check=False, env=quiet)
    if done.returncode != 0:
        raise Skip(f"{', '.join(missing)} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")


@contextlib.contextmanager
def engine(scratch):
    """An engine that `docker` talks to."""
    if answers():
        yield
        return
    if os.geteuid() != 0:
        raise Skip("no Docker engine answers, and only root can start one")
    install(["dockerd", "iptables", "docker-compose", "ip"])
    home = scratch / "engine"
    home.mkdir()
    # A bridge and addresses that no other engine on this machine uses, nor another run of this.
    bridge, net = f"ottla{os.getpid() % 100000}", os.getpid() % 250
    try:
        run("ip", "link", "add", "name", bridge, "type", "bridge")
        run("ip", "address", "add", f"198.18.{net}.1/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
    except (AssertionError, OSError) as failure:
        run("ip", "link", "delete", bridge, check=False)
        raise Skip(f"no bridge for containers can be made here: {failure}") from failure
    command = ["dockerd", "--data-root", str(home / "data"), "--exec-root", str(home / "exec"), "--pidfile", str(home / "pid")]
    # Published ports go through its proxy: the rules of this machine's firewall stay as they are.
    command += ["--host", f"unix://{home}/socket", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]
    command += ["--bridge", bridge, "--default-address-pool", f"base=10.198.{net}.0/24,size=28"]
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    os.environ["DOCKER_HOST"] = f"unix://{home}/socket"
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                said = [line for line in (home / "log").read_text().splitlines() if "level=info" not in line]
                raise Skip(f"no Docker engine can be started here: {(said or ['no reason given'])[-1]}")
            time.sleep(0.2)
        try_out(scratch)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        run("ip", "link", "delete", bridge, check=False)
        # It leaves its view of the host's network mounted.
        mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounts if place.startswith(str(home))]):
            run("umount", "--lazy", place, check=False)


def try_out(scratch):
    """An engine that starts may still be unable to run anything: what it lacks then is the machine's, not the image's."""
    try:
        name = take_in(tree_of(scratch, ["true"]), "ottla-test-nothing")
        docker("run", "--rm", "--publish", "127.0.0.1::9", name, "true", timeout=60)
    except (AssertionError, subprocess.SubprocessError, OSError) as failure:
        raise Skip(f"the Docker engine runs no container here: {failure}") from failure


def take_in(tree, name):
    """Makes an image of a directory."""
    with subprocess.Popen(["tar", "-C", str(tree), "--exclude=./var/cache/apt", "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", name], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(tree)
    return name


def official_image():
    """The build image of the Dockerfile, if it can be pulled."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        if docker("pull", "-q", OFFICIAL, check=False, timeout=300).returncode == 0:
            return OFFICIAL
    return None


def toolchain_image(scratch, root):
    """What the official build image holds, made of Debian's packages and this machine's toolchain."""
    install(["debootstrap"])
    tree, sysroot = scratch / "tree", pathlib.Path(run("rustc", "--print", "sysroot", cwd=root).strip())
    run("debootstrap", "--variant=minbase", "--include=gcc,libc6-dev,ca-certificates", DEBIAN, str(tree))
    for part in ("bin", "lib", "libexec"):
        if (sysroot / part).is_dir():
            shutil.copytree(sysroot / part, tree / "usr/local" / part, symlinks=True, dirs_exist_ok=True)
    # The registry is reached from inside as it is from here, through the certificates that this machine trusts.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", tree / "etc/ssl/certs/ca-certificates.crt")
    return take_in(tree, OWN)


# Stand-ins for the toolchain: they put a binary that is there already where the real one would have put it.
RUSTC = """#!/bin/sh
echo 'host: packed'
"""
CARGO = """#!/bin/sh
set -e
mkdir -p target/packed/release /image
cp /packed/ottla target/packed/release/ottla
cp -r /packed/root /image/root
"""


def libraries(program):
    """Paths of the shared libraries of a program, its loader included."""
    lines = run("ldd", str(program), check=False).stdout.splitlines()
    paths = (word for line in lines for word in line.split() if word.startswith("/"))
    return sorted({pathlib.Path(path) for path in paths})


def copy(path, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, to)


def tree_of(scratch, programs):
    """A directory with programs of this machine and what they need."""
    tree = scratch / "tree"
    for name in ("lib", "lib64", "bin"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for program in programs:
        path = pathlib.Path(shutil.which(program)).resolve()
        copy(path, tree / "usr/bin" / program)
        for library in libraries(path):
            copy(library, tree / str(library).lstrip("/"))
    return tree


def packing_image(scratch, binary):
    """A build image that builds nothing: this machine's shell and a binary, which the image gets with its libraries."""
    tree = tree_of(scratch, ["sh", "sed", "mkdir", "cp", "install", "chmod"])
    for name, text in (("rustc", RUSTC), ("cargo", CARGO)):
        (tree / "usr/bin" / name).write_text(text)
        (tree / "usr/bin" / name).chmod(0o755)
    packed = tree / "packed"
    copy(binary, packed / "ottla")
    run("strip", "--strip-debug", str(packed / "ottla"))
    (packed / "root").mkdir()
    for library in libraries(binary):
        copy(library, packed / "root" / str(library).lstrip("/"))
    return take_in(tree, OWN)
