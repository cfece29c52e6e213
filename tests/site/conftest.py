"""Fixtures for every test of the site."""

from browsing import address, browser, built, visit  # noqa: F401
