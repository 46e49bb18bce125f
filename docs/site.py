"""Pages of the site that lie above docs/: README as its first page, changes, log, how to contribute.

Links that lead out of docs/ are made to lead to these pages, or to the text of the file as the site has it.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
NAMES = ("CHANGELOG.md", "LOG.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = {"README.md": "index.md", **{name: name for name in NAMES}}  # on the site, by their place here
LINK = re.compile(r"(?<=\]\()[^)#\s]+(?=[)#])|(?<=src=\")[^\"]+|(?<=srcset=\")[^\"]+")  # in Markdown, of pictures
SHIM = "https://unpkg.com/iframe-worker/shim"


def on_files(files, config):
    """Add the pages, and what they and others link to beside docs/."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text("utf-8")))
    for path in sorted([*ROOT.glob("examples/*.py"), *ROOT.glob("src/darkvocab/*/__init__.py")]):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), content=path.read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn each link to where the file lies on the site."""
    place = page.file.src_uri
    source = next((name for name, at in PAGES.items() if at == place), f"docs/{place}")

    def turned(match):
        target = (ROOT / source).parent.joinpath(match[0]).resolve()
        if "://" in match[0] or not target.is_relative_to(ROOT):
            return match[0]
        inside = target.relative_to(ROOT).as_posix()
        return "../" * place.count("/") + PAGES.get(inside, inside.removeprefix("docs/"))

    return LINK.sub(turned, markdown)


def on_post_page(output, page, config):
    """Take the library that searches pages on the disk from the site itself, not from a server."""
    return output.replace(SHIM, "../" * page.file.src_uri.count("/") + "vendor/iframe-worker.js")


def on_post_template(output, template_name, config):
    """Do so on the page for what is not found."""
    return output.replace(SHIM, "/vendor/iframe-worker.js")
