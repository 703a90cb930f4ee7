"""Colours, type and shape, once: Mantine's theme, the grid's theme, and the page around both."""

from __future__ import annotations

from typing import Any

FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', Arial, sans-serif"
)
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace"

MANTINE: dict[str, Any] = {
    "primaryColor": "violet",
    "primaryShade": {"light": 6, "dark": 7},
    "fontFamily": FONT,
    "fontFamilyMonospace": MONOSPACE,
    "defaultRadius": "md",
    "colors": {
        "dark": [
            "#e6e7eb",
            "#b9bdc9",
            "#969bab",
            "#6b7080",
            "#383c47",
            "#2a2d36",
            "#22252d",
            "#16181d",
            "#0f1014",
            "#0a0b0e",
        ]
    },
}

GRID = {
    "function": "themeQuartz.withParams({"
    "backgroundColor:'var(--gb-surface)',foregroundColor:'var(--gb-text)',borderColor:'var(--gb-border)',"
    "headerBackgroundColor:'var(--gb-surface)',headerTextColor:'var(--gb-muted)',accentColor:'var(--gb-accent)',"
    "rowHoverColor:'var(--gb-hover)',selectedRowBackgroundColor:'var(--gb-selected)',"
    "fontFamily:'inherit',fontSize:13,headerFontSize:12,headerFontWeight:500,spacing:6,"
    "wrapperBorder:false,wrapperBorderRadius:0,columnBorder:false,headerColumnResizeHandleDisplay:'none',"
    "rowBorder:{color:'var(--gb-border)'},browserColorScheme:'inherit'})"
}
"""For dashGridOptions["theme"]; the variables are those of assets/style.css."""

INDEX = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <title>{%title%}</title>
        <link rel="icon" type="image/svg+xml" href="/assets/logo.svg">
        <script src="/assets/first/scheme.js"></script>
        {%css%}
    </head>
    <body>
        {%app_entry%}
        <footer>
            {%config%}
            {%scripts%}
            {%renderer%}
        </footer>
    </body>
</html>
"""
"""scheme.js sets light or dark before anything is painted."""
