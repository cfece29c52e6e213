"""Fixtures for every test of the site."""

from browsing import address, browser, built, kept, visit  # noqa: F401
