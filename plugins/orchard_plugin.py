"""Registers the pages where this folder is Airflow's plugins folder. The installed package `orchard` registers them itself."""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="orchard"):
    from orchard.pages.plugin import OrchardPlugin as OrchardPlugin
