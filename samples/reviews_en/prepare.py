"""Writes reviews.csv: 10,072 movie-review snippets with a label, from PyPI's vaderSentiment 0.5 (MIT).

    python samples/reviews_en/prepare.py

Raters gave each snippet -4 to 4; those nearer to 0 than 0.5 are left out, 4,996 of the others are positive. pip fetches
the source archive; nothing of it is run.
"""

import csv
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

NEUTRAL = 0.5
OUT = Path(__file__).with_name("reviews.csv")


def snippets(archive: Path) -> list[tuple[str, float]]:
    """Return (text, rating) of every snippet in the source archive."""
    with zipfile.ZipFile(archive) as outer:
        inner = next(name for name in outer.namelist() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        with outer.open(inner) as file, tarfile.open(fileobj=file) as tar:
            member = next(name for name in tar.getnames() if name.endswith("movieReviewSnippets_GroundTruth.txt"))
            opened = tar.extractfile(member)
            lines = opened.read().decode("utf-8", "replace").splitlines() if opened else []
    return [(text, float(rating)) for _, rating, text in (line.split("\t") for line in lines)]


def main() -> None:
    """Fetch the archive and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, "vaderSentiment==0.5"], check=True)
        found = snippets(next(Path(folder).glob("*.zip")))
    clear = [(text.strip(), rating) for text, rating in found if abs(rating) >= NEUTRAL]
    kept = [(text, "positive" if rating > 0 else "negative") for text, rating in clear]
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(kept)
    print(f"{OUT}: {len(kept)} snippets, {sum(label == 'positive' for _, label in kept)} positive")


if __name__ == "__main__":
    main()
