"""Write the sample's dataset folder for the benchmarks: `python benchmarks/finetune/solar_cells_data.py FOLDER`."""

import sys
import tempfile
from importlib import resources
from pathlib import Path

import yaml

from edgeft.core.stage import Context
from edgeft.data.config import DataConfig
from edgeft.data.stage import run
from edgeft.models.config import ModelConfig
from edgeft.models.sources import describe

RECIPE = Path(__file__).parents[2] / "samples/solar_cells/recipe.yaml"


def main(folder: Path) -> None:
    recipe = yaml.safe_load(RECIPE.read_text())
    model = ModelConfig(**recipe["model"])
    config = DataConfig(**{**recipe["data"], "input": describe(model).to_json()})
    table = Path(str(resources.files("elpv_dataset") / "data/labels.csv"))
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        result = run(
            Context(folder, Path(scratch), seed=0, threads=2), {"source": table, "images": table.parent}, config
        )
    print(folder, dict(result.measurements))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
