"""What people see: tables, figures, report, model cards, numbers for a manuscript."""
