"""The proxy of the tests in tests/proxy."""

from tests.proxy.conftest import full_patches, proxy

__all__ = ["full_patches", "proxy"]
