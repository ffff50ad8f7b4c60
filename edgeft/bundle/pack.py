"""Assembles a bundle: model, golden vectors, licences and evidence, under one manifest; whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeft.bundle import golden as vectors
from edgeft.bundle import swap
from edgeft.bundle.licenses import License, licenses_markdown
from edgeft.bundle.sbom import Made, sbom
from edgeft.bundle.sign import SigningKey, sign
from edgeft.bundle.swap import new_folder
from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError
from edgeft.core.record import Gate
from edgeft.core.stage import Json
from edgeft.runtime import manifest as names
from edgeft.runtime.encode import Feeds, contract_from_json, one_row
from edgeft.runtime.manifest import Manifest, manifest_bytes, read_files, seal
from edgeft.runtime.preprocess import INPUT
from edgeft.runtime.session import Model
from edgeft.runtime.signature import SIGNATURE
from edgeft.runtime.text import TextContract, TokenTable

FILES: Final = frozenset(
    {
        *(names.NAME, names.MODEL, names.GOLDEN, names.TOKENIZER, names.LICENSES),
        *(names.REPORT_HTML, names.REPORT_JSON, names.CARD, names.SBOM, SIGNATURE),
    }
)
"""Every name a bundle can hold, beside its target's own files."""
_GOLDEN_SPLIT = "val"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a bundle is made of.

    Args:
        name: of the bundle.
        target: the runtime it was lowered for.
        precision: "int8", "int4", "fp16" or "fp32".
        model: the lowered model.onnx.
        data: the data stage's folder: classes, input contract, and the pixels that golden vectors are made of.
        images: root of the raw images; None of texts.
        decision: how scores become a decision, as `Decision.to_json` gives it.
        gates: accuracy and parity gates; latency gates belong in `run`.
        measurements: deterministic numbers about the artifact.
        licenses: of weights and data.
        report_html: the report.
        report_json: the run record.
        model_card: Markdown.
        run: timings, timestamps, latency gates, machine: all that differs between two equal builds.
        more: the target's other files, such as model.xml.
    """

    name: str
    target: str
    precision: str
    model: Path
    data: Path
    images: Path | None
    decision: Mapping[str, Json]
    gates: Sequence[Gate]
    measurements: Mapping[str, Json]
    licenses: Sequence[License]
    report_html: str
    report_json: Mapping[str, Any]
    model_card: str
    run: Mapping[str, Any]
    more: Sequence[Path] = ()


def pack(out: Path, parts: Parts, key: SigningKey | None = None) -> Manifest:
    """Write the bundle folder `out`; an older bundle there is replaced whole.

    Args:
        out: the bundle's folder.
        parts: see `Parts`.
        key: that signs it; None leaves it unsigned.

    Raises:
        UsageError: `out` is a file, or a folder that is no bundle; or the key cannot sign.
        IntegrityError: the model is no deployment graph for one file.
        DataError: a raw image that belongs into the golden vectors cannot be read.
        OSError: the disk is full or the folder cannot be written; what stood there is untouched.
    """
    refuse_strangers(out)
    contents, evidence = _contents(parts)
    # The bill of materials names the content digest, which covers no evidence: known before the manifest is whole.
    told = _made(parts, contents, seal(_manifest(parts, contents, {}))["content_digest"])
    evidence[names.SBOM] = sbom(told).encode()
    values = seal(_manifest(parts, contents, evidence))
    files = {**contents, **evidence, names.NAME: manifest_bytes(values)}
    if key is not None:
        files[SIGNATURE] = sign(parts.name, files, key)
    with new_folder(out) as folder:
        for name, data in files.items():
            write_atomic(folder / name, data)
        for path in parts.more:
            (folder / path.name).chmod(path.stat().st_mode & 0o777)  # a script stays one
        manifest, _ = read_files(folder)  # what a device would say of it
    return manifest


def refuse_strangers(out: Path) -> None:
    """Refuse to replace what is not a bundle: the folder is removed whole.

    Raises:
        UsageError: `out` is a file or a link, or holds what is no part of a bundle.
    """
    swap.refuse_strangers(out, FILES | _listed(out), "a bundle")


def _listed(out: Path) -> set[str]:
    """Return what the manifest of an older bundle in `out` lists: a target's own files have any name."""
    try:
        values = json.loads((out / names.NAME).read_bytes())
        return {*map(str, values["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _contents(parts: Parts) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the files the device relies on, and the evidence."""
    model = parts.model.read_bytes()
    tokenizer = {} if parts.images is not None else {names.TOKENIZER: (parts.data / names.TOKENIZER).read_bytes()}
    contents = {
        names.MODEL: model,
        **tokenizer,
        **{path.name: path.read_bytes() for path in parts.more},
        names.GOLDEN: vectors.to_bytes(_golden(parts, Model(model, str(parts.model)))),
        names.LICENSES: licenses_markdown(parts.name, parts.licenses).encode(),
    }
    record = json.dumps(parts.report_json, indent=1, ensure_ascii=False, allow_nan=False)
    evidence = {names.REPORT_HTML: parts.report_html, names.REPORT_JSON: record + "\n", names.CARD: parts.model_card}
    return contents, {name: text.encode() for name, text in evidence.items()}


def _made(parts: Parts, contents: Mapping[str, bytes], content_digest: str) -> Made:
    return Made(
        name=parts.name,
        content_digest=content_digest,
        model_sha256=sha256_bytes(contents[names.MODEL]),
        started=str(parts.run["started"]),
        versions=parts.run["versions"],
        licenses=parts.licenses,
        texts=parts.images is None,
    )


def _golden(parts: Parts, model: Model) -> vectors.Golden:
    """Take validation rows, spread over the split; the expected scores are what the packed model gives, batch 1."""
    with (parts.data / "rows.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == _GOLDEN_SPLIT]
    if not rows:
        raise DataError(f"{parts.data}: no {_GOLDEN_SPLIT} rows to make golden vectors of")
    chosen = [rows[index] for index in vectors.spread(len(rows), vectors.ROWS)]
    inputs, raw = _inputs(parts, chosen)
    return vectors.Golden(
        inputs=inputs,
        scores=np.concatenate([model.scores(one_row(inputs, index)) for index in range(len(chosen))]),
        raw=raw,
        atol=vectors.tolerance(parts.precision),
    )


def _inputs(parts: Parts, chosen: Sequence[Mapping[str, Any]]) -> tuple[Feeds, tuple[bytes, ...]]:
    """Return `chosen` rows as the graph takes them, and the first of them raw."""
    indices = [row["index"] for row in chosen]
    if parts.images is not None:
        pixels = np.load(parts.data / "pixels.npy", mmap_mode="r")[indices]
        return {INPUT: pixels}, vectors.read_raw([parts.images / row["path"] for row in chosen])
    contract = TextContract.from_json(json.loads((parts.data / "dataset.json").read_bytes())["input"])
    tokens = TokenTable.open(parts.data / "tokens.npz", contract)
    texts = [row["text"] if row["pair"] is None else (row["text"], row["pair"]) for row in chosen[: vectors.RAW_ROWS]]
    return tokens.feeds(indices), tuple(vectors.text_to_bytes(text) for text in texts)


def _manifest(parts: Parts, contents: Mapping[str, bytes], evidence: Mapping[str, bytes]) -> dict[str, Any]:
    dataset = json.loads((parts.data / "dataset.json").read_bytes())
    # A round trip makes plain what asdict leaves: enums as text, tuples as lists.
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "schema": names.SCHEMA,
                "name": parts.name,
                "task": dataset["task"],
                "classes": dataset["classes"],
                "ok_class": dataset["ok_class"],
                "input": contract_from_json(dataset["input"]).to_json(),
                "decision": {**parts.decision, "model": sha256_bytes(contents[names.MODEL])},
                "target": parts.target,
                "model": names.MODEL,
                "precision": parts.precision,
                "gates": [asdict(gate) for gate in parts.gates],
                "measurements": dict(parts.measurements),
                "files": {name: sha256_bytes(data) for name, data in contents.items()},
                "evidence": {name: sha256_bytes(data) for name, data in evidence.items()},
                "run": dict(parts.run),
            },
            allow_nan=False,
        )
    )
    return plain
