"""Files to Parquet features without Orchard: a script by hand, and Daft with its own decoding. Both run the same ONNX file.

It imports nothing of Orchard, so that Daft's own environment can run it, too.
Run: python bench/rivals.py script|daft NETWORK.onnx LIST-OF-FILES OUTPUT-FOLDER BATCH
"""

import importlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

CORES, SIDE = 2, 224


def main() -> int:
    """Write the features of the listed files."""
    rival, model, listed, output, batch = sys.argv[1:]
    paths = Path(listed).read_text().splitlines()
    Path(output).mkdir()
    run = {"script": run_script, "daft": run_daft}[rival]
    run(model, paths, output, int(batch))
    return 0


def open_model(model: str) -> Any:
    """Return a session on one thread."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_script(model: str, paths: list[str], output: str, batch: int) -> None:
    """Run a process a core over its share of the files, as one writes it in an afternoon."""
    spawn = multiprocessing.get_context("spawn")
    shares = [(model, paths[core::CORES], f"{output}/{core}.parquet", batch) for core in range(CORES)]
    workers = [spawn.Process(target=_run_share, args=share) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise SystemExit(f"a process of the script ended with status {worker.exitcode}")


def _run_share(model: str, paths: list[str], output: str, batch: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    session, vectors = open_model(model), []
    for first in range(0, len(paths), batch):
        pixels = np.stack([_square(path) for path in paths[first : first + batch]])
        vectors.append(session.run(None, {"pixels": pixels})[0])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors).ravel()), vectors[0].shape[1])
    pq.write_table(pa.table({"path": paths, "features": lists}), output)


def _square(path: str) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _vectors(self: Any, images: Any) -> list[Any]:
    pixels = np.stack([np.asarray(image) for image in images.to_pylist()])
    return list(self.session.run(None, {"pixels": pixels})[0])


def run_daft(model: str, paths: list[str], output: str, batch: int) -> None:
    """Run Daft's own reading, decoding and resizing, and the backbone in a process a core."""
    os.environ["DAFT_PROGRESS_BAR"] = "0"
    daft = importlib.import_module("daft")
    dimension = open_model(model).get_outputs()[0].shape[-1]

    listed = daft.DataType.fixed_size_list(daft.DataType.float32(), dimension)

    class Network:
        def __init__(self) -> None:
            self.session = open_model(model)

        run = daft.method.batch(return_dtype=listed, batch_size=batch)(_vectors)

    run = daft.cls(Network, use_process=True, max_concurrency=CORES)().run
    decoded = daft.col("path").download().decode_image(mode="RGB").resize(SIDE, SIDE)
    frame = daft.from_pydict({"path": paths}).select("path", run(decoded).alias("features"))
    frame.write_parquet(output)


if __name__ == "__main__":
    sys.exit(main())
