"""NNCF's int8 for OpenVINO, as its documentation says: run by targets.py in an environment of its own.

python nncf_file.py FP32.onnx CALIB.npz OUT.xml
"""

import sys
import time

import nncf
import numpy as np
import openvino


def main() -> None:
    model, calibration, out = sys.argv[1:]
    rows = {name: array for name, array in np.load(calibration).items() if name != "labels"}
    count = len(next(iter(rows.values())))
    started = time.perf_counter()
    data = nncf.Dataset(range(count), lambda index: {name: array[index : index + 1] for name, array in rows.items()})
    kind = nncf.ModelType.TRANSFORMER if len(rows) > 1 else None
    quantized = nncf.quantize(openvino.Core().read_model(model), data, subset_size=count, model_type=kind)
    openvino.save_model(quantized, out)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
