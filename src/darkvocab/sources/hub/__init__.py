"""Models on the Hugging Face Hub, of which only the bytes that are looked at are read, by HTTP range.

A revision is pinned to its commit once, and every answer must be of the file that the commit's listing names: by its
content's hash (LFS: SHA-256, else git's), which is its ETag, and by its size. What arrives is kept, by that hash.
huggingface_hub has addresses, tokens, headers and limits; its own file system checks none of this and keeps no ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants, parse_hf_uri

from ...errors import CorruptFile, InvalidInput, MissingFile
from .cache import Entry, from_cache, is_commit, known_revisions, remember
from .repo import Repo
from .requests import ask


def parse(text: str) -> tuple[str, str | None, str]:
    """Return repository, revision (None: the default) and path in it, of `org/name[@revision][/path]`.

    Also with hf:// in front, or as an address of the Hub's pages.

    Raises
    ------
    InvalidInput
        None of these; a data set or a space.

    Examples
    --------
    >>> parse("org/name@step10/model.gguf")
    ('org/name', 'step10', 'model.gguf')
    """
    uri = parse_hf_uri(text if "://" in text else f"hf://{text}", endpoint=constants.ENDPOINT)
    if uri.type != "model":
        raise InvalidInput(f"{text!r} names a {uri.type}, not a model")
    return uri.id, uri.revision, uri.path_in_repo.rstrip("/")


def open_repo(name: str, revision: str | None, progress: Callable[[int, int], None] | None = None) -> Repo:
    """Open a repository: pin its revision to a commit, and list its files.

    Raises
    ------
    MissingFile, AccessRefused, Unreachable
        As `HubFile.bring`; no such repository or revision.
    CorruptFile
        The answer is no listing.
    """
    asked = revision or constants.DEFAULT_REVISION
    opened = from_cache(name, asked) if constants.is_offline_mode() or is_commit(asked) else None
    if opened is None and constants.is_offline_mode():
        raise MissingFile(
            f"no revision {asked!r} of {name} is in the cache, and HF_HUB_OFFLINE is set; run it once without"
        )
    commit, listing = opened or _ask_listing(name, asked)
    return Repo(
        name=name, revision=asked, commit=commit, endpoint=constants.ENDPOINT, progress=progress, listing=listing
    )


def revisions(name: str) -> dict[str, str]:
    """Return the commit of every branch and tag of a repository, by name; with HF_HUB_OFFLINE, of those in the cache.

    Raises
    ------
    MissingFile, AccessRefused, Unreachable, CorruptFile
        As `open_repo`.
    """
    if constants.is_offline_mode():
        return known_revisions(name)
    answer = ask("/refs", name, constants.DEFAULT_REVISION)
    try:
        return {str(ref["name"]): str(ref["targetCommit"]) for kind in ("tags", "branches") for ref in answer[kind]}
    except (KeyError, TypeError) as error:
        raise CorruptFile(f"{constants.ENDPOINT}: no listing of {name} ({error!r}); is it a Hub?") from None


def _ask_listing(name: str, revision: str) -> tuple[str, dict[str, Entry]]:
    answer = ask(f"/revision/{quote(revision, safe='')}", name, revision, blobs=True)
    try:
        commit = answer["sha"]
        if not is_commit(commit) or (is_commit(revision) and commit != revision):
            raise InvalidInput(f"commit {commit[:80]!r}")
        listing = {
            held["rfilename"]: _entry(held)
            for held in answer["siblings"]
            if not {"", ".", ".."} & set(held["rfilename"].split("/"))
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(f"{constants.ENDPOINT}: no listing of {name} ({error!r}); is it a Hub?") from None
    remember(name, revision, commit, listing)
    return commit, listing


def _entry(held: dict[str, Any]) -> Entry:
    lfs = held.get("lfs")
    return Entry(lfs["size"], lfs["sha256"], True) if lfs else Entry(held["size"], held["blobId"], False)
