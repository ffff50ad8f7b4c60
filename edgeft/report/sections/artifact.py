"""What ships: name, precision, size, target, digest, and what the device is told about its input."""

from edgeft.report.blocks import absent, digest, facts, listed, name, plain, section
from edgeft.report.markup import Content, Markup
from edgeft.report.reading import View, bundle_name, candidate, chosen
from edgeft.report.sentences import size_sentence


def artifact(record: View) -> Markup:
    """Return the artifact's facts."""
    ship = chosen(record)
    if not ship:
        return section(
            "artifact", "The artifact", absent("This run made no artifact: it stopped before a candidate was chosen.")
        )
    model = candidate(record, ship)
    data = record.at("data")
    targets = record.at("recipe", "lower").names("targets")
    pairs: list[tuple[str, Content]] = [
        ("name", name(bundle_name(record))),
        ("precision", model.text("precision") or ship),
        ("size", size_sentence(record)),
        ("compressed by", model.text("method") or "not recorded"),
        ("target", ", ".join(targets) or "not recorded"),
        (
            "content digest",
            digest(text, 16) if (text := record.text("content_digest")) else "in the bundle's manifest.json",
        ),
        ("classes, in order", listed(data.names("classes")) if data else "not recorded"),
        ("class of good parts", name(data.text("ok_class")) if data.text("ok_class") else "none named"),
        ("input", _input(data.at("input"))),
        ("why this candidate", record.at("choice").text("reason") or "not recorded"),
    ]
    if (unsafe := model.number("unsafe_pairs")) is not None:
        pairs.append(("unsafe weight pairs", f"{round(unsafe)} (0 means exact integer sums on every CPU generation)"))
    if (temperature := model.number("temperature")) is not None:
        pairs.append(("score temperature", f"{temperature:.3f}, fitted on validation through this model"))
    return section("artifact", "The artifact", facts(pairs))


def _input(contract: View) -> str:
    if not contract:
        return "not recorded"
    if (longest := contract.number("max_length")) is not None:
        prefix = f", each behind {contract.text('prefix')!r}" if contract.text("prefix") else ""
        tokenizer = contract.text("tokenizer")[:16]
        return f"texts of up to {round(longest)} tokens{prefix}; tokenizer.json with sha256 {tokenizer}..."
    resize = contract.text("resize").replace("_", " ")
    to = f" to {contract.text('resize_to')}, then a centre crop" if contract.text("resize_to") else ""
    return (
        f"RGB, {contract.text('height')} x {contract.text('width')} pixels, {resize}{to}, {contract.text('filter')}; "
        f"(pixel - {plain(contract.items('mean'))}) / {plain(contract.items('std'))}"
    )
