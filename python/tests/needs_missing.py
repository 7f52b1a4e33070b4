"""A module of environments that lacks a package."""

import a_package_that_is_missing  # noqa: F401
