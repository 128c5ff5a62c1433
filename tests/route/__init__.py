"""Tests of gateway/route."""
