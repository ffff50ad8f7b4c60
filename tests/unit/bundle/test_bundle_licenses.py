from pathlib import Path

import pytest

from edgeft.bundle.licenses import NOT_STATED, license_of, licenses_markdown

METADATA = "Metadata-Version: 2.4\nName: {name}\nVersion: 1.2\n{extra}\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, name: str, extra: str, licence: str | None = None) -> str:
    info = site / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=name, extra=extra))
    record = "x/__init__.py,,\n"
    if licence is not None:
        (info / "LICENSE").write_text(licence)
        record += f"{info.name}/LICENSE,,\n"
    (info / "RECORD").write_text(record)
    return f"package:{name.replace('-', '_')}/data/x.csv"


def test_stated_licences_are_quoted(site: Path) -> None:
    spdx = license_of("data", install(site, "eft-spdx", "License-Expression: CC-BY-NC-SA-4.0", "terms of use"))
    assert (spdx.expression, spdx.distribution, spdx.texts) == ("CC-BY-NC-SA-4.0", "eft-spdx 1.2", ("terms of use",))
    assert spdx.non_commercial
    classifier = install(site, "eft-class", "Classifier: License :: OSI Approved :: MIT License")
    assert license_of("data", classifier).expression == "MIT License"


def test_a_licence_file_speaks_where_metadata_is_silent(site: Path) -> None:
    source = install(site, "eft-file", "License: UNKNOWN", "Apache Software License 2.0\n\nCopyright ...")
    found = license_of("model weights", source)
    assert found.expression == "Apache-2.0"
    assert not found.non_commercial


@pytest.mark.parametrize("source", ["./images", "package:eft_not_installed/x.csv", "hub"])
def test_silence_is_no_permission(source: str) -> None:
    assert license_of("data", source).expression == NOT_STATED


def test_the_page_warns_first_and_quotes_each_text_once(site: Path) -> None:
    data = license_of("data", install(site, "eft-data", "License-Expression: CC-BY-NC-4.0", "the terms"))
    weights = license_of("model weights", "./weights.pth")
    page = licenses_markdown("solar", [data, data, weights])
    assert "forbids commercial use" in page
    assert page.index("forbids commercial use") < page.index("    the terms")
    assert page.count("the terms") == 1
    assert "No licence is stated for the model weights (./weights.pth)" in page
