"""The page around the sections: head, content security policy, contents, footer.

The policy allows data: pictures and this very stylesheet (by its sha256) and nothing else: no script, no font, no
connection. So whatever a record holds, the page cannot run or fetch it.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from edgeft.report.markup import Content, Markup, element, join


def page(title: str, contents: Sequence[tuple[str, str]], header: Content, sections: Content, footer: Content) -> str:
    """Return the whole HTML document.

    Args:
        title: the window's title.
        contents: (anchor, name) of each section, for the navigation.
        header: what stands above the navigation.
        sections: the sections in order.
        footer: what stands below.
    """
    style = resources.files("edgeft.report").joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(style)),
    )
    links = (element("li", element("a", name, href=f"#{anchor}")) for anchor, name in contents)
    body = element(
        "body",
        element("div", header, class_="wrap"),
        element("nav", element("ul", *links), aria_label="Contents"),
        element("main", sections, class_="wrap"),
        element("footer", footer, class_="wrap"),
    )
    return join(Markup("<!doctype html>\n"), element("html", head, "\n", body, lang="en"), "\n")


def policy(style: str) -> str:
    """Return the content security policy that allows data: pictures and `style`, and nothing else."""
    pinned = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{pinned}'; base-uri 'none'; form-action 'none'"
