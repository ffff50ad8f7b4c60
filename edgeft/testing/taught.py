"""A toy with a fine-tuned teacher: what a distillation is tried on in seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeft import catalog
from edgeft.core.events import EventSink, ignore
from edgeft.core.stage import Context, Json, StageResult
from edgeft.distill.config import KnowledgeConfig
from edgeft.distill.knowledge import run
from edgeft.testing import method_cases
from edgeft.testing.toys import Toy


class Taught:
    """A toy, its data, and a teacher that was fine-tuned on them.

    Args:
        toy: images or texts.
        folder: where everything goes.
    """

    def __init__(self, toy: Toy, folder: Path) -> None:
        self.toy, self.folder = toy, folder
        self.data = toy.write(folder / "data")
        self.model, self.inputs = toy.model(folder)
        full = catalog.find("finetune", "full")
        values = {"epochs": toy.epochs, "lr": 1e-2}
        self.teacher = method_cases.run(full, toy, folder, self.data, values).folder

    def distill(
        self,
        folder: Path,
        student: Mapping[str, Json],
        emit: EventSink = ignore,
        inputs: Mapping[str, Path] | None = None,
        memo: Path | None = None,
        **values: Any,  # noqa: ANN401 - settings
    ) -> StageResult:
        """Distill with the seed 0 on one thread, and return the stage's result.

        Args:
            folder: holds output and workspace; what a killed run left there is gone on with.
            student: the recipe's `distill.student`.
            emit: where events go.
            inputs: by role, beside the toy's data and its teacher.
            memo: what is kept by content.
            **values: the recipe's `distill`.
        """
        settings = {"model": self.model, "student": student, "batch_size": 12, "epochs": 2, **values}
        config = KnowledgeConfig.model_validate(settings)
        for each in ("out", "workspace"):
            (folder / each).mkdir(parents=True, exist_ok=True)
        context = Context(folder / "out", folder / "workspace", seed=0, threads=1, emit=emit, memo=memo)
        return run(context, {"data": self.data, "checkpoint": self.teacher, **(inputs or {})}, config)
