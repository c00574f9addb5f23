"""Jars that a pom.xml names, from Maven Central or what stands for it.

Used by the runners of tests/kafka and tests/ecosystem. May not know: what is done with the jars.
"""

import shutil
import subprocess


def copy_dependencies(pom, into, stamp, what):
    """Copies them into a directory that has nothing else, once for each version of the file, of which `stamp` is kept as a copy."""
    if stamp.exists() and stamp.read_bytes() == pom.read_bytes():
        return
    print(f"fetching {what}", flush=True)
    shutil.rmtree(into, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={into}"]
    # A registry that hiccups is asked once more.
    if subprocess.run(command).returncode != 0:
        subprocess.run(command, check=True)
    shutil.copy(pom, stamp)
