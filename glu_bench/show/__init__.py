"""What a person sees: tables on stdout, progress on stderr, figures and the page.

The only room that knows rich, matplotlib, plotly and jinja2.
"""
