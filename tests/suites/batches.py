"""Suites whose test runner takes many tests in one process: pytest.

Each start of such a runner costs a second or more, and the runner itself ends a test that hangs. What all suites share
is in kinds.py.
"""

import shutil
import sys
import xml.etree.ElementTree

from kinds import HOME, TAIL_LINES, Suite, failure, run_one, sh
from lists import Outcome

PYTHON = HOME / "venv" / "bin" / "python"
PYTEST = ["pytest==8.4.2", "pytest-timeout==2.4.0", "pytest-mock==3.15.1", "py==1.11.0"]
CODECS = ["lz4==4.4.5", "zstandard==0.25.0", "python-snappy==0.7.3", "crc32c==2.9.post0"]


def install_python(*packages):
    if not PYTHON.exists():
        sh([sys.executable, "-m", "venv", str(HOME / "venv")])
    sh([str(PYTHON), "-m", "pip", "install", "-q", *packages])


class KafkaPython(Suite):
    """kafka-python's test/integration from its source package, under pytest."""

    def __init__(self, name, version, **more):
        super().__init__(name, version, **more)
        self.registry = f"PyPI: kafka-python {version} (source package), test/integration"

    def prepare(self):
        install_python(*PYTEST, *CODECS, f"kafka-python=={self.version}")
        if not self.source.exists():
            asking = HOME / "asking" / self.name
            fetch = ["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(asking)]
            sh([str(PYTHON), *fetch, f"kafka-python=={self.version}"])
            package = next(asking.glob("*.tar.gz"))
            shutil.unpack_archive(package, asking)
            shutil.move(str(package)[: -len(".tar.gz")], self.source)
        # The source package lacks two files of `test`: without the first one Python takes its own package `test`, and
        # the second one starts brokers, of which a broker that runs already needs nothing.
        (self.source / "test" / "__init__.py").touch()
        (self.source / "test" / "service.py").write_text(
            "class SpawnedService:\n    pass\n\n\nclass ExternalService:\n"
            "    def __init__(self, host, port):\n        self.host, self.port = host, port\n"
        )

    def pytest(self):
        self.environment = {**self.environment, "KAFKA_ROOT": str(self.source), "PYTHONPATH": str(self.source)}
        return [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "log_level=INFO"]

    def tests(self):
        command = [*self.pytest(), "--collect-only", "-q", "test/integration"]
        listed = sh(command, cwd=self.source, **self.environment)
        return [line.removeprefix("test/integration/") for line in listed.splitlines() if "::" in line]

    def run(self, tests, seconds_max, report):
        if not tests:
            return
        result = HOME / "kafka-python.xml"
        result.unlink(missing_ok=True)
        command = [*self.pytest(), "--timeout", str(seconds_max), "--timeout-method", "signal", "-q", "--junitxml", str(result)]
        command += [f"test/integration/{test}" for test in tests]
        code, text, _ = run_one(self.name, command, seconds_max * len(tests), self.source, self.environment)
        if not result.exists():
            raise RuntimeError(failure(code, text))
        cases = {}
        for case in xml.etree.ElementTree.parse(result).iter("testcase"):
            name = case.get("classname").removeprefix("test.integration.").replace(".", ".py::", 1)
            name = f"{name}::{case.get('name')}" if "::" in name else f"{name}.py::{case.get('name')}"
            cases.setdefault(name, []).append(case)
        for test in tests:
            report(self.of_case(test, cases.get(test, [])))

    @staticmethod
    def of_case(test, cases):
        seconds = sum(float(case.get("time") or 0) for case in cases)
        bad = [child for case in cases for child in case if child.tag in ("failure", "error")]
        skipped = [child for case in cases for child in case if child.tag == "skipped"]
        if bad or not cases:
            detail = "\n".join((bad[0].text or "").splitlines()[-TAIL_LINES:]) if bad else "not in pytest's result"
            return Outcome(test, "failed", seconds, detail)
        if skipped:
            return Outcome(test, "skipped", seconds, "the suite itself: " + skipped[0].get("message", ""))
        return Outcome(test, "passed", seconds)
