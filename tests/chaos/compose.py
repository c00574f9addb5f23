#!/usr/bin/env python3
"""A chaos run against the containers of compose.yaml: they are started, killed, paused and restarted by the docker command, and taken away again.

Usage: tests/chaos/compose.py [--image NAME | --binary PATH] [OPTION...]    OPTION: any of run.py's
  --image    an image that is there; else one is made of the binary (target/release/ottla), which needs no registry
An engine that answers is used; where none does, and this is root on Debian, one is started on a directory, a socket and a bridge of its own
(`tests/docker_engine.py`). Exit code: run.py's, or 2 where no container can run here.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(HERE.parent), str(HERE.parent / "clients")]

from broker import free_ports
from docker_engine import OWN, Skip, docker, engine, packing_image, run

UNKNOWN = 2
NODES = (1, 2, 3)


def image_of(binary, scratch):
    """An image of this binary with the libraries it needs."""
    name = f"ottla-chaos-{os.getpid()}"
    docker("build", "--network", "host", "--build-arg", f"BUILD_IMAGE={packing_image(scratch, binary)}", "-t", name, str(ROOT))
    return name


def tool():
    if docker("compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"]


def disturbed(image, options):
    """The cluster from its start until it is gone; run.py's exit code."""
    ports, admins = free_ports(len(NODES)), free_ports(len(NODES))
    environment = dict(os.environ, IMAGE=image)
    for suffix, port, admin in zip(("", "_2", "_3"), ports, admins):
        environment |= {f"HOST_PORT{suffix}": str(port), f"HOST_ADMIN_PORT{suffix}": str(admin)}
    compose = [*tool(), "-p", f"ottlachaos{os.getpid()}", "--project-directory", str(ROOT), "-f", str(ROOT / "compose.yaml")]
    try:
        run(*compose, "up", "-d", "--no-build", env=environment)
        containers = [run(*compose, "ps", "-q", f"ottla-{node}", env=environment).strip() for node in NODES]
        named = ["--bootstrap", ",".join(f"localhost:{port}" for port in ports), "--containers", ",".join(one[:12] for one in containers)]
        return subprocess.run([sys.executable, str(HERE / "run.py"), *named, *options]).returncode
    finally:
        run(*compose, "down", "-v", env=environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "ottla")
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="ottla-chaos-engine-") as scratch:
        try:
            with engine(pathlib.Path(scratch)):
                image = given.image or image_of(given.binary, pathlib.Path(scratch))
                try:
                    return disturbed(image, options)
                finally:
                    if not given.image:
                        docker("rmi", "-f", image, OWN, check=False)
        except Skip as reason:
            print(f"no run can be made here: {' '.join(str(reason).split())}")
            return UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
