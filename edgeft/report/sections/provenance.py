"""Where it comes from: stages as they ran, the recipe, machine and versions."""

import json

from edgeft.core.stage import Json
from edgeft.report.blocks import absent, digest, facts, name, plain, section, table
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import duration, size
from edgeft.report.reading import View, finite


def stages(record: View) -> Markup:
    """Return what ran, what was reused, why, and what each stage wants a reader to know."""
    found = record.views("stages")
    if not found:
        return section("stages", "Stages", absent("No stage is in this record."))
    rows: list[list[Content]] = [
        [
            stage.text("name"),
            stage.text("method"),
            "reused" if stage.flag("reused") else "ran",
            duration(stage.number("seconds")),
            stage.text("reason"),
            digest(stage.text("key")) if stage.text("key") else "not cached",
        ]
        for stage in found
    ]
    reused = sum(1 for stage in found if stage.flag("reused"))
    lead = f"{reused} of {len(found)} stages reused; the run took {duration(record.number('seconds'))}."
    header = ["stage", "method", "did it run", "time", "why", "key"]
    notes = [
        element("li", element("b", stage.text("name"), ": "), text) for stage in found for text in stage.names("notes")
    ]  # fmt: skip
    remarks = join(element("h3", "Notes of the stages"), element("ul", *notes, class_="notes")) if notes else None
    return section("stages", "Stages", table("Stages in order", header, rows, words=(1, 2, 4, 5)), remarks, lead=lead)


def recipe(record: View) -> Markup:
    """Return the recipe as written and as resolved."""
    written = record.text("recipe_text")
    resolved = record.at("recipe").data
    return section(
        "recipe",
        "Recipe",
        element("pre", element("code", written)) if written else absent("The recipe's text is not in this record."),
        element(
            "details",
            element("summary", "Resolved, with every default"),
            element("pre", element("code", json.dumps(resolved, indent=2, ensure_ascii=False))),
        )
        if resolved
        else None,
    )


def machine(record: View) -> Markup:
    """Return the machine and versions that the numbers belong to."""
    run: list[tuple[str, Content]] = [
        ("run", name(record.text("run")) if record.text("run") else "not recorded"),
        ("started", record.text("started") or "not recorded"),
        ("took", duration(record.number("seconds"))),
        ("seed", record.text("seed") or "not recorded"),
        ("exit code", record.text("exit_code") or "not recorded"),
    ]
    return section(
        "machine",
        "Machine and versions",
        facts(run),
        _mapping("Machine", record.at("machine"), "The machine is not recorded."),
        _mapping("Versions", record.at("versions"), "The versions are not recorded."),
    )


def _mapping(title: str, values: View, missing: str) -> Markup:
    heading = element("h3", title)
    if not values:
        return join(heading, absent(missing))
    return join(heading, facts(_fact(key, value) for key, value in values.data.items()))


def _fact(key: str, value: Json) -> tuple[str, str]:
    if key.endswith("_bytes"):
        return key.removesuffix("_bytes").replace("_", " "), size(finite(value))
    return key.replace("_", " "), "not known" if value is None else plain(value)
