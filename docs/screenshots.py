"""Take the README's pictures of the page that `make demo` leaves, on light and on dark paper: docs/screenshots.py"""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
WIDTH, MARGIN = 1000, 6  # pixels
SHOWN = "MetaInfoClass"  # the token that is pointed at


def main() -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        for paper in ("light", "dark"):
            page = browser.new_page(
                color_scheme=paper, viewport={"width": WIDTH, "height": 1200}, reduced_motion="reduce"
            )
            page.goto((ROOT / "demo/dark.html").as_uri())
            page.locator("html[data-ready]").wait_for(state="attached")
            page.locator("#log-y").check()
            plane = page.locator("#scatter")
            plane.focus()
            page.keyboard.press("Home")
            while plane.locator(".tip b").inner_text() != SHOWN:
                page.keyboard.press("ArrowRight")
            ring, box = plane.locator(".ring"), plane.bounding_box()
            place = [box[axis] + float(ring.get_attribute(f"c{axis}")) for axis in "xy"]
            plane.blur()
            page.mouse.move(*place)
            top = page.locator("#legend").bounding_box()["y"] - MARGIN
            area = {"x": 0, "y": top, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN - top}
            page.screenshot(path=ROOT / f"docs/images/smollm2-{paper}.png", clip=area)
        browser.close()


if __name__ == "__main__":
    main()
