"""The look of every HTML view. All rules stand under one class, so that nothing leaks into the page around it.

Colours come from JupyterLab's theme, then VS Code's, then the system's light or dark preference. The page beneath is
left as it is; our own colours (palette) work on both.
"""

SCOPE = "mlsys-view"
SELECTOR = f".{SCOPE}" * 3  # as often as it takes: JupyterLab styles outputs by two classes and two elements

_RULES = """
{ --l-ink: #1c2127; --l-soft: #59636e; --l-line: #d5dae0; --l-paper: #ffffff; --l-accent: #1f6feb;
  --ink: var(--jp-content-font-color1, var(--vscode-editor-foreground, var(--l-ink)));
  --soft: var(--jp-content-font-color2, var(--vscode-descriptionForeground, var(--l-soft)));
  --line: var(--jp-border-color2, var(--vscode-panel-border, var(--l-line)));
  --paper: var(--jp-layout-color0, var(--vscode-editor-background, var(--l-paper)));
  --accent: var(--jp-content-link-color, var(--vscode-textLink-foreground, var(--l-accent)));
  color: var(--ink); font: 13px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  container-type: inline-size; max-width: 1100px; text-align: left; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
@dark { --l-ink: #e4e7eb; --l-soft: #9aa4af; --l-line: #363d45; --l-paper: #14171a; --l-accent: #6cb0ff }
h2 { font-size: 17px; line-height: 1.3; font-weight: 600; margin: 0; color: inherit }
h3 { font-size: 13px; line-height: 1.3; font-weight: 600; margin: 28px 0 8px; color: inherit }
p { margin: 4px 0; max-width: 100ch; text-wrap: pretty }
.soft { color: var(--soft) }
.numbers { display: flex; flex-wrap: wrap; gap: 8px 40px; margin: 18px 0 12px }
.numbers div { line-height: 1.25 }
.numbers b { display: block; font-size: 26px; font-weight: 600; letter-spacing: -0.01em; white-space: nowrap }
.numbers span { color: var(--soft) }
code { font: 12px/1.5 ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; color: inherit;
  background: none; padding: 0; border: 0; unicode-bidi: isolate; white-space: inherit }
.type { display: inline-block; border: 1px solid var(--line); border-radius: 4px; padding: 1px 8px; margin-top: 4px }
svg { display: block; margin-bottom: 8px; overflow: hidden; font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
svg .strong { font-weight: 600 }
svg .segment { stroke: var(--paper); stroke-width: 1px }
svg .warmup, .swatch.warmup { fill: #b4b8be; background: #b4b8be }
svg .clean, .swatch.clean { fill: #3576b8; background: #3576b8 }
svg .window, .swatch.window { fill: #d9962e; background: #d9962e }
svg .beyond { stroke: var(--ink); stroke-width: 2px; stroke-dasharray: 2 2; fill-opacity: 0.6 }
svg .median { stroke: var(--ink); stroke-width: 1px; stroke-dasharray: 4 3; opacity: 0.6 }
.wide { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; border: 0; margin: 0; width: 100%; font-size: 12.5px; color: inherit; table-layout: auto }
th { font-weight: 400; color: var(--soft); text-align: right; padding: 3px 8px; border: 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; background: none; vertical-align: bottom }
td { text-align: right; padding: 3px 8px; border: 0; white-space: nowrap; background: none; vertical-align: baseline }
tr { background: none; border: 0 }
th.left, td.left { text-align: left }
th:first-child, td:first-child { padding-left: 0 }
td.long { max-width: 0; overflow: hidden; text-overflow: ellipsis }
td.break { white-space: normal; min-width: 200px }
td.none { color: var(--soft); opacity: 0.5 }
tfoot td { border-top: 1px solid var(--line); font-weight: 600 }
.legend { display: flex; flex-wrap: wrap; gap: 2px 28px; color: var(--soft); margin: 0 }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 8px }
ol.findings { list-style: none; margin: 0; padding: 0 }
ol.findings li { display: grid; grid-template-columns: 28px 1fr auto; gap: 0 12px; padding: 10px 0; margin: 0;
  border-top: 1px solid var(--line) }
ol.findings li:first-child { border-top: 0; padding-top: 0 }
.nth { color: var(--soft); font-weight: 600 }
.gain { text-align: right; white-space: nowrap }
.gain b { display: block; font-size: 17px; line-height: 1.2; font-weight: 600 }
.title { font-weight: 600 }
.gauge { display: inline-block; width: 44px; height: 6px; border-radius: 3px; margin-left: 8px; vertical-align: 1px;
  background: linear-gradient(90deg, #3576b8 var(--part), rgba(128,136,146,0.28) var(--part)) }
ul { margin: 4px 0; padding-left: 18px }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: 2px 20px; margin: 4px 0 }
dt { color: var(--soft); font-weight: 400 }
dd { margin: 0 }
details { margin: 12px 0 }
summary { cursor: pointer; color: var(--soft) }
.slower { color: #d14b37; font-weight: 600 }
.faster { color: #16896a; font-weight: 600 }
.fail { color: #d14b37; font-weight: 600 }
.warn { color: #a5721a; font-weight: 600 }
.ok { color: #16896a; font-weight: 600 }
"""

# What there is no room for goes, least important first, or moves below: nothing is ever cut off.
_OTHERWISE = f"""@container (max-width: 800px) {{ {SELECTOR} .spare {{ display: none }} }}
@container (max-width: 560px) {{
{SELECTOR} .roomy {{ display: none }}
{SELECTOR} td.left {{ white-space: normal; overflow-wrap: break-word }}
{SELECTOR} td.break {{ min-width: 120px; overflow-wrap: anywhere }}
{SELECTOR} ol.findings li {{ grid-template-columns: 20px 1fr }}
{SELECTOR} ol.findings li .gain {{ grid-column: 2; text-align: left; white-space: normal; margin-top: 4px }}
{SELECTOR} ol.findings li .gain * {{ display: inline; margin-right: 10px }}
}}
@media print {{
{SELECTOR} {{ max-width: none; print-color-adjust: exact; -webkit-print-color-adjust: exact }}
{SELECTOR} details::details-content {{ content-visibility: visible; display: block }}
{SELECTOR} tr, {SELECTOR} li, {SELECTOR} svg {{ break-inside: avoid }}
{SELECTOR} .wide {{ overflow: visible }}
}}
"""


def _scoped(rules: str) -> str:
    """Each rule under the scope; `{ … }` alone is the scope itself, `@dark { … }` the same where the system is dark."""
    written = []
    for rule in rules.strip().split("}"):
        head, brace, body = (part.strip() for part in rule.partition("{"))
        if not brace:
            continue
        selectors = ", ".join(f"{SELECTOR} {part.strip()}" for part in head.split(","))
        if head == "@dark":
            written.append(f"@media (prefers-color-scheme: dark) {{ {SELECTOR} {{ {body} }} }}")
        else:
            written.append(f"{selectors if head else SELECTOR} {{ {body} }}")
    return "\n".join(written)


STYLE = _scoped(_RULES) + "\n" + _OTHERWISE
