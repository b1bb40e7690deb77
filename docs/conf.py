"""The documentation as a site: `make docs` writes build/docs/index.html."""

import zfcore

project = "zfcore"
author = "The zfcore authors"
project_copyright = "the zfcore authors, Apache-2.0"
version = release = zfcore.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["pictures"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes, which types do not
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "zfcore"
html_static_path: list[str] = []
html_show_sphinx = False
templates_path: list[str] = []
# Attributes of results share names, and pages link to files of the repository: tests/test_docs.py checks every link.
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python", "myst.xref_missing"]


def _without_substitutions(_app, _what, _name, _object, _options, lines):  # noqa: ANN001
    """|x| is a magnitude in these docstrings, not a substitution."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app):  # noqa: ANN001
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _without_substitutions)
