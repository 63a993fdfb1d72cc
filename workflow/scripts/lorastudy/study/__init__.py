"""What a study is: its settings, its grid, the paper's values, the assumptions, and what is recorded."""
