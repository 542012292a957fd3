"""Pages in Airflow's UI, as a plugin. They show the view that `reporting.view_refresh` writes, and change nothing."""
