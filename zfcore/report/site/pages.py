"""Writing a site: pages from templates, pictures, data files, all with addresses relative to the page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...files import atomic_write
from ...pictures import encode_small
from ..describe import environment

PNG_LIMIT = 6_000  # bytes; larger pictures become WebP
ARRAY_LIMIT = 8 * 10**6  # bytes; larger arrays are not copied into the site


@dataclass
class Entry:
    """What the first page says of one part of the site."""

    title: str
    path: str
    kind: str
    text: str = ""
    picture: dict[str, Any] | None = None


@dataclass
class Site:
    """A site that is being written.

    Attributes
    ----------
    root : its folder
    title : of the whole
    entries : the parts that the first page links to, in order
    records : what the page about this report lists: (heading, rows of name and value)
    front : the first network's overview, which stands on the first page
    sprites : (class, picture, width, height) of the thumbnails that the style sheet knows
    search : what can be found by name, for `assets/units.js`
    """

    root: Path
    title: str
    entries: list[Entry] = field(default_factory=list)
    records: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    front: dict[str, Any] | None = None
    sprites: list[tuple[str, str, int, int]] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=lambda: {"layers": [], "classes": {}})
    _paths: set[str] = field(default_factory=set)

    @cached_property
    def _environment(self) -> Any:
        return environment()

    def page(self, path: str, template: str, **values: Any) -> str:
        """Render `templates/site/<template>` into `path`; returns the path.

        The template gets `base`, which leads from the page to the site's root: "" or "../../".
        """
        base = "../" * path.count("/")
        text = self._environment.get_template(f"site/{template}").render(
            base=base, here=path, site=self, version=__version__, **values)
        self.file(path, text.encode("utf-8", "backslashreplace"))
        return path

    def file(self, path: str, content: bytes) -> str:
        """Write a file of the site."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)  # the whole folder appears at once
        return path

    def picture(self, stem: str, pixels: np.ndarray, text: str = "") -> dict[str, Any]:
        """Write a picture as PNG or WebP, whichever suits; what a template needs to show it."""
        content, suffix = encode_small(pixels, PNG_LIMIT, "WEBP")
        return {"path": self.file(stem + suffix, content), "width": pixels.shape[1], "height": pixels.shape[0],
                "text": text}

    def array(self, path: str, array: np.ndarray) -> str | None:
        """Write an array as .npy; None where it is too large for a site."""
        if array.nbytes > ARRAY_LIMIT:
            return None
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, partial(np.save, arr=np.asarray(array), allow_pickle=False))
        return path

    def slug(self, folder: str, name: str) -> str:
        """A path in `folder` for something with any name: plain characters, unique."""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".")[:60] or "_"
        found, number = f"{folder}{plain}", 2
        while found.lower() in self._paths:  # also where the file system ignores case
            found, number = f"{folder}{plain}-{number}", number + 1
        self._paths.add(found.lower())
        return found

    def summary(self, values: dict[str, Any]) -> None:
        """Write `summary.json`."""
        self.file("summary.json", json.dumps(values, indent=2).encode())

    def finish(self) -> Path:
        """Write the assets, the page about the report, and at last the first page."""
        for name in ("site.css", "site.js"):
            self.file(f"assets/{name}", self._environment.get_template(f"site/{name}").render(site=self).encode())
        # A script, not JSON: pages opened from a file may not fetch.
        index = json.dumps(self.search, ensure_ascii=True).replace("<", "\\u003c")
        self.file("assets/units.js", f"window.zfcore = {index};\n".encode())
        self.page("about.html", "about.html", title="About this report")
        self.page("index.html", "index.html", title=self.title)
        return self.root / "index.html"
