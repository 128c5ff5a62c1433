"""The site that the long drills break is the one of the short ones."""

from tests.faults.conftest import across, data, migrated_folder, one_gateway, two_gateways

__all__ = ["across", "data", "migrated_folder", "one_gateway", "two_gateways"]
