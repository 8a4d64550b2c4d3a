"""From tidy rows to what goes into a report: statistics, verdicts, tables, figures, one page. Neither torch nor MLflow."""
