"""Templates of pages that are one HTML file, with the reports' style and tables."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

__all__ = ["template"]

NO_BREAK = "\N{NO-BREAK SPACE}"


def template(package: str, name: str) -> Template:
    """The template `name` in `package`, which may include what lies beside this file."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("facemix.report", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = _whole
    return environment.get_template(name)


def _whole(text: str) -> str:
    """Without line breaks between a figure, its deviation and its unit."""
    return text.replace(" ± ", f"{NO_BREAK}±{NO_BREAK}").replace(" %", f"{NO_BREAK}%")
