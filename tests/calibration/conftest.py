"""The proxy of the tests in tests/proxy, with shapes checked."""

from tests.proxy.conftest import full_patches, proxy, shapes_are_checked

__all__ = ["full_patches", "proxy", "shapes_are_checked"]
