"""Points in time as messages write them."""

from datetime import UTC, datetime, timedelta


def from_now(**span: float) -> str:
    """That far from now, in RFC 3339."""
    return (datetime.now(UTC) + timedelta(**span)).isoformat().replace("+00:00", "Z")
