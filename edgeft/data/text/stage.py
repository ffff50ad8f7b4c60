"""The data stage of texts: classes, splits and tokens that never change again."""

import io
import time
from collections.abc import Sequence

import numpy as np

from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, UsageError
from edgeft.core.events import Message, Progress
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.audit.counts import certifiable_margin, class_counts, count
from edgeft.data.audit.finding import Finding
from edgeft.data.audit.shift import class_shift
from edgeft.data.dataset import TOKENIZER, TOKENS, VOCABULARY
from edgeft.data.divide import divided
from edgeft.data.partition import SPLITS
from edgeft.data.sources.rows import SourceRow, read_table, read_texts
from edgeft.data.text.audit import cut_texts, deduplicated, scripts
from edgeft.data.text.config import TextDataConfig, TextInputConfig
from edgeft.data.text.vocabulary import Trimmed, trim
from edgeft.data.unlabelled import UNLABELLED, read_unlabelled_texts, unlabelled_row
from edgeft.data.writing import header, numbered, plain, require_domains, write_header, write_rows
from edgeft.runtime.text import Text, TextContract, TextEncoder, Tokens, TokenTable

_CHUNK = 1024


def run(ctx: Context, inputs: Inputs, config: TextDataConfig) -> StageResult:
    """Read, divide, audit and encode the texts; write dataset.json, rows.jsonl, tokens.npz and tokenizer.json.

    Where the vocabulary is trimmed, vocabulary.npy, too.

    Args:
        ctx: where to write.
        inputs: "source", the table; "tokenizer", the model's tokenizer.json.
        config: the `data:` block with `input` filled in.

    Raises:
        DataError: the data cannot be used; the message names the file, row, class or split.
        IntegrityError: the tokenizer's file is none.
        UsageError: an expression's syntax is wrong, or `config.input` is missing.
        DeviceError: the disk is full, or a library for the table's format is missing.
    """
    started = time.perf_counter()
    tokenizer = inputs["tokenizer"].read_bytes()
    contract = text_contract(config.input, tokenizer, pair=config.columns.pair is not None)
    encoder = TextEncoder(contract, tokenizer)
    table = read_table(inputs["source"], delimiter=config.delimiter, names=config.columns.names)
    rows = read_texts(table, config.columns)
    _refuse_empty(rows)
    kept = deduplicated(rows, config.duplicates)
    found = divided(kept.rows, config, table.ignored)
    texts = [_source(row) for row in found.rows]
    more, told = _unlabelled(inputs, config, found.rows)
    texts += [text if pair is None else (text, pair) for _, text, pair in more]
    splits = [*found.splits, *(UNLABELLED for _ in more)]
    trimmed = _trimmed(ctx, config, tokenizer, contract, texts, splits)
    if trimmed is not None:
        tokenizer, encoder, contract = trimmed.tokenizer, trimmed.encoder, trimmed.encoder.contract
    tokens: list[Tokens] = []
    lengths: list[int] = []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        tokens += encoder.tokens(chunk)
        lengths += encoder.lengths(chunk)
        ctx.emit(Progress("tokens", min(start + _CHUNK, len(texts)), len(texts)))
    counts = count(found.splits, [row.label for row in found.rows], found.classes, SPLITS)
    findings = [
        *found.findings,
        *kept.findings,
        *([] if trimmed is None else [trimmed.finding]),
        *told,
        cut_texts(np.asarray(lengths), contract.max_length),
        scripts([row.text or "" for row in found.rows], found.splits),
        class_counts(counts, "texts"),
        class_shift(counts),
        certifiable_margin(sum(counts["test"].values()), "texts"),
    ]
    write_atomic(ctx.folder / TOKENS, TokenTable.of(tokens, contract).to_bytes())
    write_atomic(ctx.folder / TOKENIZER, tokenizer)
    digests = [_digest(row.text, row.pair) for row in found.rows]
    numbers = numbered(found.rows, found.splits, digests, found.classes)
    require_domains(config.mix, numbers)
    extra = [
        unlabelled_row(len(numbers) + number, path, _digest(text, pair), text, pair)
        for number, (path, text, pair) in enumerate(more)
    ]
    write_rows(ctx.folder / "rows.jsonl", [*numbers, *extra])
    described = header("text_classification", found.classes, config, contract, counts, findings)
    described["n"] = len(texts)
    write_header(ctx.folder / "dataset.json", described)
    notes = tuple(f"{finding.check}: {finding.message}" for finding in findings if finding.severity != "info")
    for note in notes:
        ctx.emit(Message(note, warning=True))
    measurements: dict[str, Json] = {
        "n": len(texts),
        "classes": list(found.classes),
        "counts": plain(counts),
        "tokens": int(sum(len(one.ids) for one in tokens)),
    }
    return StageResult(ctx.folder, measurements, notes, {"seconds": time.perf_counter() - started})


def _unlabelled(
    inputs: Inputs, config: TextDataConfig, rows: Sequence[SourceRow]
) -> tuple[list[tuple[str, str, str | None]], list[Finding]]:
    if UNLABELLED not in inputs:
        return [], []
    labelled = [(row.text or "", row.pair) for row in rows]
    source, limit = inputs[UNLABELLED], config.unlabelled_limit
    found, finding = read_unlabelled_texts(source, limit, config.delimiter, config.columns, labelled)
    return found, [finding]


def _digest(text: str | None, pair: str | None) -> str:
    return sha256_bytes("\0".join([text or "", pair or ""]).encode())


def _trimmed(
    ctx: Context,
    config: TextDataConfig,
    tokenizer: bytes,
    contract: TextContract,
    texts: Sequence[Text],
    splits: Sequence[str],
) -> Trimmed | None:
    """Trim the vocabulary and write what is kept of it, or return None where the recipe asks for all of it."""
    if config.input is None or config.input.vocabulary == "all":
        return None
    learned = {"train", UNLABELLED}
    train = [text for text, split in zip(texts, splits, strict=True) if split in learned]
    others = [text for text, split in zip(texts, splits, strict=True) if split not in learned]
    found = trim(tokenizer, contract, train, others, config.input.vocabulary_margin)
    buffer = io.BytesIO()
    np.save(buffer, found.kept)
    write_atomic(ctx.folder / VOCABULARY, buffer.getvalue())
    return found


def text_contract(config: TextInputConfig | None, tokenizer: bytes, *, pair: bool) -> TextContract:
    """Return the contract that `config` describes.

    Raises:
        UsageError: it is missing, or a value is out of range.
    """
    if config is None:
        raise UsageError("data.input is missing", hint="it comes from the model: give the recipe a model block")
    return TextContract(
        max_length=config.max_length,
        prefix=config.prefix,
        pad_id=config.pad_id,
        pair=pair,
        types=pair and config.has_types,
        tokenizer=sha256_bytes(tokenizer),
    )


def _refuse_empty(rows: Sequence[SourceRow]) -> None:
    empty = [row for row in rows if not (row.text or "").strip() or (row.pair is not None and not row.pair.strip())]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(rows)} texts are empty (first: {empty[0].where})",
            hint="remove these rows: what has no text has nothing to be judged by",
        )


def _source(row: SourceRow) -> Text:
    text = row.text or ""
    return text if row.pair is None else (text, row.pair)
