"""What the target runs in float or rounds by itself although the model is compressed: each operator with its reason."""

from edgeft.report.blocks import absent, name, section, table
from edgeft.report.markup import Markup
from edgeft.report.reading import FP32, View, candidate, chosen


def lint(record: View) -> Markup:
    """Return the section: the linter's findings and the layers that compress skipped."""
    title = "Operators left in float"
    ship = record.text("linted") or chosen(record)
    findings = record.views("lint")
    skipped = candidate(record, ship).views("skipped")
    if ship == FP32:
        return section("lint", title, absent("fp32 ships: every operator runs in float."))
    if "lint" not in record.data and not skipped:
        return section("lint", title, absent("The target's graph was not linted in this run."))
    if not findings and not skipped:
        return section("lint", title, absent("None: the target runs every operator in the compressed type."))
    findings = sorted(findings, key=lambda finding: finding.flag("expected") is True)
    rows = [
        [
            name(f.text("node")),
            f.text("op_type"),
            "by design" if f.flag("expected") else "unexpected",
            f.text("reason"),
            f.text("mend") or "none known",
        ]
        for f in findings
    ]
    rows += [[name(item.text("layer")), "", "skipped by compress", item.text("reason"), ""] for item in skipped]
    surprises = sum(1 for f in findings if not f.flag("expected"))
    other = "" if ship == chosen(record) else f"Of {ship}, which does not ship: "
    lead = f"{other}{len(rows)} in all, {surprises or 'none'} unexpected."
    header = ["node", "operator", "kind", "reason", "what would mend it"]
    return section(
        "lint",
        title,
        table("Operators that the target runs in float or rounds by itself", header, rows, words=(1, 2, 3, 4)),
        lead=lead,
    )
