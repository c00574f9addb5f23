"""Runs the notebook as a reader would, every cell in order, and can keep its outputs.

Usage: notebook.py NOTEBOOK [--keep]. BOOTSTRAP names the broker. With `--keep` the outputs are written into the notebook;
what changes with every run and says nothing (times of execution, the machine's Python) is left out.
"""

import contextlib
import pathlib
import sys

import nbformat
from nbclient import NotebookClient

SECONDS_A_CELL = 300
OUTPUT_BYTES_MAX = 20_000

path = pathlib.Path(sys.argv[1])
notebook = nbformat.read(path, as_version=4)
NotebookClient(notebook, timeout=SECONDS_A_CELL, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
# Spark leaves an empty directory where it ran.
with contextlib.suppress(OSError):
    (path.parent / "artifacts").rmdir()
for cell in notebook.cells:
    cell.metadata.pop("execution", None)
    if cell.cell_type == "code":
        # What libraries say on standard error is theirs.
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}
nbformat.validate(notebook)
size = sum(len(str(cell.get("outputs", ""))) for cell in notebook.cells)
if size > OUTPUT_BYTES_MAX:
    sys.exit(f"the outputs are large: {size} bytes")
if "--keep" in sys.argv[2:]:
    nbformat.write(notebook, path)
print(f"ok {sum(cell.cell_type == 'code' for cell in notebook.cells)} cells, {size} bytes of output")
