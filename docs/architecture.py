"""Draw docs/images/architecture.svg, the house in one picture, from the imports. python docs/architecture.py"""

from __future__ import annotations

from html import escape
from pathlib import Path

import grimp

ROOT = "darkvocab"
PICTURE = Path(__file__).with_name("images") / "architecture.svg"
WIDTH, ROOM, GAP, RISE = 1120, 56, 18, 62  # of the picture; height of a room, between rooms, between ranks
STYLE = """
text { font: 15px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
.name { font-weight: 600 }
.what { font-size: 12px; fill: #59636e }
rect { fill: #f6f8fa; stroke: #8c959f; rx: 8 }
.wing { fill: #ddf4ff; stroke: #0969da }
path { fill: none; stroke: #8c959f; stroke-width: 1.3; marker-end: url(#tip) }
marker path { fill: #8c959f; stroke: none; marker-end: none }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .what { fill: #9198a1 }
  rect { fill: #151b23; stroke: #656c76 } .wing { fill: #0c2d6b; stroke: #4493f8 }
  path { stroke: #656c76 } marker path { fill: #656c76 }
}
"""
WINGS = ("checkpoints", "snowballs", "training", "verification", "corpora", "studies")
RANKS = (  # of the layers contract in pyproject.toml, from the top
    ("cli",),
    ("corpora", "notebooks", "studies", "verification"),
    ("checkpoints", "snowballs", "training", "reports"),
    ("measures",),
    ("embedding",),
    ("gpu", "runs"),
    ("numerics", "sources"),
    ("extras", "landing", "memory", "progress", "text", "errors"),
)
EVERYWHERE = RANKS[-1]  # imported by all, and drawn without arrows
SHIFT = {"cli": 110, "embedding": 60}  # so that fewer arrows pass behind a room
WHAT = {
    "cli": "commands: parse, call, print",
    "corpora": "which do my own texts use?",
    "studies": "what breaks a black hole?",
    "notebooks": "do the notebooks' figures hold?",
    "verification": "which does the model fail on?",
    "checkpoints": "which tokens are dark in my model?",
    "snowballs": "how does such structure arise?",
    "training": "watch it happen",
    "reports": "tables, figures, pages",
    "measures": "census, geometry, neighbours, indicators, vocabulary",
    "embedding": "the matrix, the search for it, its history",
    "gpu": "devices and their kernels",
    "runs": "run folders, records, engines, randomness",
    "numerics": "number grids, grouping, distances, kernels",
    "sources": "files, the Hub, tokenizers",
    "extras": "optional packages",
    "landing": "files whole, or not at all",
    "memory": "given back",
    "progress": "how much is done",
    "text": "text that is safe to print",
    "errors": "the tree of errors",
}


def arrows() -> list[tuple[str, str]]:
    """Return who imports whom among the rooms, without what follows from the other arrows (transitive reduction)."""
    graph = grimp.build_graph(ROOT, exclude_type_checking_imports=True)
    rooms = [room for rank in RANKS for room in rank]
    known = {child.split(".")[1] for child in graph.find_children(ROOT)}
    if known != set(rooms):
        raise SystemExit(f"docs/architecture.py does not place {', '.join(sorted(known ^ set(rooms)))}")
    direct = {
        room: {
            other
            for other in rooms
            if other != room
            and other not in EVERYWHERE
            and graph.direct_import_exists(importer=f"{ROOT}.{room}", imported=f"{ROOT}.{other}", as_packages=True)
        }
        for room in rooms
    }

    def reached(room: str) -> set[str]:
        return direct[room].union(*(reached(other) for other in direct[room]))

    return [
        (room, other)
        for room in rooms
        for other in rooms
        if other in direct[room] and not any(other in reached(third) for third in direct[room] - {other})
    ]


def places() -> dict[str, tuple[float, float, float]]:
    """Return x of the middle, y of the top and width of every room."""
    placed = {}
    for depth, rank in enumerate(RANKS):
        width = min((WIDTH - GAP * (len(rank) + 1)) / len(rank), 340)
        left = (WIDTH - len(rank) * width - (len(rank) - 1) * GAP) / 2
        for number, room in enumerate(rank):
            placed[room] = (
                left + number * (width + GAP) + width / 2 + SHIFT.get(room, 0),
                GAP + depth * (ROOM + RISE),
                width,
            )
    return placed


def svg() -> str:
    """Return the picture as SVG, which follows the reader's light or dark mode."""
    placed = places()
    height = GAP * 2 + len(RANKS) * ROOM + (len(RANKS) - 1) * RISE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Rooms of darkvocab, and who imports whom</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    for importer, imported in arrows():
        x, y, _ = placed[importer]
        to_x, to_y, to_width = placed[imported]
        y += ROOM
        end_x = min(max(x, to_x - to_width / 2 + 30), to_x + to_width / 2 - 30) * 0.5 + to_x * 0.5
        bend = (to_y - y) / 2
        parts.append(
            f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {end_x:.0f} {to_y - bend:.0f} {end_x:.0f} {to_y:.0f}"/>'
        )
    for room, (x, y, width) in placed.items():
        kind = ' class="wing"' if room in WINGS else ""
        parts += [
            f'<rect{kind} x="{x - width / 2:.0f}" y="{y:.0f}" width="{width:.0f}" height="{ROOM}"/>',
            f'<text class="name" x="{x:.0f}" y="{y + 24:.0f}">{room}</text>',
            f'<text class="what" x="{x:.0f}" y="{y + 43:.0f}">{escape(WHAT[room])}</text>',
        ]
    y = placed[EVERYWHERE[0]][1] - 14
    parts.append(f'<text class="what" x="{WIDTH / 2:.0f}" y="{y:.0f}">every room may import these</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg())
