"""Fine-tuning and evaluation. Imports torch; never loaded while a workflow is planned or a figure drawn."""
