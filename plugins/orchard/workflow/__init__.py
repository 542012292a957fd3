"""The edge to Airflow: tasks, sensors, assets, timetables, lineage, the notifier."""
