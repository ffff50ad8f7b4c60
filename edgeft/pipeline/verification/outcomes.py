"""What every step of the way gives for the test split, and the hops between them."""

import json
from dataclasses import dataclass

from edgeft import catalog
from edgeft.core.stage import Context, Inputs
from edgeft.pipeline.decide import read_decisions
from edgeft.pipeline.stage_configs import VerifyConfig
from edgeft.pipeline.timed import own_runtime
from edgeft.pipeline.verification.held_out import (
    Floats,
    HeldOut,
    device_session,
    graph_outputs,
    raw_scores,
    require_classes,
    runtime_scores,
    target_outputs,
    torch_logits,
)
from edgeft.pipeline.verification.hops import FLOAT_TOLERANCE, Hop, from_scores, hop, relative_tolerance
from edgeft.verify.decision import Decision

FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outputs float32 [n, K] of every step on the same test images.

    Args:
        split: the images.
        chosen: the candidate that ships; "fp32" where no other does.
        precision: its precision.
        temperature: its temperature.
        torch_logits: of the checkpoint in torch.
        fp32_logits: of the float graph.
        fp32_scores: of the float graph.
        chosen_logits: of the chosen candidate, in the target's own runtime where it has one.
        chosen_scores: of the chosen candidate.
        runtime_scores: of the lowered file in the target's own session.
        raw_scores: of the lowered file, from raw image files as the device's code reads them.
        different_inputs: raw files or texts that become other pixels or tokens than the data stage's.
        rule: how what ships decides.
        fp32_rule: how the float graph would: the same method, with thresholds of its own.
        absent: whether the target is another machine, so that onnxruntime answered here in its place.
    """

    split: HeldOut
    chosen: str
    precision: str
    temperature: float
    torch_logits: Floats
    fp32_logits: Floats
    fp32_scores: Floats
    chosen_logits: Floats
    chosen_scores: Floats
    runtime_scores: Floats
    raw_scores: Floats
    different_inputs: int
    rule: Decision
    fp32_rule: Decision
    absent: bool

    def decided_by(self) -> dict[str, tuple[Floats, Decision]]:
        """Return what metrics are of: the float graph, and what the device decides from raw files."""
        return {FP32: (self.fp32_scores, self.fp32_rule), self.chosen: (self.raw_scores, self.rule)}


def collect(ctx: Context, inputs: Inputs, config: VerifyConfig) -> Outcomes:
    """Run the test split through every step; see `edgeft.pipeline.verification.stage.run`."""
    split = HeldOut.open(inputs["data"])
    require_classes(split, inputs["checkpoint"] / "model.json")
    require_classes(split, inputs["graph"] / "graph.json")
    lowered = json.loads((inputs["lower"] / "lowered.json").read_bytes())
    model = inputs["lower"] / lowered["model"]
    rule, fp32_rule = read_decisions(inputs["decide"], model, tuple(split.data.classes))
    candidates = inputs["compress"] / "candidates"
    fp32 = graph_outputs(split, candidates / FP32 / "model.onnx", ctx.threads, ctx.emit, "verify fp32")
    same = lowered["chosen"] == FP32
    exporter, own = catalog.exporter(config.target), own_runtime(config.target) is not None
    as_written = exporter.placement.as_written
    chosen = fp32
    if not same:
        file = candidates / lowered["chosen"] / "model.onnx"
        task = f"verify {lowered['chosen']}"
        chosen = (
            target_outputs(split, file, exporter, ctx.threads)
            if own
            else graph_outputs(split, file, ctx.threads, ctx.emit, task, as_written=as_written)
        )
    # For another machine onnxruntime answers here: its file is an ONNX graph, too.
    session = (
        device_session(model, ctx.threads, as_written=as_written)
        if exporter.cross
        else exporter.session(model, ctx.threads)
    )
    device = session if own or exporter.cross else device_session(model, ctx.threads)
    raw, different = raw_scores(split, device, inputs.get("images"), ctx.emit)
    return Outcomes(
        split=split,
        chosen=lowered["chosen"],
        precision=lowered["precision"],
        temperature=float(lowered["temperature"]),
        torch_logits=torch_logits(split, inputs["checkpoint"], ctx.threads, ctx.emit),
        fp32_logits=fp32[0],
        fp32_scores=fp32[1],
        chosen_logits=chosen[0],
        chosen_scores=chosen[1],
        runtime_scores=runtime_scores(split, session, ctx.emit),
        raw_scores=raw,
        different_inputs=different,
        rule=rule,
        fp32_rule=fp32_rule,
        absent=exporter.cross,
    )


def hops_of(outcomes: Outcomes) -> tuple[Hop, ...]:
    """Return the hops from torch to raw files, in order; without the compressing one where float ships."""
    chosen, tolerance = outcomes.chosen, relative_tolerance(outcomes.precision)
    candidate, runtime, raw = (
        from_scores(scores, outcomes.temperature)
        for scores in (outcomes.chosen_scores, outcomes.runtime_scores, outcomes.raw_scores)
    )
    wide = [array.astype("float64") for array in (outcomes.torch_logits, outcomes.fp32_logits, outcomes.chosen_logits)]
    different = outcomes.different_inputs
    what = ("texts", "tokens") if outcomes.split.data.is_text else ("files", "pixels")
    fault = f"{different} of {len(raw)} raw {what[0]} give other {what[1]} than training saw" if different else ""
    return (
        hop(f"torch > {FP32}", wide[0], wide[1], FLOAT_TOLERANCE),
        *([hop(f"{FP32} > {chosen}", wide[1], wide[2], None)] if chosen != FP32 else []),
        # Lowering for another machine may change numbers (float16): the accuracy gate is the bar.
        hop(f"{chosen} > runtime", candidate, runtime, None if outcomes.absent else tolerance),
        hop(f"runtime > raw {what[0]}", runtime, raw, tolerance, fault=fault),
    )
