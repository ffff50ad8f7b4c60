"""Does the device compute what training computed: hop by hop, then every changed decision as a picture."""

import math

from edgeft.report.blocks import absent, badge, name, note, section, table
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import MISSING, count, fixed, general, percent, significant
from edgeft.report.pictures import Pictures
from edgeft.report.reading import View, chosen, rows_word
from edgeft.report.sections.decisions import Pair, grouped, harmful, helpful
from edgeft.report.sentences import metric_name

_LAYERS = 8
"""Layers that are shown; report.json lists all."""


def hops(record: View) -> Markup:
    """Return the table of hops."""
    found = record.at("verify").views("hops")
    if not found:
        return section("parity", "Parity, hop by hop", absent("No hop was compared: the run stopped before verify."))
    rows = [_hop(hop) for hop in found]
    header = [
        "hop",
        "verdict",
        "largest logit error",
        "mean logit error",
        "tolerance",
        "changed decisions",
        "agreement",
        "n",
    ]
    lead = (
        f"The same test {rows_word(record)} through each step from the trained model to raw inputs on this machine, "
        "so that a fault names its step."
    )
    faults = [
        element("li", element("b", hop.text("name"), ": "), hop.text("detail")) for hop in found if hop.text("detail")
    ]
    details = element("ul", *faults, class_="notes") if faults else None
    caption = "Hops on the test split; the hop that compresses has no tolerance, the accuracy gate judges it"
    return section(
        "parity",
        "Parity, hop by hop",
        table(caption, header, rows, words=(1,)),
        details,
        _on_device(record.at("device")),
        _attribution(record.at("verify", "attribution"), chosen(record), rows_word(record)),
        lead=lead,
    )


def _on_device(found: View) -> Markup | None:
    """Return the bundle's last hop, where it was replayed on another machine."""
    told = found.at("check")
    if not told:
        return None
    return element(
        "p",
        element("b", f"The bundle on {found.text('address')}: "),
        f"{count(told.number('golden_rows'))} golden vectors replayed, {count(told.number('raw_rows'))} of them from "
        f"raw inputs; scores differ by at most {_error(told.number('max_abs_score_error'))} "
        f"(allowed {_error(told.number('atol'))}).",
    )


def _attribution(found: View, ship: str, rows_are: str) -> Markup | None:
    """Return which layers add most to the error between fp32 and what ships, and the layers at fault."""
    layers = found.views("layers")
    if not layers:
        return None
    furthest = sorted(layers, key=lambda layer: _decibels_or(layer.at("alone"), math.inf))[:_LAYERS]
    rows: list[list[Content]] = [
        [
            name(layer.text("layer")),
            layer.text("op"),
            _decibels(layer.at("alone")),
            _decibels(layer.at("drifted")),
            fixed(layer.at("drifted").number("cosine") or 0.0, 5),
        ]
        for layer in furthest
    ]
    faults = [
        element(
            "li",
            element("b", f"{fault.text('layer')}, {fault.text('kind')}: "),
            f"{fault.text('detail')}. {fault.text('advice')}",
        )
        for fault in found.views("findings")
    ]
    n = count(found.number("n"))
    caption = f"fp32 > {ship}: the {len(rows)} of {len(layers)} layers that add most, on {n} test {rows_are}"
    words = (
        "Alone: the layer fed with fp32's own tensors, so that no earlier error is in it. Drifted: with all errors "
        "before it. Signal to noise in dB; rounding to 8 bits leaves 20 to 50."
    )
    sound = note(
        "No layer is at fault: what differs is rounding as it should be."
        if found.flag("judged")
        else "No layer is judged: activations were swapped and healed by training, so layers hold other weights."
    )
    return join(
        element("h3", "Layer by layer"),
        _split(found.at("split"), ship, rows_are),
        table(caption, ["layer", "operator", "alone", "drifted", "cosine"], rows, words=(1,)),
        element("ul", *faults, class_="notes") if faults else sound,
        note(words),
    )


def _split(found: View, ship: str, rows_are: str) -> Markup | None:
    if not found:
        return None
    causes = {
        "weights": "weights and biases in 8 bits, activations in float",
        "clipping": "activations clipped to their ranges",
        "rounding": "activations rounded to 8 bits",
        "runtime": "the runtime's integer kernels instead of operator by operator",
        "total": f"fp32 to {ship}",
    }
    rows: list[list[Content]] = [
        [name(key), what, significant(found.number(key) or 0.0)] for key, what in causes.items()
    ]
    caption = f"What the error of {found.text('tensor')} is made of, on {count(found.number('n'))} test {rows_are}"
    words = "Each cause is added to those before it; as vectors they sum to the total, their sizes need not."
    return join(table(caption, ["cause", "what", "mean absolute error"], rows, words=(1,)), note(words))


def _decibels(distance: View) -> str:
    value = distance.number("sqnr_db")
    return "equal" if value is None else fixed(value, 1)


def _decibels_or(distance: View, equal: float) -> float:
    value = distance.number("sqnr_db")
    return equal if value is None else value


def _hop(hop: View) -> list[Content]:
    tolerance = hop.number("tolerance")
    return [
        hop.text("name"),
        badge(hop.text("verdict")) if hop.text("verdict") else "reported",
        _error(hop.number("max_abs_logit_error")),
        _error(hop.number("mean_abs_logit_error")),
        "none" if tolerance is None else general(tolerance),
        count(hop.number("flips")),
        percent(hop.number("agreement"), 2),
        count(hop.number("n")),
    ]


def _error(value: float | None) -> str:
    return MISSING if value is None else significant(value)


def flips(record: View, pictures: Pictures) -> Markup:
    """Return the changed decisions, harmful ones first, each with its picture."""
    verified = record.at("verify")
    found = verified.views("flips")
    ship = chosen(record)
    if not verified:
        return section("flips", "Changed decisions", absent("No decision was compared: the run stopped before verify."))
    if not found:
        n = count(verified.number("n"))
        return section(
            "flips",
            "Changed decisions",
            absent(f"None: {ship or 'the shipped model'} decides as fp32 does on all {n} test {rows_word(record)}."),
        )
    pair = Pair("fp32", "chosen", "fp32", ship or "what ships")
    total = verified.number("n")
    share = f" of {count(total)} ({percent(len(found) / total, 2)})" if total else ""
    bound = " The drop in accuracy cannot exceed this rate." if metric_name(record) == "accuracy" else ""
    bad, good = count(len(harmful(found))), count(len(helpful(found, pair)))
    lead = f"{count(len(found))}{share} test {rows_word(record)}: {bad} harmful, {good} helpful.{bound}"
    return section("flips", "Changed decisions", *grouped(found, pair, pictures), lead=lead)
