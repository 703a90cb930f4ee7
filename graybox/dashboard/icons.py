"""Icons from the application's own assets, in the colour of the text around them."""

from __future__ import annotations

from dash import html

from graybox.dashboard.attributes import attributes


def icon(name: str, size: int = 18) -> html.Span:
    """The icon assets/icons/<name>.svg, `size` pixels wide. Decorative: hidden from screen readers."""
    return html.Span(
        className="gb-icon",
        style={"--icon": f"url(/assets/icons/{name}.svg)", "width": size, "height": size},
        **attributes({"aria-hidden": "true"}),
    )
