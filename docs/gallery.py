"""What the gallery of tutorials needs: their pictures, SVG files where they ran, and their order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst


class SvgScraper:
    """Takes the pictures that a block of a tutorial has written."""

    def __repr__(self) -> str:
        return "SvgScraper"

    def __call__(self, _block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
        """Move new pictures to where the page looks for them; return what shows them."""
        shown = []
        for picture in sorted(Path(variables["src_file"]).parent.glob("[0-9]*.svg")):
            place = Path(next(variables["image_path_iterator"])).with_suffix(".svg")
            shutil.move(picture, place)
            shown.append(str(place))
        return str(figure_rst(shown, settings["src_dir"]))


def _get_sg_image_scraper() -> SvgScraper:
    """Return what the gallery looks for in a module that is named as a scraper."""
    return SvgScraper()


def by_file_name(name: str) -> str:
    """Return what tutorials are sorted by."""
    return name
