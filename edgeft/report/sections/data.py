"""What it was trained and judged on: counts, audit findings, what was set aside."""

from collections.abc import Sequence

from edgeft.core.stage import Json
from edgeft.report.blocks import absent, listed, name, note, plain, section, table
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import count, percent
from edgeft.report.reading import View

_SEVERITIES = {"error": "fail", "warning": "inconclusive", "info": "unjudged"}
_SHOWN = 20
_NAMED = 12


def data(record: View) -> Markup:
    """Return the section."""
    dataset = record.at("data")
    if not dataset:
        return section("data", "Data", absent("No data set is in this record: the run stopped in the data stage."))
    classes = dataset.names("classes")
    named = ", ".join(classes[:_NAMED]) + (" ..." if len(classes) > _NAMED else "")
    lead = f"{count(dataset.number('n'))} images, {len(classes)} classes, order frozen: {named}."
    return section("data", "Data", _counts(dataset, classes), _audit(dataset), _quarantined(dataset), lead=lead)


def _counts(dataset: View, classes: Sequence[str]) -> Markup:
    counts = dataset.at("counts")
    splits = list(counts.data)
    if not splits:
        return absent("Counts by class and split are not recorded.")
    totals = {split: sum(counts.at(split).number(c) or 0 for c in classes) for split in splits}

    def cell(split: str, class_name: str) -> str:
        number = counts.at(split).number(class_name) or 0
        return f"{count(number)} ({percent(number / totals[split], 0)})" if totals[split] else "0"

    rows: list[list[Content]] = [
        [
            name(c),
            *(cell(split, c) for split in splits),
            count(sum(counts.at(split).number(c) or 0 for split in splits)),
        ]
        for c in classes
    ]
    rows.append(["all", *(count(totals[split]) for split in splits), count(sum(totals.values()))])
    return table("Images by class and split, with the class's share of the split", ["class", *splits, "all"], rows)


def _audit(dataset: View) -> Markup:
    findings = dataset.views("audit")
    if not findings:
        return join(element("h3", "Audit"), absent("The audit found nothing to report."))
    return join(element("h3", "Audit"), element("ul", *(_finding(finding) for finding in findings), class_="findings"))


def _finding(finding: View) -> Markup:
    severity = finding.text("severity") or "info"
    items = [_item(item) for item in finding.items("items")]
    numbers = finding.at("numbers").data
    details = ", ".join(f"{key.replace('_', ' ')} {plain(value)}" for key, value in numbers.items())
    return element(
        "li",
        element("span", severity, class_=f"badge {_SEVERITIES.get(severity, 'unjudged')}"),
        element(
            "div",
            element("p", element("b", finding.text("check").replace("_", " ")), " ", finding.text("message")),
            element("p", listed(items), class_="path") if items else None,
            element("p", details, class_="note") if details else None,
        ),
    )


def _item(item: Json) -> str:
    return " = ".join(plain(part) for part in item) if isinstance(item, list) else plain(item)


def _quarantined(dataset: View) -> Markup:
    found = dataset.views("quarantined")
    if not found:
        return join(element("h3", "Set aside"), absent("No file was set aside."))
    rows = [[name(item.text("path")), item.text("split"), item.text("reason")] for item in found[:_SHOWN]]
    rest = note(f"{count(len(found) - _SHOWN)} more are listed in report.json.") if len(found) > _SHOWN else None
    return join(
        element("h3", "Set aside"),
        table("Files that were not used, and why", ["file", "split", "reason"], rows, words=(1, 2)),
        rest,
    )
