"""Reporting: how good labels are. Knows neither dumps nor models."""
